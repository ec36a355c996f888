#!/usr/bin/env bash
# Installs what Cumulet needs: system packages through apt when root, Python packages in a locked virtual environment.
#   usage: packaging/install.sh [VENV]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv}

packages=(python3 python3-venv qemu-system-x86 qemu-utils qemu-block-extra nftables dnsmasq-base conntrack iproute2
  openssh-client genisoimage novnc kmod xz-utils zstd cpio syslinux mtools dosfstools e2fsprogs fdisk chromium)
missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ]; then
    echo "installing system packages: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "not root: these packages are missing and stay so: ${missing[*]}"
    echo "install them with: sudo apt-get install --no-install-recommends ${missing[*]}"
  fi
fi

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r requirements.lock
"$venv/bin/pip" install -q --disable-pip-version-check hatchling editables
"$venv/bin/pip" install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
"$venv/bin/python" -m compileall -q src "$venv/lib" || true
