"""What only a try tells. Everything is tried in namespaces that end with the try, and needs root. Blocking.

A probe's result is "" where it worked, else the kernel's words.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 20

_LINKS = """
try() {
    name=$1; shift
    said=$("$@" 2>&1) && said= || said=${said:-failed}
    printf '%s\\t%s\\n' "$name" "$(echo "$said" | head -n 1)"
}
ip link set lo up
try bridge ip link add b0 type bridge
try veth ip link add v0 type veth peer name v1
try vxlan ip link add x0 type vxlan id 1 dstport 4789 nolearning
ip link add d0 type veth peer name d1
try macvlan ip link add m0 link d0 type macvlan mode bridge
try ipvlan ip link add i0 link d1 type ipvlan mode l2
try wireguard ip link add w0 type wireguard
try esp ip xfrm state add src 127.0.0.1 dst 127.0.0.2 proto esp spi 0x100 mode transport \\
    aead 'rfc4106(gcm(aes))' 0x000102030405060708090a0b0c0d0e0f10111213 128
command -v nft >/dev/null || exit 0
rules() { echo "$1" | nft -f -; }
try nftables rules 'table inet t1 { map m { type inet_proto . inet_service : ipv4_addr . inet_service; }
    chain c { type nat hook output priority -100; fib daddr type local dnat ip to meta l4proto . th dport map @m; }
    chain p { type nat hook postrouting priority 100; masquerade; }; }'
try numgen rules 'table inet t2 { chain c { type nat hook output priority -100;
    ip daddr 192.0.2.1 dnat ip to numgen random mod 2 map { 0 : 192.0.2.2, 1 : 192.0.2.3 }; }; }'
try conntrack rules 'table inet t3 { chain c { type filter hook forward priority 0; ct state established accept; }
    chain r { type filter hook prerouting priority -300; udp dport 4789 notrack; }; }'
"""

_OVERLAY = """
set -e
cd "$1"; mkdir lower upper work merged lower/folder; echo below > lower/file
mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged
rm merged/file || { echo 'files below cannot be hidden (whiteouts)'; exit 1; }
rm -r merged/folder && mkdir merged/folder || { echo 'folders cannot be replaced (trusted.* attributes)'; exit 1; }
test -c upper/file || { echo 'whiteouts are not kept'; exit 1; }
"""


def network() -> Mapping[str, str]:
    """Links and rules, in a network namespace of their own. Empty where that cannot be made."""
    if not _installed("unshare", "ip"):
        return {}
    code, output = _run(["unshare", "--net", "sh", "-c", _LINKS])
    if code:
        return {}
    lines = (line.partition("\t") for line in output.splitlines() if "\t" in line)
    return {name: said.strip() for name, _, said in lines}


def overlay(folder: Path) -> str | None:
    """Whether an overlay with its upper layer in `folder` does what images need; None where it cannot be tried."""
    if not _installed("unshare", "mount"):
        return None
    try:
        with tempfile.TemporaryDirectory(prefix=".shoal-doctor-", dir=folder) as made:
            code, output = _run(["unshare", "--mount", "sh", "-c", _OVERLAY, "sh", made])
    except OSError:
        return None
    return (output.strip().splitlines() or [f"exit code {code}"])[-1] if code else ""


def _installed(*programs: str) -> bool:
    return all(shutil.which(name) is not None for name in programs)


def _run(command: list[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout
