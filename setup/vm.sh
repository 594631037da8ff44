#!/bin/sh
# Installs what the virtual machines of the tests are built and run with. Does nothing where it is all there.
set -eu

packages="qemu-system-x86 qemu-utils mmdebstrap openssh-client busybox-static e2fsprogs kmod cpio util-linux"

missing=
for package in $packages; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "these packages are missing:$missing. Install them, or run this as root." >&2
    exit 1
fi
apt-get update -qq
# shellcheck disable=SC2086 # a list of words is meant
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
