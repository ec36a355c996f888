#!/bin/bash
# Builds the guest image: a small bootable disk (qcow2, BIOS, MBR) made from Debian packages only.
#   usage: build.sh OUT.qcow2
#   environment: KERNEL_PKG (default: the newest cloud kernel of the release), KEEP=DIR (also leaves kernel, initramfs
#   and command line there), BOOT_MB, ROOT_MB
# As root or under fakeroot (file ownership). Nothing is installed or mounted on the build host. The result depends on
# the packages alone: the same packages give the same bytes.
set -euo pipefail
trap 'echo "build.sh: failed at line $LINENO" >&2' ERR
OUT=$(realpath -m "${1:?usage: $0 OUT.qcow2}")
HERE=$(dirname "$(realpath "$0")")
LOGIN=cumulet PASSWORD=cumulet
BOOT_MB=${BOOT_MB:-24} ROOT_MB=${ROOT_MB:-96}
KERNEL_ARGUMENTS="console=tty1 console=ttyS0,115200 no_timer_check tsc=reliable random.trust_cpu=on net.ifnames=0 panic=10
 mitigations=off nokaslr cryptomgr.notests apparmor=0 audit=0"
export SOURCE_DATE_EPOCH=1700000000 E2FSPROGS_FAKE_TIME=1700000000 LC_ALL=C TZ=UTC
PATH=$PATH:/sbin:/usr/sbin
umask 022

need() { # need PROGRAM PACKAGE
	command -v "$1" >/dev/null || { echo "build.sh: $1 is missing; install the package $2" >&2; exit 1; }
}
need apt-get apt; need dpkg-deb dpkg; need mcopy mtools; need mkfs.vfat dosfstools; need mke2fs e2fsprogs
need sfdisk fdisk; need syslinux syslinux; need cpio cpio; need zstd zstd; need xz xz-utils; need depmod kmod
need qemu-img qemu-utils; need python3 python3
MBR=$(ls /usr/lib/syslinux/mbr/mbr.bin /usr/lib/SYSLINUX/mbr.bin 2>/dev/null | head -n 1 || true)
[ -n "$MBR" ] || { echo "build.sh: mbr.bin is missing; install the package syslinux-common" >&2; exit 1; }

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
chmod 755 "$WORK"
UNPACKED=$WORK/unpacked ROOT=$WORK/root INITRAMFS=$WORK/initramfs BOOT=$WORK/boot
mkdir "$WORK/debs" "$UNPACKED" "$ROOT" "$INITRAMFS" "$BOOT"
words() { sed 's/#.*//' "$1"; }

unpack_packages() {
	local kernel=${KERNEL_PKG:-$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends:/ { print $2; exit }')}
	[ -n "$kernel" ] || { echo "build.sh: no kernel package found; run apt-get update" >&2; exit 1; }
	# shellcheck disable=SC2046
	(cd "$WORK/debs" && apt-get -qq -o APT::Sandbox::User=root download "$kernel" $(words "$HERE/packages"))
	for package in "$WORK"/debs/*.deb; do dpkg-deb -x "$package" "$UNPACKED"; done
	BUSYBOX=$(find "$UNPACKED" -path '*bin/busybox' -type f | head -n 1)
	KERNEL=$(basename "$UNPACKED"/boot/vmlinuz-*)
	KERNEL=${KERNEL#vmlinuz-}
	mkdir -p "$WORK/kernel/lib/modules"
	cp -r "$(find "$UNPACKED" -path "*lib/modules/$KERNEL" -type d | head -n 1)" "$WORK/kernel/lib/modules/"
	MODULES=$WORK/kernel/lib/modules/$KERNEL
	find "$MODULES" -name '*.ko.xz' -exec xz -d {} +
	find "$MODULES" -name '*.ko.zst' -exec zstd -q -d --rm {} +
	depmod -b "$WORK/kernel" "$KERNEL" 2>/dev/null
}

copy_libraries() { # copy_libraries PROGRAM: what it needs, and what that needs
	local name library
	for name in $(python3 "$HERE/elf_needed.py" "$1"); do
		[ -e "$ROOT/usr/lib/$name" ] && continue
		library=$(find "$UNPACKED" -name "$name" \( -type f -o -type l \) | sort | head -n 1)
		[ -n "$library" ] || { echo "build.sh: no package holds $name, which $1 needs" >&2; exit 1; }
		cp -L "$library" "$ROOT/usr/lib/$name"
		copy_libraries "$ROOT/usr/lib/$name"
	done
}

install_program() { # install_program NAME FOLDER
	local directory
	for directory in sbin bin usr/sbin usr/bin; do
		[ -f "$UNPACKED/$directory/$1" ] || continue
		rm -f "$ROOT/$2/$1"
		cp -L "$UNPACKED/$directory/$1" "$ROOT/$2/$1"
		copy_libraries "$ROOT/$2/$1"
		return
	done
	echo "build.sh: no package holds the program $1" >&2
	exit 1
}

copy_modules() { # copy_modules DESTINATION MODULE...: with all that the modules depend on
	local destination=$1/lib/modules/$KERNEL name path
	shift
	mkdir -p "$destination"
	for name in "$@"; do
		path=$(cd "$MODULES" && find kernel -name "$name.ko" -o -name "${name//_/-}.ko" | head -n 1)
		[ -n "$path" ] || continue # built into this kernel
		echo "$path"
		sed -n "s#^$path: ##p" "$MODULES/modules.dep" | tr ' ' '\n'
	done | sort -u | while read -r path; do
		[ -n "$path" ] || continue
		mkdir -p "$destination/$(dirname "$path")"
		cp "$MODULES/$path" "$destination/$path"
	done
	cp "$MODULES/modules.builtin" "$MODULES/modules.builtin.modinfo" "$MODULES/modules.order" "$destination/"
	depmod -b "${destination%/lib/modules/*}" "$KERNEL"
	rm -f "$destination"/*.bin "$destination/modules.builtin.modinfo"
}

make_programs() {
	local applet name
	cp "$BUSYBOX" "$ROOT/bin/busybox"
	for applet in $("$BUSYBOX" --list-full); do
		mkdir -p "$ROOT/$(dirname "$applet")"
		[ -e "$ROOT/$applet" ] || [ -L "$ROOT/$applet" ] || ln -s /bin/busybox "$ROOT/$applet"
	done
	cp -L "$(find "$UNPACKED" -name ld-linux-x86-64.so.2 | head -n 1)" "$ROOT/lib64/"
	for name in dropbear:usr/sbin dropbearkey:usr/bin jq:usr/bin resize2fs:sbin mke2fs:sbin lsblk:bin blkid:sbin \
		sfdisk:sbin sudo:usr/bin; do install_program "${name%:*}" "${name#*:}"; done
	for name in ext2 ext3 ext4; do ln -sf mke2fs "$ROOT/sbin/mkfs.$name"; done
	cp "$UNPACKED/etc/mke2fs.conf" "$ROOT/etc/"
	chmod 4755 "$ROOT/usr/bin/sudo"
	local sudoers
	sudoers=$(find "$UNPACKED" -name sudoers.so)
	mkdir -p "$ROOT$(dirname "${sudoers#"$UNPACKED"}")"
	cp -L "$sudoers" "$ROOT${sudoers#"$UNPACKED"}"
	copy_libraries "$sudoers"
	find "$UNPACKED" -name pam_permit.so -exec cp {} "$ROOT/usr/lib/security/" \;
	mkdir -p "$ROOT/lib/x86_64-linux-gnu"
	ln -s /usr/lib/security "$ROOT/lib/x86_64-linux-gnu/security"
}

make_accounts() {
	printf 'root:x:0:0:root:/root:/bin/sh\n%s:x:1000:1000:%s:/home/%s:/bin/sh\n' $LOGIN $LOGIN $LOGIN >"$ROOT/etc/passwd"
	printf 'root:*:19000:0:99999:7:::\n%s:%s:19000:0:99999:7:::\n' $LOGIN \
		"$("$BUSYBOX" mkpasswd -m sha256 -S cumuletguestimg "$PASSWORD")" >"$ROOT/etc/shadow"
	chmod 600 "$ROOT/etc/shadow"
	printf 'root:x:0:\n%s:x:1000:\ntty:x:5:\n' $LOGIN >"$ROOT/etc/group"
	printf '%s\n' 'Defaults secure_path="/sbin:/usr/sbin:/bin:/usr/bin"' 'root ALL=(ALL) NOPASSWD: ALL' \
		"$LOGIN ALL=(ALL) NOPASSWD: ALL" >"$ROOT/etc/sudoers"
	chmod 440 "$ROOT/etc/sudoers"
	for kind in auth account session password; do echo "$kind required pam_permit.so"; done >"$ROOT/etc/pam.d/other"
	cp "$ROOT/etc/pam.d/other" "$ROOT/etc/pam.d/sudo"
	chown -R 1000:1000 "$ROOT/home/$LOGIN"
	chmod 700 "$ROOT/home/$LOGIN/.ssh" "$ROOT/root"
}

make_root() {
	mkdir -p "$ROOT"/{bin,sbin,etc,dev,proc,sys,run,tmp,root,mnt,var/lib/cloud,var/log,lib64,lib/modules} \
		"$ROOT"/{home/$LOGIN/.ssh,usr/bin,usr/sbin,usr/lib/security,etc/acpi,etc/dropbear,etc/pam.d}
	chmod 1777 "$ROOT/tmp"
	make_programs
	make_accounts
	cp -r "$HERE/rootfs/." "$ROOT/"
	echo /usr/lib >"$ROOT/etc/ld.so.conf"
	echo 'export PATH=/sbin:/usr/sbin:/bin:/usr/bin' >"$ROOT/etc/profile"
	echo /bin/sh >"$ROOT/etc/shells"
	echo guest >"$ROOT/etc/hostname"
	echo '127.0.0.1 localhost' >"$ROOT/etc/hosts"
	printf 'passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n' >"$ROOT/etc/nsswitch.conf"
	printf 'Cumulet guest. Log in as user "%s", password "%s"; sudo gives root.\n' $LOGIN $PASSWORD >"$ROOT/etc/issue"
	printf 'ID=cumulet-guest\nPRETTY_NAME="Cumulet guest (of Debian packages)"\n' >"$ROOT/etc/os-release"
	ln -sf /sbin/init "$ROOT/init"
	ln -sf /proc/mounts "$ROOT/etc/mtab"
	# shellcheck disable=SC2046
	copy_modules "$ROOT" $(words "$HERE/modules")
	ldconfig -r "$ROOT"
	rm -rf "$ROOT/var/cache/ldconfig"
}

make_initramfs() {
	mkdir -p "$INITRAMFS"/{bin,sbin,dev,proc,sys,new}
	cp "$BUSYBOX" "$INITRAMFS/bin/busybox"
	ln -s /bin/busybox "$INITRAMFS/bin/sh"
	ln -s /bin/busybox "$INITRAMFS/sbin/modprobe"
	copy_modules "$INITRAMFS" virtio_pci virtio_blk virtio_scsi sd_mod ata_piix ahci nvme virtio_mmio
	install -m 755 "$HERE/initramfs-init" "$INITRAMFS/init"
	mknod "$INITRAMFS/dev/console" c 5 1
	find "$INITRAMFS" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	(cd "$INITRAMFS" && find . | sort | cpio --quiet -o -H newc -R 0:0 --reproducible | zstd -q -19) >"$BOOT/initrd.img"
	cp "$UNPACKED/boot/vmlinuz-$KERNEL" "$BOOT/vmlinuz"
}

fix_times() { # fix_times EXT4 FOLDER: mke2fs takes over the change times of the folder's files, which nobody can set
	local field
	{
		echo /
		echo /lost+found
		(cd "$2" && find . -mindepth 1 | sed 's/^[.]//')
	} | while read -r path; do
		for field in atime mtime ctime crtime; do
			echo "set_inode_field $path $field @$SOURCE_DATE_EPOCH"
			echo "set_inode_field $path ${field}_extra 0"
		done
	done >"$WORK/times"
	debugfs -w -f "$WORK/times" "$1" >/dev/null 2>"$WORK/debugfs.log"
	if grep -v '^debugfs 1' "$WORK/debugfs.log" >&2; then exit 1; fi
}

make_disk() { # MBR, a FAT file system for syslinux, kernel and initramfs, an ext4 root with a journal
	local raw=$WORK/disk.raw sorted=$WORK/sorted
	KERNEL_ARGUMENTS=$(echo $KERNEL_ARGUMENTS)
	printf 'DEFAULT l\nPROMPT 0\nTIMEOUT 0\nLABEL l\n KERNEL /vmlinuz\n APPEND initrd=/initrd.img %s\n' \
		"$KERNEL_ARGUMENTS" >"$BOOT/syslinux.cfg"
	touch -d "@$SOURCE_DATE_EPOCH" "$BOOT"/*
	truncate -s "${BOOT_MB}M" "$WORK/fat.img"
	mkfs.vfat --invariant -n GUESTBOOT -i 1234abcd "$WORK/fat.img" >/dev/null
	mcopy -m -i "$WORK/fat.img" "$BOOT/vmlinuz" "$BOOT/initrd.img" "$BOOT/syslinux.cfg" ::
	find "$ROOT" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	mkdir "$sorted" # copied by name, so that the order of entries does not depend on the build host
	(cd "$ROOT" && find . -mindepth 1 | sort | cpio --quiet -pdm "$sorted")
	# Everybody may ping. The shell runs its own ping without looking for a file, so the right (CAP_NET_RAW) is busybox's.
	python3 -c 'import os, struct, sys
os.setxattr(sys.argv[1], "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))' "$sorted/bin/busybox"
	touch -d "@$SOURCE_DATE_EPOCH" "$sorted"
	truncate -s "${ROOT_MB}M" "$WORK/root.img"
	mke2fs -q -t ext4 -m 0 -L guest-root -U 0c1e7000-0000-4000-8000-000000000001 -J size=4 -d "$sorted" \
		-E root_owner=0:0,hash_seed=0c1e7000-0000-4000-8000-000000000002,lazy_itable_init=1 "$WORK/root.img"
	fix_times "$WORK/root.img" "$sorted"
	truncate -s $((1 + BOOT_MB + ROOT_MB))M "$raw"
	printf 'label: dos\nlabel-id: 0x12345678\nstart=2048,size=%d,type=c,bootable\nstart=%d,size=%d,type=83\n' \
		$((BOOT_MB * 2048)) $(((1 + BOOT_MB) * 2048)) $((ROOT_MB * 2048)) | sfdisk -q "$raw"
	dd if="$WORK/fat.img" of="$raw" bs=1M seek=1 conv=notrunc,sparse status=none
	dd if="$WORK/root.img" of="$raw" bs=1M seek=$((1 + BOOT_MB)) conv=notrunc,sparse status=none
	syslinux --install --offset $((2048 * 512)) "$raw"
	dd if="$MBR" of="$raw" bs=440 count=1 conv=notrunc status=none
	mkdir -p "$(dirname "$OUT")"
	qemu-img convert -c -O qcow2 "$raw" "$OUT.part"
	mv "$OUT.part" "$OUT"
}

unpack_packages
make_root
make_initramfs
make_disk
if [ -n "${KEEP:-}" ]; then
	mkdir -p "$KEEP"
	cp "$BOOT/vmlinuz" "$BOOT/initrd.img" "$KEEP/"
	echo "$KERNEL_ARGUMENTS" >"$KEEP/cmdline"
fi
echo "$OUT: $(($(stat -c %s "$OUT") / 1048576)) MB, kernel $KERNEL, login $LOGIN"
