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
if ! packaging/guest_image/build.sh "$partial"; then
  echo "trying once more with fresh package lists"
  apt-get update -qq
  packaging/guest_image/build.sh "$partial"
fi
mv "$partial" "$out"
