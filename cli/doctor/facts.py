"""What is known of a host, before anybody judges it. Pure.

Where something could not be looked at, the field is empty or None: a check says so
and does not guess.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

LOADED, BUILT_IN, AVAILABLE = "loaded", "built in", "loadable"


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """`tried`: probe → "" where it worked, else the error; a probe that could not be made is not in it."""

    release: str = ""
    tried: Mapping[str, str] = {}
    modules: Mapping[str, str] = {}  # name → loaded, built in, loadable
    modules_known: bool = False  # whether there is a list of this kernel's modules: what is not in it is not there
    config: Mapping[str, str] = {}  # CONFIG_X → y, m
    filesystems: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    seccomp_actions: frozenset[str] = frozenset()


class CgroupHost(msgspec.Struct, frozen=True, kw_only=True):
    mode: str = ""  # v1, hybrid, v2; "": none is mounted
    controllers: frozenset[str] = frozenset()
    writable: bool = True
    counts_swap: bool = True
    real_root: bool = True  # v2: False within a container
    init: str = ""  # the name of PID 1
    systemd: bool = False
    dbus: bool = False


class Program(msgspec.Struct, frozen=True):
    """`path` is "" where it is not installed."""

    path: str = ""
    version: str = ""


class Trial(msgspec.Struct, frozen=True):
    """An OCI runtime that was made to run a container. `refusal`: why it did not."""

    name: str
    version: str
    driver: str
    refusal: str = ""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """This process, as one that is started here."""

    root: bool = True
    capabilities: frozenset[str] = frozenset()
    open_files: int = 1 << 20  # RLIMIT_NOFILE, the hard one
    python: tuple[int, int, int] = (3, 11, 0)
    shoal: str = ""


class Port(msgspec.Struct, frozen=True):
    """One of Shoal's ports, taken. `holder`: who has it, "" where it is the kernel or that cannot be told."""

    number: int
    protocol: str
    holder: str
    ours: bool = False


class Vxlans(msgspec.Struct, frozen=True):
    """VXLAN devices. `ours`: whether Shoal has any; `others`: those of somebody else on this host → their port."""

    ours: bool = False
    others: Mapping[str, int] = {}


class Inotify(msgspec.Struct, frozen=True):
    """What root's processes use of it."""

    instances: int = 0
    watches: int = 0


class Link(msgspec.Struct, frozen=True):
    """A network interface that may carry traffic between hosts."""

    name: str
    mtu: int


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """A base chain of the firewall. `opens`: "tcp/2377" and the like that a rule of it accepts."""

    family: str
    table: str
    name: str
    hook: str
    policy: str = "accept"
    drops_all: bool = False  # its last word is a drop or reject without a condition
    opens: frozenset[str] = frozenset()
    opaque: bool = False  # rules that could not be understood


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """Where the data root is, or would be."""

    path: str = ""
    filesystem: str = ""
    size_bytes: int = 0
    free_bytes: int = 0
    inodes: int = 0  # 0: the file system makes them as needed
    free_inodes: int = 0
    writable: bool = True
    overlay: str | None = None  # "": an overlay on it does all that is needed; else what it does not


class Daemon(msgspec.Struct, frozen=True):
    """The shoald of this host. `socket`: whether there is one; `answer`: its version, or "" where it says nothing."""

    address: str = ""
    socket: bool = False
    answer: str = ""
    cgroup_driver: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    kernel: Kernel = Kernel()
    cgroups: CgroupHost = CgroupHost()
    programs: Mapping[str, Program] = {}
    runtimes: tuple[Trial, ...] = ()
    libnftables: bool = True
    seccomp_profile: bool = True
    process: Process = Process()
    ports: tuple[Port, ...] = ()
    vxlans: Vxlans = Vxlans()
    clock_synchronised: bool | None = None
    links: tuple[Link, ...] = ()
    chains: tuple[Chain, ...] | None = None
    legacy_iptables: tuple[str, ...] = ()  # tables of the old iptables that are in use
    sysctls: Mapping[str, str] = {}  # those that are there, by their names with dots
    inotify: Inotify = Inotify()
    disk: Disk = Disk()
    daemon: Daemon = Daemon()
