#!/bin/sh
# Builds a box for libvirt of Debian's or Ubuntu's packages alone: no box catalogue is asked.
#
#   box.sh FILE.box        then: vagrant box add --name shoal/local FILE.box
#
#   RELEASE=bookworm       Debian 12; trixie: Debian 13; noble: Ubuntu 24.04
#   KEYRING=               what the release's packages are signed with, where this machine does not have that
#
# As root, with: apt-get install --no-install-recommends mmdebstrap qemu-utils e2fsprogs cpio kmod xz-utils zstd
# (and ubuntu-keyring, which Debian has from 13 on).
#
# Shoal's dependencies are in it, as requirements.lock has them: the machines need no package index.
# The machine boots the kernel directly, with an initramfs that only finds its disk. It lets in whoever has Vagrant's
# well-known key: keep it on networks of the host.
set -eu

release=${RELEASE:-bookworm}
case $release in # the Python that it has, the kernel as clouds get it
    bookworm) python=3.11 kernel=linux-image-cloud-amd64 components=main ;;
    trixie) python=3.13 kernel=linux-image-cloud-amd64 components=main ;;
    noble) python=3.12 kernel=linux-image-virtual components=main,universe ;;
    *) echo "box.sh: RELEASE has to be bookworm, trixie or noble, not $release" >&2; exit 2 ;;
esac
size_gb=4
here=$(dirname "$0")
packages="systemd-sysv,dbus,udev,apparmor,openssh-server,sudo,rsync,ca-certificates,curl,e2fsprogs,iputils-ping,kmod,\
procps"
for package in $(sed -n '/^packages="/,/"$/p' "$here/../setup/packages.sh" | tr -d '"' | sed 's/^packages=//'); do
    packages=$packages,$package
done
key="ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1\
YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6ki\
vAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OH\
lnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key"

main() {
    [ $# -eq 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
    [ "$(id -u)" -eq 0 ] || { echo "box.sh has to run as root" >&2; exit 1; }
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    root=$work/root box=$work/box
    mkdir "$box"
    install_system
    install_kernel
    set_up
    install_dependencies
    pack_initramfs
    truncate -s ${size_gb}G "$work/disk"
    mke2fs -q -t ext4 -F -J size=16 -m 0 -d "$root" "$work/disk"
    qemu-img convert -f raw -O qcow2 "$work/disk" "$box/box.img"
    describe
    tar -C "$box" -cf - . | gzip -1 > "$work/packed"
    mv "$work/packed" "$1"
}

# From where this machine has its own packages, if it is of the same release; else from the distribution's mirrors.
# The kernel's packages are only fetched.
install_system() {
    set --
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources; do
        if grep -qs "$release" "$file"; then set -- "$@" "$file"; fi
    done
    # shellcheck disable=SC2016 # mmdebstrap's shell expands it
    mmdebstrap --quiet --variant=minbase --mode=root --include="$packages" --components="$components" \
        ${KEYRING:+--keyring="$KEYRING"} --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='cd "$1/root" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" &&
            image=$(apt-cache depends '$kernel' | awk '\''/Depends: linux-image/ { print $2; exit }'\'') &&
            apt-get download -q "$image" $(apt-cache depends "$image" | awk '\''/Depends: linux-modules/ { print $2 }'\'')' \
        "$release" "$root" "$@"
}

# Unpacked, not installed: as a package it would make an initramfs of its own, which takes longer than all the rest.
install_kernel() {
    for package in "$root"/root/linux-*.deb; do
        dpkg -x "$package" "$work/kernel"
        rm "$package"
    done
    modules=$(find "$work/kernel" -path '*lib/modules/*' -prune)
    version=$(basename "$modules")
    install -m 644 "$work/kernel/boot/vmlinuz-$version" "$box/vmlinuz"
    mkdir -p "$root/usr/lib/modules"
    cp -a "$modules" "$root/usr/lib/modules/"
    chroot "$root" depmod "$version"
}

# What Vagrant asks of a box: its user, its key, an address by DHCP on the first interface.
set_up() {
    chroot "$root" useradd --create-home --shell /bin/bash vagrant
    install -d -m 700 "$root/home/vagrant/.ssh"
    echo "$key" > "$root/home/vagrant/.ssh/authorized_keys"
    chmod 600 "$root/home/vagrant/.ssh/authorized_keys"
    chroot "$root" chown -R vagrant:vagrant /home/vagrant/.ssh
    echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/vagrant"
    chmod 440 "$root/etc/sudoers.d/vagrant"
    printf 'UseDNS no\nPasswordAuthentication no\n' > "$root/etc/ssh/sshd_config.d/vagrant.conf"
    rm -f "$root"/etc/ssh/ssh_host_*
    printf '[Unit]\nBefore=ssh.service\nConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n
[Service]\nType=oneshot\nExecStart=ssh-keygen -A\n\n[Install]\nWantedBy=ssh.service\n' \
        > "$root/etc/systemd/system/ssh-host-keys.service"
    mkdir -p "$root/etc/systemd/network"
    printf '[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\n' > "$root/etc/systemd/network/80-eth0.network"
    echo '/dev/vda / ext4 rw,noatime 0 1' > "$root/etc/fstab"
    printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s\n' "$release" > "$root/etc/hosts"
    echo "$release" > "$root/etc/hostname"
    : > "$root/etc/machine-id"
    : > "$root/etc/resolv.conf"
    chroot "$root" systemctl enable --quiet systemd-networkd ssh-host-keys
    chroot "$root" systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
        e2scrub_reap.service fstrim.timer motd-news.timer getty@tty1.service
}

# The virtual environment that provision.sh will install the wheel in.
install_dependencies() {
    OFFLINE=$python sh "$here/../setup/wheel.sh" "$work/lab" > /dev/null
    mkdir -p "$root/root/lab"
    cp -R "$work/lab/wheels" "$work/lab/constraints.txt" "$work"/lab/shoal-*.whl "$root/root/lab"
    chroot "$root" python3 -m venv /usr/local/lib/shoal
    chroot "$root" sh -c '/usr/local/lib/shoal/bin/pip install -qq --disable-pip-version-check --no-index \
        --find-links /root/lab/wheels --constraint /root/lab/constraints.txt /root/lab/shoal-*.whl &&
        /usr/local/lib/shoal/bin/pip uninstall -qq --yes shoal'
    rm -r "$root/root/lab"
}

# busybox, the modules of the disk in the order to load them, and a program that hands over to the disk's init.
pack_initramfs() {
    ir=$work/initramfs
    mkdir -p "$ir/bin" "$ir/proc" "$ir/sys" "$ir/dev" "$ir/disk" "$ir/modules"
    cp "$root/bin/busybox" "$ir/bin/"
    number=10
    for module in virtio_pci virtio_blk ext4; do
        for file in $(chroot "$root" modprobe -S "$version" --show-depends $module | awk '/^insmod/ { print $2 }'); do
            case $file in
                *.xz) unpack="xzcat" ;;
                *.zst) unpack="zstdcat" ;;
                *) unpack="cat" ;;
            esac
            $unpack "$root/$file" > "$ir/modules/$number-$module.ko"
            number=$((number + 1))
        done
    done
    cat > "$ir/init" << 'END'
#!/bin/busybox sh
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sysfs /sys
$B mount -t devtmpfs dev /dev
for module in /modules/*.ko; do $B insmod "$module" 2> /dev/null; done # what two need comes twice
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 200 ]; do $B sleep 0.05; tries=$((tries + 1)); done
$B mount -t ext4 -o rw,noatime /dev/vda /disk || exec $B poweroff -f
for folder in proc sys dev; do $B mount --move /$folder /disk/$folder; done
exec $B switch_root /disk /sbin/init
END
    chmod +x "$ir/init"
    (cd "$ir" && find . | cpio --quiet -o -H newc | gzip -1) > "$box/initrd.gz"
}

describe() {
    echo "{\"provider\": \"libvirt\", \"format\": \"qcow2\", \"virtual_size\": $size_gb}" > "$box/metadata.json"
    cat > "$box/Vagrantfile" << 'END'
Vagrant.configure("2") do |config|
  config.ssh.insert_key = false
  config.vm.provider :libvirt do |libvirt|
    libvirt.kernel = File.expand_path("vmlinuz", __dir__)
    libvirt.initrd = File.expand_path("initrd.gz", __dir__)
    libvirt.cmd_line = "root=/dev/vda rw net.ifnames=0 console=ttyS0 quiet panic=1"
    libvirt.disk_bus = "virtio"
    libvirt.nic_model_type = "virtio"
  end
end
END
}

main "$@"
