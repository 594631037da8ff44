#!/bin/sh
# Installs what only the tests need: a server and a client for volumes over SFTP, and Docker's registry.
exec sh "$(dirname "$0")/packages.sh" openssh-server openssh-client sshfs systemd docker-registry skopeo git
