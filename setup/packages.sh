#!/bin/sh
# Installs the Debian packages that Shoal stands on, or those that are named. Does nothing where they are all there,
# and starts no service of theirs.
set -eu

packages="runc crun conmon catatonit nftables libnftables1 conntrack iproute2 util-linux busybox-static
golang-github-containers-common python3-venv"

missing=
# shellcheck disable=SC2048 # no name of a package holds a space
for package in ${*:-$packages}; do
    dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "these packages are missing:$missing. Install them, or run this as root." >&2
    exit 1
fi
if [ ! -e /usr/sbin/policy-rc.d ]; then # Debian's way to say that nothing is to be started
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
apt-get update -qq
# shellcheck disable=SC2086 # a list of words is meant
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 $missing
