#!/bin/sh
# Installs Vagrant with its libvirt plugin, and what checks the lab's scripts.
#
#   vagrant.sh              what `vagrant validate` needs
#   vagrant.sh --libvirt    and what `make test-vagrant` runs machines with
set -eu
here=$(dirname "$0")
sh "$here/packages.sh" vagrant vagrant-libvirt shellcheck
[ "${1:-}" = --libvirt ] || exit 0
sh "$here/vm.sh"
sh "$here/packages.sh" libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients dnsmasq-base iptables rsync curl \
    xz-utils zstd
