"""`shoal doctor`: from facts to findings, table by table; and from nft's JSON to chains."""

import json
from typing import Any

import msgspec
import pytest

from shoal.cli.doctor.checks import cgroups, examine, kernel, machine, network, programs
from shoal.cli.doctor.facts import (
    CgroupHost,
    Chain,
    Daemon,
    Disk,
    Facts,
    Inotify,
    Kernel,
    Link,
    Port,
    Process,
    Program,
    Trial,
    Vxlans,
)
from shoal.cli.doctor.findings import Finding, Level, ok, problem, summary, warning
from shoal.cli.doctor.firewall import chains

GIB = 1 << 30
ALL_CAPABILITIES = frozenset({**machine.NEEDED_CAPABILITIES, **machine.USEFUL_CAPABILITIES})
HEALTHY = Facts(
    kernel=Kernel(
        release="6.1.0-28-amd64", filesystems=frozenset({"overlay", "ext4"}),
        tried={feature.probe: "" for feature in kernel.FEATURES if feature.probe},
        namespaces=frozenset(kernel.NAMESPACES), seccomp_actions=frozenset({"errno", "allow"})),
    cgroups=CgroupHost(mode="v2", controllers=frozenset({"memory", "cpu", "pids", "cpuset", "io"}), init="systemd",
                       systemd=True, dbus=True),
    programs={"conmon": Program("/usr/bin/conmon", "2.1.6"), "catatonit": Program("/usr/bin/catatonit", "0.1.7"),
              "nsenter": Program("/usr/bin/nsenter"), "ip": Program("/usr/sbin/ip")},
    runtimes=(Trial("runc", "1.1.5", "systemd"),),
    process=Process(capabilities=ALL_CAPABILITIES, shoal="0.1.0"),
    clock_synchronised=True,
    links=(Link("eth0", 1500),),
    chains=(),
    sysctls={"net.ipv4.ip_forward": "1", "fs.inotify.max_user_instances": "128",
             "fs.inotify.max_user_watches": "8192"},  # as Debian has them
    inotify=Inotify(instances=20, watches=40),
    disk=Disk(path="/var/lib/shoal", filesystem="ext4", size_bytes=100 * GIB, free_bytes=50 * GIB, inodes=1000,
              free_inodes=900, overlay=""),
    daemon=Daemon("unix:///run/shoal/shoal.sock", socket=True, answer="0.1.0", cgroup_driver="systemd"),
)


def having(**parts: Any) -> Facts:
    """The healthy host, but for these: a dictionary changes fields of a part, anything else replaces it."""
    changed = {name: msgspec.structs.replace(getattr(HEALTHY, name), **part)
               if isinstance(part, dict) and name not in ("programs", "sysctls") else part
               for name, part in parts.items()}
    return msgspec.structs.replace(HEALTHY, **changed)


def levels(check: Any, facts: Facts) -> dict[str, str]:
    return {finding.check: finding.level.value for finding in check(facts)}


def test_a_healthy_host_has_nothing_to_do() -> None:
    findings = list(examine(HEALTHY))
    assert [finding for finding in findings if finding.level is not Level.OK] == []
    assert summary(findings) == "nothing is missing"
    assert len({finding.check for finding in findings}) == len(findings)


def test_what_is_not_ok_says_what_follows() -> None:
    """Facts of nothing: every check finds something, and says what it means."""
    bare = Facts(libnftables=False, seccomp_profile=False, process=Process(python=(3, 9, 0)), clock_synchronised=False)
    findings = [finding for finding in examine(bare) if finding.level is not Level.OK]
    assert len(findings) > 20
    assert all(finding.means for finding in findings)


@pytest.mark.parametrize(("release", "level"), [
    ("4.19.0-27-amd64", "problem"), ("5.2.1", "problem"), ("5.3.0", "warning"), ("6.1.0-9", "ok"), ("6.18.4", "ok"),
    ("", "warning"), ("experimental", "warning"),
])
def test_kernel_version(release: str, level: str) -> None:
    assert levels(kernel.version, having(kernel={"release": release})) == {"kernel": level}


VXLAN = next(feature for feature in kernel.FEATURES if feature.name == "vxlan")


@pytest.mark.parametrize(("known", "there", "how"), [
    pytest.param(Kernel(tried={"vxlan": ""}), True, "works", id="tried"),
    pytest.param(Kernel(tried={"vxlan": "Unknown device type."}, modules={"vxlan": "loadable"}), False,
                 "Unknown device type.", id="a try tells more than a list"),
    pytest.param(Kernel(modules={"vxlan": "loaded"}), True, "loaded", id="loaded"),
    pytest.param(Kernel(modules={"vxlan": "loadable"}, modules_known=True), True, "loadable", id="loadable"),
    pytest.param(Kernel(modules_known=True, config={"CONFIG_VXLAN": "m"}), False, "not in this kernel",
                 id="configured, but its module is not installed"),
    pytest.param(Kernel(config={"CONFIG_VXLAN": "y"}), True, "built in", id="built in"),
    pytest.param(Kernel(config={"CONFIG_BRIDGE": "y"}), False, "not in this kernel", id="not configured"),
    pytest.param(Kernel(), None, "unknown: neither a list of modules nor a configuration is there", id="nothing known"),
])
def test_evidence(known: Kernel, there: bool | None, how: str) -> None:
    assert kernel.evidence(VXLAN, known) == (there, how)


@pytest.mark.parametrize(("lacking", "level"), [
    ("bridge", "problem"), ("vxlan", "problem"), ("nftables", "problem"), ("numgen", "problem"),
    ("wireguard", "warning"), ("esp", "warning"), ("ipvlan", "warning"),
])
def test_features(lacking: str, level: str) -> None:
    found = [finding for finding in kernel.features(having(kernel={"tried": {**HEALTHY.kernel.tried, lacking: "no"}}))
             if finding.level is not Level.OK]
    feature = next(feature for feature in kernel.FEATURES if feature.probe == lacking)
    assert [(one.check, one.level.value, one.found, one.means) for one in found] == [
        (feature.name, level, "no", feature.lost)]


def test_isolation() -> None:
    facts = having(kernel={"namespaces": frozenset({"mnt", "net"}), "seccomp_actions": frozenset()})
    found = {finding.check: finding.found for finding in kernel.isolation(facts)}
    assert found == {"namespaces": "missing: pid, ipc, uts, cgroup", "seccomp": "no filters"}


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, {"cgroups": "ok", "cgroup controllers": "ok", "cgroup driver": "ok"}),
    ({"mode": ""}, {"cgroups": "problem"}),
    ({"writable": False}, {"cgroups": "problem", "cgroup controllers": "ok", "cgroup driver": "ok"}),
    ({"controllers": frozenset({"cpu", "pids", "cpuset", "io"})},
     {"cgroups": "ok", "cgroup controllers": "problem", "cgroup driver": "ok"}),
    ({"controllers": frozenset({"memory", "cpu", "pids"})},
     {"cgroups": "ok", "cgroup controllers": "warning", "cgroup driver": "ok"}),
    ({"mode": "hybrid", "systemd": False, "controllers": frozenset({"memory", "cpu", "pids", "cpuset", "blkio"})},
     {"cgroups": "ok", "cgroup controllers": "ok", "cgroup driver": "ok"}),
    ({"mode": "v1"}, {"cgroups": "ok", "cgroup controllers": "ok", "cgroup driver": "warning"}),
    ({"dbus": False}, {"cgroups": "ok", "cgroup controllers": "ok", "cgroup driver": "warning"}),
    ({"counts_swap": False},
     {"cgroups": "ok", "cgroup controllers": "ok", "swap limits": "warning", "cgroup driver": "ok"}),
])
def test_cgroups(changes: dict[str, Any], expected: dict[str, str]) -> None:
    facts = having(cgroups=changes)
    found = {name: level for check in cgroups.CHECKS for name, level in levels(check, facts).items()}
    assert found == expected


@pytest.mark.parametrize(("parts", "level", "words"), [
    pytest.param({}, "ok", "runc 1.1.5 ran a container, cgroup driver systemd", id="works"),
    pytest.param({"runtimes": (Trial("runc", "1.1.5", "cgroupfs"), Trial("crun", "1.8.1", "cgroupfs", "hybrid"))},
                 "ok", "crun 1.8.1: hybrid", id="one of two is enough"),
    pytest.param({"runtimes": (Trial("crun", "1.8.1", "cgroupfs", "hybrid"),)}, "problem", "crun 1.8.1: hybrid",
                 id="the only one refuses"),
    pytest.param({"runtimes": ()}, "problem", "neither runc nor crun", id="none"),
])
def test_runtime(parts: dict[str, Any], level: str, words: str) -> None:
    (found,) = programs.runtime(having(**parts))
    assert (found.level, words in found.found) == (level, True)


def test_another_runtime_is_proposed() -> None:
    (found,) = programs.runtime(having(runtimes=(Trial("crun", "1.8.1", "cgroupfs", "hybrid"),)))
    assert "install runc" in found.remedy


@pytest.mark.parametrize(("conmon", "level"), [
    (Program("/usr/bin/conmon", "2.1.6"), "ok"), (Program("/usr/bin/conmon", "2.0.25"), "warning"),
    (Program("/usr/bin/conmon", ""), "warning"), (Program(), "problem"),
])
def test_conmon(conmon: Program, level: str) -> None:
    facts = having(programs={**HEALTHY.programs, "conmon": conmon})
    assert levels(programs.needed, facts) == {"conmon": level, "catatonit": "ok", "nsenter": "ok", "ip": "ok"}


def test_libraries() -> None:
    facts = having(libnftables=False, seccomp_profile=False)
    assert levels(programs.libraries, facts) == {"libnftables": "problem", "seccomp profile": "problem"}


@pytest.mark.parametrize(("port", "level"), [
    (Port(2377, "tcp", "/usr/bin/shoald manager (12)", ours=True), "ok"),
    (Port(2377, "tcp", "/usr/bin/dockerd (7)"), "problem"),
    (Port(7946, "tcp", ""), "problem"),
    (Port(4789, "udp", ""), "warning"),
])
def test_ports(port: Port, level: str) -> None:
    found = levels(network.ports, having(ports=(port,)))
    assert found.pop(f"port {port.number}/{port.protocol}") == level
    assert set(found.values()) == {"ok"}


@pytest.mark.parametrize(("vxlans", "level", "words"), [
    pytest.param(Vxlans(ours=True), "ok", "Shoal's overlay networks", id="ours"),
    pytest.param(Vxlans(ours=True, others={"flannel.1": 8472}), "ok", "Shoal's overlay networks", id="another port"),
    pytest.param(Vxlans(ours=True, others={"vxlan7": 4789}), "warning", "vxlan7", id="ours and another's"),
    pytest.param(Vxlans(others={"vxlan7": 4789}), "warning", "vxlan7", id="another's"),
    pytest.param(Vxlans(), "warning", "not Shoal's", id="in a namespace that is not known"),
])
def test_who_the_kernel_holds_the_port_for(vxlans: Vxlans, level: str, words: str) -> None:
    *_, found = network.ports(having(ports=(Port(4789, "udp", ""),), vxlans=vxlans))
    assert (found.level, words in found.found) == (level, True)


@pytest.mark.parametrize(("mtus", "level", "words"), [
    ([1500], "ok", "overlay networks get 1450"), ([9000, 9000], "ok", "8950"), ([1500, 9000], "warning", "eth1 9000"),
    ([1300], "warning", "eth0 1300"), ([1330], "ok", "1280"), ([], "warning", "no network interface"),
])
def test_mtu(mtus: list[int], level: str, words: str) -> None:
    (found,) = network.mtu(having(links=tuple(Link(f"eth{i}", mtu) for i, mtu in enumerate(mtus))))
    assert (found.level, words in found.found) == (level, True)


FORWARD = Chain(family="inet", table="filter", name="forward", hook="forward", policy="drop")
INPUT = Chain(family="inet", table="filter", name="input", hook="input", policy="drop")


@pytest.mark.parametrize(("chain", "level"), [
    (FORWARD, "warning"),
    (msgspec.structs.replace(FORWARD, policy="accept"), "ok"),
    (msgspec.structs.replace(FORWARD, policy="accept", drops_all=True), "warning"),
    (msgspec.structs.replace(FORWARD, opens=frozenset({"*"})), "ok"),
])
def test_forwarding(chain: Chain, level: str) -> None:
    assert levels(network.forwarding, having(chains=(chain,))) == {"firewall, forward": level}


@pytest.mark.parametrize(("opens", "closed"), [
    (set(), "2377/tcp, 2378/tcp, 7946/tcp, 4789/udp"),
    ({"tcp/2377", "tcp/2378", "tcp/7946"}, "4789/udp"),
    ({"tcp/*"}, "4789/udp"),
    ({"tcp/2377", "tcp/2378", "tcp/7946", "udp/4789"}, ""),
])
def test_entering(opens: set[str], closed: str) -> None:
    (found,) = network.entering(having(chains=(msgspec.structs.replace(INPUT, opens=frozenset(opens)),)))
    assert (found.level == "ok") is not bool(closed)
    assert closed in found.found


def test_a_firewall_that_lets_everything_in_is_not_spoken_of() -> None:
    assert list(network.entering(having(chains=(msgspec.structs.replace(INPUT, policy="accept"),)))) == []


@pytest.mark.parametrize(("sysctls", "chains_there", "expected"), [
    ({"net.ipv4.ip_forward": "0"}, (), {"ip_forward": "ok", "br_netfilter": "ok", "rp_filter": "ok"}),
    ({"net.bridge.bridge-nf-call-iptables": "1"}, (), {"ip_forward": "ok", "br_netfilter": "ok", "rp_filter": "ok"}),
    ({"net.bridge.bridge-nf-call-iptables": "1"}, (FORWARD,),
     {"ip_forward": "ok", "br_netfilter": "warning", "rp_filter": "ok"}),
    ({"net.ipv4.conf.all.rp_filter": "1"}, (), {"ip_forward": "ok", "br_netfilter": "ok", "rp_filter": "warning"}),
    ({"net.ipv4.conf.all.rp_filter": "2"}, (), {"ip_forward": "ok", "br_netfilter": "ok", "rp_filter": "ok"}),
])
def test_settings(sysctls: dict[str, str], chains_there: tuple[Chain, ...], expected: dict[str, str]) -> None:
    assert levels(network.settings, having(sysctls=sysctls, chains=chains_there)) == expected


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, ("ok", "ok")),
    ({"free_bytes": GIB // 2}, ("problem", "ok")),
    ({"free_bytes": 4 * GIB}, ("warning", "ok")),
    ({"free_bytes": 4 * GIB, "size_bytes": 10 * GIB}, ("ok", "ok")),  # a small disk, half empty
    ({"free_inodes": 10}, ("warning", "ok")),
    ({"inodes": 0, "free_inodes": 0}, ("ok", "ok")),  # btrfs
    ({"writable": False}, ("ok", "problem")),
    ({"overlay": "whiteouts are not kept"}, ("ok", "problem")),
    ({"overlay": None}, ("ok", "ok")),
    ({"filesystem": "tmpfs"}, ("ok", "warning")),
    ({"filesystem": "overlay"}, ("ok", "warning")),
    ({"filesystem": "nfs4", "overlay": None}, ("ok", "problem")),
])
def test_disk(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    found = levels(machine.disk, having(disk=changes))
    assert (found["disk"], found["data root"]) == expected


@pytest.mark.parametrize(("changes", "level"), [
    ({}, "ok"),
    ({"capabilities": ALL_CAPABILITIES - {"CAP_SYS_RESOURCE"}}, "warning"),
    ({"capabilities": ALL_CAPABILITIES - {"CAP_SYS_ADMIN"}}, "problem"),
])
def test_capabilities(changes: dict[str, Any], level: str) -> None:
    assert levels(machine.rights, having(process=changes)) == {"capabilities": level}


def test_who_is_not_root_is_told_so_once() -> None:
    facts = having(process={"root": False, "capabilities": frozenset()}, runtimes=(), chains=None,
                   programs={**HEALTHY.programs, "runc": Program("/usr/sbin/runc", "1.1.5")})
    assert levels(machine.rights, facts) == {"user": "warning"}
    assert levels(programs.runtime, facts) == {"OCI runtime": "warning"}


@pytest.mark.parametrize(("daemon", "level"), [
    (Daemon("unix:///x"), "ok"),
    (Daemon("unix:///x", socket=True, answer="0.1.0"), "ok"),
    (Daemon("unix:///x", socket=True, answer="0.0.9"), "warning"),
    (Daemon("unix:///x", socket=True), "warning"),
])
def test_daemon(daemon: Daemon, level: str) -> None:
    assert levels(machine.software, having(daemon=daemon))["shoald"] == level


@pytest.mark.parametrize(("parts", "expected"), [
    ({"process": {"open_files": 1024}}, {"open files": "warning", "inotify": "ok"}),
    ({"inotify": {"instances": 65}}, {"open files": "ok", "inotify": "warning"}),
    ({"inotify": {"watches": 4097}}, {"open files": "ok", "inotify": "warning"}),
    ({"sysctls": {}}, {"open files": "ok", "inotify": "ok"}),
])
def test_limits(parts: dict[str, Any], expected: dict[str, str]) -> None:
    assert levels(machine.limits, having(**parts)) == expected


def test_inotify_is_raised_where_it_is_scarce() -> None:
    *_, found = machine.limits(having(inotify={"instances": 100}))
    assert found.found == "100 of 128 instances in use, 40 of 8192 watches in use"
    assert "sysctl -w fs.inotify.max_user_instances=512;" in found.remedy


@pytest.mark.parametrize(("synchronised", "level"), [(True, "ok"), (False, "warning"), (None, "warning")])
def test_clock(synchronised: bool | None, level: str) -> None:
    assert levels(machine.clock, having(clock_synchronised=synchronised)) == {"clock": level}


def test_summary() -> None:
    one, two = problem("a", "x", "y"), warning("b", "x", "y")
    assert summary([one, two, two, ok("c", "x")]) == "1 problem, 2 warnings"
    assert msgspec.to_builtins(one) == {"check": "a", "level": "problem", "found": "x", "means": "y", "remedy": ""}
    assert Finding("c", Level.OK, "x") == ok("c", "x")


# --- nft's JSON ---

RULESET = json.loads("""{"nftables": [
{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
{"table": {"family": "inet", "name": "filter", "handle": 1}},
{"chain": {"family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
{"chain": {"family": "inet", "table": "filter", "name": "swarm", "handle": 2}},
{"chain": {"family": "inet", "table": "filter", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
{"chain": {"family": "inet", "table": "filter", "name": "output", "type": "filter", "hook": "output", "prio": 0, "policy": "accept"}},
{"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [
  {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [
  {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [
  {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [22, 7946]}}},
  {"accept": null}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [
  {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"range": [2377, 2378]}}},
  {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@hosts"}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "input", "expr": [{"jump": {"target": "swarm"}}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "swarm", "expr": [
  {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 4789}}, {"accept": null}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "swarm", "expr": [{"jump": {"target": "swarm"}}]}},
{"rule": {"family": "inet", "table": "filter", "chain": "forward", "expr": [
  {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "eth0"}}, {"accept": null}]}},
{"chain": {"family": "ip", "table": "fw", "name": "FORWARD", "type": "filter", "hook": "forward", "prio": 10, "policy": "accept"}},
{"rule": {"family": "ip", "table": "fw", "chain": "FORWARD", "expr": [
  {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}},
   "right": {"prefix": {"addr": "10.0.0.0", "len": 8}}}}, {"accept": null}]}},
{"rule": {"family": "ip", "table": "fw", "chain": "FORWARD", "expr": [{"reject": {"type": "icmp", "expr": "admin-prohibited"}}]}},
{"chain": {"family": "inet", "table": "shoal", "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "accept"}},
{"chain": {"family": "ip", "table": "nat", "name": "POSTROUTING", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}}
]}""")  # noqa: E501 (as nft writes it)


def test_chains() -> None:
    entering, forward, fw = chains(RULESET)
    assert (entering.name, entering.policy, entering.opens, entering.opaque) == (
        "input", "drop", {"tcp/22", "tcp/7946", "tcp/2377", "tcp/2378", "udp/4789"}, False)
    assert (forward.policy, forward.opens, forward.drops_all) == ("drop", frozenset(), False)
    assert (fw.family, fw.table, fw.policy, fw.drops_all) == ("ip", "fw", "accept", True)


def rule(*expressions: Any) -> Chain:
    """An input chain of this one rule."""
    (made,) = chains({"nftables": [
        {"chain": {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "input", "policy": "drop"}},
        {"rule": {"family": "inet", "table": "t", "chain": "c", "expr": list(expressions)}}]})
    return made


def match(protocol: str, field: str, right: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"payload": {"protocol": protocol, "field": field}}, "right": right}}


def dport(protocol: str, right: Any) -> dict[str, Any]:
    return match(protocol, "dport", right)


@pytest.mark.parametrize(("expressions", "opens", "opaque"), [
    pytest.param([{"accept": None}], {"*"}, False, id="everything"),
    pytest.param([dport("th", 53), {"accept": None}], {"tcp/53", "udp/53"}, False, id="both protocols"),
    pytest.param([dport("tcp", {"range": [1, 65535]}), {"accept": None}], {"tcp/*"}, False, id="a wide range"),
    pytest.param([dport("tcp", "@open"), {"accept": None}], set(), True, id="a named set"),
    pytest.param([dport("tcp", 22), {"drop": None}], set(), False, id="a drop"),
    pytest.param([{"xt": {"type": "match", "name": "multiport"}}, {"accept": None}], set(), True, id="of iptables"),
    pytest.param([match("icmp", "type", "echo-request"), {"accept": None}], set(), False, id="ping"),
    pytest.param([match("ip", "saddr", "192.0.2.1"), {"accept": None}], set(), True, id="some hosts, everything"),
])
def test_rules(expressions: list[Any], opens: set[str], opaque: bool) -> None:
    found = rule(*expressions)
    assert (set(found.opens), found.opaque) == (opens, opaque)


def test_no_ruleset_is_no_chains() -> None:
    assert chains({}) == ()
