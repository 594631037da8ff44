#!/bin/sh
# Installs what the virtual machines of the tests are built and run with.
exec sh "$(dirname "$0")/packages.sh" qemu-system-x86 qemu-utils mmdebstrap openssh-client busybox-static e2fsprogs kmod \
    cpio util-linux
