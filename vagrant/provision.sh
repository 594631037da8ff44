#!/bin/sh
# Makes a Debian 12 or 13 or an Ubuntu 24.04 machine a host of the lab's swarm. Vagrant runs it as root, with:
#
#   LAB_ADDRESS    this machine's address on the private network
#   LAB_ROLE       manager or worker
#   LAB_MANAGERS   the managers' addresses, the first one's first
#   LAB_NODES      how many machines the lab has
#   LAB_EXAMPLE    the port of the example, on the last machine: it has it deployed; elsewhere empty
#   LAB_SLOWNESS   how many times slower than hardware the machines are
#
# Each step looks first whether there is anything to do: running this again changes nothing.
set -eu

lab=/var/lib/shoal-lab # a copy of the folder that prepare.sh filled
code=/usr/local/lib/shoal
state=/var/lib/shoal-lab.state
first=${LAB_MANAGERS%% *}

main() {
    mkdir -p "$state"
    retry 20 sh "$lab/packages.sh" # a new machine's first upgrade by itself may hold apt's lists
    install_shoal
    start_daemon
    load_image
    if [ "$LAB_ROLE" = manager ]; then admit_others; fi
    enter_swarm
    if [ -n "$LAB_EXAMPLE" ]; then deploy; fi
    if shoal doctor --help > /dev/null 2>&1; then
        shoal doctor || say "see what shoal doctor says above"
    fi
}

say() { echo "shoal: $*"; }

# retry SECONDS COMMAND…: until it succeeds. The time is for hardware. Says what went wrong at the end.
retry() {
    tries=$(($1 * LAB_SLOWNESS))
    shift
    until "$@" > "$state/said" 2>&1; do
        tries=$((tries - 1))
        if [ $tries -le 0 ]; then
            cat "$state/said" >&2
            return 1
        fi
        sleep 1
    done
}

# The package, in a virtual environment of its own, from the wheels of the dependencies where they were brought along.
install_shoal() {
    wheel=$(echo "$lab"/shoal-*.whl)
    wanted=$(sha256sum "$wheel" | cut -d ' ' -f 1)
    if [ "$(cat "$state/wheel" 2> /dev/null)" = "$wanted" ]; then return; fi
    say "installing $(basename "$wheel")"
    [ -x "$code/bin/pip" ] || python3 -m venv "$code"
    if [ -d "$lab/wheels" ]; then
        set -- --no-index --find-links "$lab/wheels"
    else
        set --
    fi
    "$code/bin/pip" uninstall --quiet --yes shoal 2> /dev/null # may not be there
    "$code/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir \
        --constraint "$lab/constraints.txt" "$@" "$wheel"
    ln -sf "$code/bin/shoal" "$code/bin/shoald" /usr/local/bin/
    cp "$code"/lib/python3.*/site-packages/shoal/daemon/shoald.service /etc/systemd/system/
    systemctl daemon-reload
    if systemctl --quiet is-active shoald; then systemctl restart shoald; fi # containers live on
    echo "$wanted" > "$state/wheel"
}

# As a unit. Whoever is in the group docker may talk to it.
start_daemon() {
    settings=/etc/default/shoald
    if [ ! -e $settings ]; then
        if [ "$LAB_SLOWNESS" -gt 1 ]; then
            echo "SHOAL_ELECTION_TIMEOUT=$((LAB_SLOWNESS / 4 + 1))" > $settings
        else
            echo '# SHOALD_OPTIONS=--log-level debug' > $settings
        fi
    fi
    getent group docker > /dev/null || groupadd --system docker
    usermod --append --groups docker vagrant
    if systemctl --quiet is-enabled shoald && systemctl --quiet is-active shoald; then return; fi
    say "starting shoald"
    systemctl enable --quiet --now shoald
    retry 30 shoal image ls
}

# The image of the example is this machine's own busybox: nothing is fetched.
load_image() {
    if shoal image inspect busybox > /dev/null 2>&1; then return; fi
    say "making the image busybox"
    "$code/bin/python" -m shoal.lab.image > "$state/busybox.tar"
    shoal image load "$state/busybox.tar" > /dev/null
    rm "$state/busybox.tar"
}

# Who holds the lab's key may run handout.sh here, and nothing else.
admit_others() {
    key=$(cat "$lab/key.pub")
    file=$(getent passwd vagrant | cut -d : -f 6)/.ssh/authorized_keys
    if grep -qF "$key" "$file"; then return; fi
    # shellcheck disable=SC2016 # sshd sets it
    printf 'restrict,command="sudo sh %s/handout.sh $SSH_ORIGINAL_COMMAND" %s\n' "$lab" "$key" >> "$file"
}

# A manager's host key is not looked at: a machine that is made anew under the same address has another.
ask() {
    manager=$1
    shift
    ssh -n -i "$lab/key" -o BatchMode=yes -o IdentitiesOnly=yes -o LogLevel=ERROR \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
        -o ConnectTimeout=$((5 * LAB_SLOWNESS)) "vagrant@$manager" "$@"
}

# What any manager but this one answers.
ask_managers() {
    for manager in $LAB_MANAGERS; do
        if [ "$manager" != "$LAB_ADDRESS" ] && ask "$manager" "$@"; then return 0; fi
    done
    return 1
}

in_swarm() {
    "$code/bin/python" -c '
from shoal.cli.client import Client
raise SystemExit(Client().call("GET", "/info")["Swarm"]["LocalNodeState"] == "inactive")'
}

# Joins where a manager answers. The first manager makes the swarm where none does.
enter_swarm() {
    if in_swarm; then return; fi
    if [ "$LAB_ADDRESS" = "$first" ] && ! ask_managers token manager > "$state/said" 2>&1; then
        say "making the swarm"
        shoal swarm init --advertise-addr "$LAB_ADDRESS" > /dev/null
        if [ "$LAB_SLOWNESS" -gt 3 ]; then shoal swarm update --dispatcher-heartbeat "$LAB_SLOWNESS"; fi
        return
    fi
    say "joining the swarm as a $LAB_ROLE"
    retry 60 join
}

join() {
    for manager in $LAB_MANAGERS; do
        [ "$manager" != "$LAB_ADDRESS" ] || continue
        token=$(ask "$manager" token "$LAB_ROLE") || continue
        shoal swarm join --advertise-addr "$LAB_ADDRESS" --token "$token" "$manager:2377" && return 0
    done
    return 1
}

deploy() {
    say "deploying the example"
    set -- example "$LAB_NODES" $((2 * LAB_NODES)) "$LAB_EXAMPLE"
    if [ "$LAB_ROLE" = manager ]; then
        sh "$lab/handout.sh" "$@"
    else
        ask_managers "$@"
    fi
}

main
