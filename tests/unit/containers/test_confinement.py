"""Capabilities, seccomp profiles and users, as tables."""

import json
from pathlib import Path

import pytest

from shoal.api.errors import InvalidArgument
from shoal.engine.containers.oci import capabilities, seccomp, users
from shoal.engine.containers.oci.capabilities import ALL, DEFAULT, effective
from shoal.engine.containers.oci.users import User, resolve

EVERYTHING = frozenset(ALL)


@pytest.mark.parametrize(("add", "drop", "privileged", "expected"), [
    pytest.param((), (), False, set(DEFAULT), id="default"),
    pytest.param(("net_admin",), ("cap_chown",), False, set(DEFAULT) - {"CAP_CHOWN"} | {"CAP_NET_ADMIN"}, id="both"),
    pytest.param((), ("ALL",), False, set(), id="none"),
    pytest.param(("SYS_TIME",), ("all",), False, {"CAP_SYS_TIME"}, id="one"),
    pytest.param(("ALL",), ("SYS_ADMIN",), False, set(ALL) - {"CAP_SYS_ADMIN"}, id="all but one"),
    pytest.param((), ("CHOWN",), True, set(ALL), id="privileged"),
])
def test_capabilities(add, drop, privileged, expected):
    assert set(effective(add, drop, privileged=privileged, held=EVERYTHING)) == expected


def test_none_is_given_that_the_daemon_lacks():
    held = EVERYTHING - {"CAP_SYS_RESOURCE", "CAP_CHOWN"}
    given = effective((), (), privileged=True, held=held)
    assert set(given) == held
    assert list(given) == sorted(given, key=ALL.index)


def test_unknown_capability():
    with pytest.raises(InvalidArgument, match='invalid CapAdd: unknown capability: "CAP_FLY"'):
        effective(("fly",), (), privileged=False, held=EVERYTHING)


def test_own_capabilities_are_read():
    assert capabilities.own() <= EVERYTHING


# --- seccomp ---

PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"name": "clone", "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
    ],
}


def _names(capabilities=(), machine="x86_64", kernel=(6, 1)):
    made = seccomp.compile_profile(json.dumps(PROFILE).encode(), capabilities, machine, kernel)
    return [(rule["names"], rule["action"]) for rule in made["syscalls"]]


def test_rules_that_hold():
    assert _names() == [(["read"], "SCMP_ACT_ALLOW"), (["bpf"], "SCMP_ACT_ERRNO"), (["arch_prctl"], "SCMP_ACT_ALLOW"),
                        (["ptrace"], "SCMP_ACT_ALLOW"), (["clone"], "SCMP_ACT_ALLOW")]
    assert (["bpf"], "SCMP_ACT_ALLOW") in _names({"CAP_SYS_ADMIN"})
    assert ["arch_prctl"] not in [names for names, _ in _names(machine="aarch64")]
    assert ["ptrace"] not in [names for names, _ in _names(kernel=(4, 4))]


def test_profile_as_the_runtime_takes_it():
    made = seccomp.compile_profile(json.dumps(PROFILE).encode(), (), "x86_64", (6, 1))
    assert made["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert made["defaultErrnoRet"] == 38
    assert made["syscalls"][1] == {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    assert made["syscalls"][-1]["args"] == [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]


@pytest.mark.parametrize("profile", [b"", b"{}", b"[]", b'{"defaultAction": 3}'])
def test_malformed_profile(profile):
    with pytest.raises(InvalidArgument, match="Decoding seccomp profile failed"):
        seccomp.compile_profile(profile, (), "x86_64", (6, 1))


@pytest.mark.skipif(not seccomp.DEFAULT_PROFILE.exists(), reason="golang-github-containers-common is not installed")
def test_the_default_profile_is_understood():
    raw = seccomp.compiled(None, frozenset(DEFAULT))
    made = json.loads(bytes(raw))
    allowed = {name for rule in made["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert {"read", "execve", "chroot"} <= allowed
    assert not {"kexec_load", "bpf", "init_module"} & allowed
    assert seccomp.UNUSED_ARCHITECTURE not in made["architectures"]


# --- users ---

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\nbroken\nodd:x:a:b::/:\n"
GROUP = "root:x:0:\nweb:x:1001:\nwheel:x:10:root,web\naudio:x:29:web\n"


@pytest.mark.parametrize(("spec", "extra", "expected"), [
    pytest.param("", (), User(0, 0, (0, 10)), id="nothing is root"),
    pytest.param("web", (), User(1000, 1001, (1001, 10, 29)), id="name"),
    pytest.param("1000", (), User(1000, 1001, (1001, 10, 29)), id="number that has a name"),
    pytest.param("4242", (), User(4242, 0, (0,)), id="number that has none"),
    pytest.param("web:audio", (), User(1000, 29, (29,)), id="group"),
    pytest.param("7:8", (), User(7, 8, (8,)), id="numbers"),
    pytest.param("web:web", ("audio", "77"), User(1000, 1001, (1001, 29, 77)), id="more groups"),
])
def test_users(spec, extra, expected):
    assert resolve(spec, extra, PASSWD, GROUP) == expected


@pytest.mark.parametrize(("spec", "extra", "message"), [
    ("nobody", (), "unable to find user nobody"),
    ("odd", (), "unable to find user odd"),
    ("web:nobody", (), "unable to find group nobody"),
    ("web", ("nobody",), "unable to find group nobody"),
    ("99999999999", (), "uids must be in range"),
])
def test_users_that_are_not_there(spec, extra, message):
    with pytest.raises(InvalidArgument, match=message):
        resolve(spec, extra, PASSWD, GROUP)


def test_passwd_is_read_inside_the_root(tmp_path: Path):
    """A link of the image to the host's file leads to the image's own."""
    (tmp_path / "outside").write_text("root:x:0:0:::\nhost:x:5:5:::\n")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").symlink_to(tmp_path / "outside")
    with pytest.raises(InvalidArgument, match="unable to find user host"):
        users.of_root(root, "host", ())
    (root / "etc/passwd").unlink()
    (root / "etc/passwd").mkdir()
    assert users.of_root(root, "5", ()) == User(5, 0, (0,))
