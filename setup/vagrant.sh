#!/bin/sh
# Installs Vagrant with its libvirt plugin, and what checks the lab's scripts. Does nothing where it is all there.
#
#   vagrant.sh              what `vagrant validate` needs
#   vagrant.sh --libvirt    and what `make test-vagrant` runs machines with
set -eu

packages="vagrant vagrant-libvirt shellcheck"
if [ "${1:-}" = --libvirt ]; then
    sh "$(dirname "$0")/vm.sh"
    packages="$packages libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base iptables rsync curl"
fi

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
