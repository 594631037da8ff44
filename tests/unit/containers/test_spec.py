"""The OCI specification as tables: what was asked for, and what the runtime is told."""

import msgspec
import pytest

from shoal.api.errors import InvalidArgument
from shoal.engine.containers.nouns import Container, ContainerConfig, HostConfig, Limits
from shoal.engine.containers.oci import spec
from shoal.engine.containers.oci.host import has_apparmor
from shoal.engine.containers.oci.users import User


def _build(config=None, host=None, **launch):
    config = msgspec.structs.replace(config or ContainerConfig(), entrypoint=("prog",))
    container = Container(id="c" * 64, name="web", created_ns=1, image_id="sha256:0", config=config,
                          host=host or HostConfig())
    return spec.build(spec.Launch(container=container, root="/root", cgroup="/shoal/c", hostname="box", **launch))


def _namespaces(built):
    return {one["type"]: one.get("path", "") for one in built["linux"]["namespaces"]}


def _mounts(built):
    return {one["destination"]: one for one in built["mounts"]}


def test_defaults():
    built = _build(netns="/run/netns/c", capabilities=("CAP_CHOWN",))
    assert built["root"] == {"path": "/root", "readonly": False}
    assert built["hostname"] == "box"
    assert built["process"]["args"] == ["prog"]
    assert built["process"]["cwd"] == "/"
    assert built["process"]["capabilities"] == {
        key: ["CAP_CHOWN"] for key in ("bounding", "effective", "permitted")}
    assert _namespaces(built) == {"mount": "", "network": "/run/netns/c", "uts": "", "pid": "", "ipc": ""}
    assert set(_mounts(built)) == {"/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"}
    assert "size=67108864" in _mounts(built)["/dev/shm"]["options"]
    assert "ro" in _mounts(built)["/sys"]["options"]
    assert "/proc/kcore" in built["linux"]["maskedPaths"] and "/proc/sys" in built["linux"]["readonlyPaths"]
    assert built["linux"]["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}


@pytest.mark.parametrize(("host", "without"), [
    pytest.param(HostConfig(pid_mode="host"), "pid", id="pid"),
    pytest.param(HostConfig(ipc_mode="host"), "ipc", id="ipc"),
    pytest.param(HostConfig(uts_mode="host"), "uts", id="uts"),
])
def test_namespaces_of_the_host(host, without):
    assert without not in _namespaces(_build(host=host, netns="/n"))


def test_network_of_the_host_has_no_namespace():
    assert "network" not in _namespaces(_build(netns=""))


def test_joined_namespace():
    assert _namespaces(_build(joined={"pid": "/proc/7/ns/pid"}))["pid"] == "/proc/7/ns/pid"


@pytest.mark.parametrize(("version", "host", "private"), [
    (1, HostConfig(), False),
    (2, HostConfig(), True),
    (2, HostConfig(privileged=True), True),
    (2, HostConfig(cgroupns_mode="host"), False),
    (1, HostConfig(cgroupns_mode="private"), True),
])
def test_cgroup_namespace(version, host, private):
    assert ("cgroup" in _namespaces(_build(host=host, cgroup_version=version))) is private


def test_user_other_than_root_has_no_capabilities_in_effect():
    built = _build(user=User(1000, 1000, (1000, 20)), capabilities=("CAP_CHOWN",))
    assert built["process"]["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000, 20]}
    assert built["process"]["capabilities"] == {"bounding": ["CAP_CHOWN"]}


def test_privileged_sees_everything():
    built = _build(host=HostConfig(privileged=True))
    assert "maskedPaths" not in built["linux"]
    assert "rw" in _mounts(built)["/sys"]["options"]
    assert built["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


def test_a_users_mount_replaces_ours():
    own = {"destination": "/dev/shm", "type": "bind", "source": "/x", "options": ["rbind"]}
    built = _build(mounts=[own], files={"/etc/hosts": "/run/hosts"})
    assert _mounts(built)["/dev/shm"] == own
    assert _mounts(built)["/etc/hosts"]["source"] == "/run/hosts"
    assert len(built["mounts"]) == len(_mounts(built))


def test_shared_propagation_reaches_the_root():
    shared = {"destination": "/x", "type": "bind", "source": "/x", "options": ["rbind", "rshared"]}
    assert _build(mounts=[shared])["linux"]["rootfsPropagation"] == "shared"


def test_init_comes_first():
    built = _build(init_path="/usr/bin/catatonit")
    assert built["process"]["args"] == ["/sbin/docker-init", "--", "prog"]
    assert _mounts(built)["/sbin/docker-init"]["source"] == "/usr/bin/catatonit"


def test_devices_and_their_rules():
    device = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0,
              "access": "rw"}
    built = _build(host=HostConfig(device_cgroup_rules=("c 1:* r",)), devices=[device])
    assert built["linux"]["devices"] == [{key: value for key, value in device.items() if key != "access"}]
    assert built["linux"]["resources"]["devices"][1:] == [
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": True, "type": "c", "access": "r", "major": 1},
    ]


def test_net_sysctls_are_the_sandbox_s():
    host = HostConfig(sysctls={"net.ipv4.ip_forward": "1", "kernel.shmmax": "5"})
    assert _build(ContainerConfig(domainname="lan"), host)["linux"]["sysctl"] == {
        "kernel.shmmax": "5", "kernel.domainname": "lan"}


@pytest.mark.parametrize(("config", "expected"), [
    (ContainerConfig(), [f"PATH={spec.DEFAULT_PATH}", "HOSTNAME=box"]),
    (ContainerConfig(tty=True), [f"PATH={spec.DEFAULT_PATH}", "HOSTNAME=box", "TERM=xterm"]),
    (ContainerConfig(env=("PATH=/bin", "A=1", "A=2", "GONE")), ["PATH=/bin", "HOSTNAME=box", "A=2"]),
])
def test_environment(config, expected):
    assert spec.environment(config, "box") == expected


@pytest.mark.parametrize(("limits", "expected"), [
    (Limits(memory_bytes=100), {"memory": {"limit": 100, "swap": 200}}),
    (Limits(memory_bytes=100, memory_swap_bytes=-1), {"memory": {"limit": 100, "swap": -1}}),
    (Limits(memory_reservation_bytes=5), {"memory": {"reservation": 5}}),
    (Limits(nano_cpus=1_500_000_000), {"cpu": {"quota": 150_000, "period": 100_000}}),
    (Limits(cpu_shares=2, cpuset_cpus="0-1"), {"cpu": {"shares": 2, "cpus": "0-1"}}),
    (Limits(pids=-1), {"pids": {"limit": -1}}),
])
def test_limits(limits, expected):
    resources = _build(host=HostConfig(limits=limits), counts_swap=True)["linux"]["resources"]
    assert {key: value for key, value in resources.items() if key != "devices"} == expected


@pytest.mark.parametrize(("options", "expected"), [
    ((), spec.Security()),
    (("no-new-privileges",), spec.Security(no_new_privileges=True)),
    (("no-new-privileges:true",), spec.Security(no_new_privileges=True)),
    (("no-new-privileges=false",), spec.Security()),
    (("seccomp=unconfined",), spec.Security(seccomp=b"")),
    (("seccomp:unconfined", "apparmor=unconfined", "label=disable"),
     spec.Security(seccomp=b"", apparmor="unconfined")),
    (("apparmor:docker-web",), spec.Security(apparmor="docker-web")),
    (('seccomp={"defaultAction":"x=y"}',), spec.Security(seccomp=b'{"defaultAction":"x=y"}')),
    (("systempaths=unconfined",), spec.Security(unmasked=True)),
])
def test_security_options(options, expected):
    assert spec.security(options) == expected


@pytest.mark.parametrize("options", [("nosuch",), ("nosuch=1",)])
def test_unknown_security_option(options):
    with pytest.raises(InvalidArgument, match="invalid --security-opt"):
        spec.security(options)


@pytest.mark.parametrize("rule", ["", "c", "x 1:3 rwm", "c 1 rwm", "c 1:3 rwx", "c a:3 r"])
def test_malformed_device_rule(rule):
    with pytest.raises(InvalidArgument, match="invalid device cgroup rule"):
        spec.device_rule(rule)


def test_an_apparmor_profile_is_the_program_s():
    assert _build(apparmor="docker-web")["process"]["apparmorProfile"] == "docker-web"
    assert "apparmorProfile" not in _build()["process"]


@pytest.mark.parametrize(("content", "has"), [("Y\n", True), ("N\n", False), (None, False)])
def test_whether_the_kernel_has_apparmor(tmp_path, content, has):
    parameter = tmp_path / "enabled"
    if content is not None:
        parameter.write_text(content)
    assert has_apparmor(parameter) is has
