#!/bin/sh
# Installs what the benchmarks compare Shoal with, and measure with.
set -eu
# The packages' own services are not to be started: the benchmark starts its daemons in namespaces of its own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
command -v dockerd >/dev/null && command -v tini >/dev/null && command -v iperf3 >/dev/null && exit 0
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends docker.io containerd runc tini iperf3
