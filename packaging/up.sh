#!/usr/bin/env bash
# Starts the cloud in the foreground, and the demo beside it once every API answers. Ctrl-C stops the cloud in order.
#   usage: VENV=.venv GUEST=guest.qcow2 packaging/up.sh [flags of `cumulet up`]
set -euo pipefail
cd "$(dirname "$0")/.."
cumulet="${VENV:-.venv}/bin/cumulet"
guest=${GUEST:-guest.qcow2}

# Only a cloud of real servers boots the image, and only if it is not told another one.
case " $* " in
  *" --hypervisor simulated "* | *" --hypervisor=simulated "* | *" --guest-image"*) ;;
  *)
    if [ ! -e "$guest" ] && ! bash packaging/guest_image.sh "$guest"; then
      echo "the guest image could not be built, so the demo would have nothing to boot" >&2
      echo "  way out: make guest-image, once Debian packages can be downloaded; or a simulated cloud:" >&2
      echo "           make up ARGS=\"--hypervisor simulated\"" >&2
      exit 1
    fi
    ;;
esac

# The demo must look into the directory that `up` writes to.
where=()
previous=
for word in "$@"; do
  case $previous in --data | --config) where+=("$previous" "$word") ;; esac
  case $word in --data=* | --config=*) where+=("$word") ;; esac
  previous=$word
done

"$cumulet" demo --wait 120 "${where[@]}" &
demo=$!
trap 'kill "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true' EXIT
"$cumulet" up "$@"
