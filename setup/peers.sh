#!/bin/sh
# Installs what the benchmarks compare Shoal with, and measure with.
exec sh "$(dirname "$0")/packages.sh" docker.io docker-registry containerd runc tini iperf3
