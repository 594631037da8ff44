#!/bin/sh
# What a manager of the lab does for a machine that holds the lab's key. sshd calls it, with what was asked for.
#
#   handout.sh token worker|manager             the token with which one joins
#   handout.sh example NODES REPLICAS PORT      deploys the example
set -eu
case "$*" in
    "token worker" | "token manager") exec shoal swarm join-token --quiet "$2" ;;
    "example "*) shift && exec sh "$(dirname "$0")/example.sh" "$@" ;;
    *) echo "a machine of the lab may ask for a token or for the example, not for '$*'" >&2 && exit 2 ;;
esac
