#!/usr/bin/env bash
# Installs what Cumulet needs on Debian or Ubuntu: system packages through apt when root, Python packages in a locked
# virtual environment. May be run again at any time.
#   usage: packaging/install.sh [run|test] [VENV]
# `run` is what `cumulet up` needs, the guest image's tools included; `test` adds what only the tests need.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose=${1:-run}
venv=${2:-.venv}

packages=(python3 python3-venv qemu-system-x86 qemu-utils qemu-block-extra nftables dnsmasq-base conntrack iproute2
  openssh-client genisoimage novnc kmod)
ldap_packages=(gcc libc6-dev python3-dev libldap-dev libsasl2-dev) # python-ldap is compiled
image_packages=(xz-utils zstd cpio syslinux mtools dosfstools e2fsprogs fdisk)
test_packages=(chromium slapd ldap-utils iptables ufw mariadb-server rabbitmq-server tgt rsync rclone openssh-server
  iputils-ping)
case $purpose in
  run) packages+=("${image_packages[@]}" "${ldap_packages[@]}") ;;
  test) packages+=("${image_packages[@]}" "${ldap_packages[@]}" "${test_packages[@]}") ;;
  *) echo "usage: packaging/install.sh [run|test] [VENV]" >&2; exit 2 ;;
esac

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then
    echo "installing system packages: ${missing[*]}"
    apt-get update -qq
    # The tests start servers of their own (directories, databases, brokers): the packages' own are neither set up nor started.
    policy=/usr/sbin/policy-rc.d
    echo 'slapd slapd/no_configuration boolean true' | debconf-set-selections
    if [ ! -e "$policy" ]; then
      printf '#!/bin/sh\nexit 101\n' >"$policy"
      chmod 755 "$policy"
      trap 'rm -f "$policy"' EXIT
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "not root, so these packages stay missing: ${missing[*]}"
    echo "install them with: sudo apt-get install --no-install-recommends ${missing[*]}"
  fi
fi

python=python3
for candidate in python3.13 python3.12 python3.11 python3; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
done
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "Python 3.11 or newer is needed; $python is $("$python" -V 2>&1)" >&2
  exit 1
fi
if ! "$venv/bin/python" -c '' 2>/dev/null; then
  "$python" -m venv --clear "$venv"
fi

# One digest of all that decides what is in the environment: nothing to do if it is there already.
digest=$(cat requirements.lock packaging/build.lock packaging/ldap.lock pyproject.toml | sha256sum | cut -c1-16)
if [ "$(cat "$venv/.digest" 2>/dev/null)" != "$digest" ]; then
  echo "installing Python packages into $venv"
  "$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r requirements.lock
  "$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r packaging/build.lock
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
  if ! "$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r packaging/ldap.lock 2>"$venv/ldap.log"; then
    echo "python-ldap cannot be compiled (see $venv/ldap.log): domains with an LDAP directory will not work; all else does" >&2
  fi
  "$venv/bin/python" -m compileall -q src "$venv/lib" >/dev/null || true # some packages ship files for other versions
  echo "$digest" >"$venv/.digest"
fi
