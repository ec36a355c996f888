#!/bin/sh
# The boot: what ssh needs comes first, everything else runs beside it. ssh itself is started by cloud.init.
export PATH=/sbin:/usr/sbin:/bin:/usr/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mount -o remount,rw /
hostname -F /etc/hostname
ip link set lo up
modprobe -a virtio_net virtio-rng button evdev 2>/dev/null # virtio-rng first: without entropy getrandom() stalls ssh
/etc/net.up >/var/log/net.log 2>&1 &
mdev -d # hotplug: /etc/mdev.conf
acpid -c /etc/acpi -l /var/log/acpid.log # the power button
/etc/rc.later &
/etc/cloud.init >/var/log/cloud.log 2>&1 </dev/null &
sysctl -qw kernel.printk='4 4 1 7' # the boot was told; from here only what an operator must see
