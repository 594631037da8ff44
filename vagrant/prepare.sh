#!/bin/sh
# Fills .lab, the folder that every machine of the lab gets a copy of: the wheel of this checkout, the scripts that
# run in the machines, and the key with which they ask a manager to let them in. `vagrant up` calls this first.
# OFFLINE=1 adds the wheels of the dependencies, for machines that reach no package index.
set -eu
cd "$(dirname "$0")"

umask 077
mkdir -p .lab
[ -f .lab/key ] || ssh-keygen -q -t ed25519 -N '' -C 'shoal lab' -f .lab/key
sh ../setup/wheel.sh .lab > /dev/null
cp ../setup/packages.sh handout.sh example.sh .lab/
