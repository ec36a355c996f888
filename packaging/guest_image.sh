#!/usr/bin/env bash
# Builds the guest image, if this user can; says why not otherwise, without failing: a simulated cloud needs none.
#   usage: packaging/guest_image.sh OUT.qcow2
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: packaging/guest_image.sh OUT.qcow2}
if [ "$(id -u)" != 0 ]; then
  echo "not root: the guest image is not built (sudo make guest-image)"
  exit 0
fi
partial="$out.building.qcow2"
trap 'rm -f "$partial"' EXIT
echo "building the guest image from Debian packages (about 20 s)"
# What apt complains about, package by package, is of use only if it still fails with fresh lists; then its last line is.
complaints=$(mktemp)
trap 'rm -f "$partial" "$complaints"' EXIT
if ! packaging/guest_image/build.sh "$partial" 2>"$complaints"; then
  echo "trying once more with fresh package lists"
  apt-get update -qq 2>"$complaints" || true
  if ! packaging/guest_image/build.sh "$partial" 2>"$complaints"; then
    tail -n 2 "$complaints" >&2
    exit 1
  fi
fi
mv "$partial" "$out"
