"""Bodies as the docker command 28.2 sends them, read and shown again."""

import json

import msgspec
import pytest

from shoal.api.errors import InvalidArgument, NotImplementedHere, ShoalError
from shoal.api.objects import Service
from shoal.api.specs import ClusterSpec, RestartPolicy
from shoal.api.wire import convert
from shoal.manager.controlapi.wire_network import NetworkWire, network_spec
from shoal.manager.controlapi.wire_service import ServiceSpecWire, service_json, service_spec, service_spec_wire
from shoal.manager.controlapi.wire_swarm import SwarmSpecWire, cluster_spec

V = (1, 50)

PLAIN = json.loads("""
{"Name":"web","Labels":{},"TaskTemplate":{"ContainerSpec":{"Image":"busybox:latest","Args":["top"],"Init":false,
"DNSConfig":{}},"Resources":{"Limits":{},"Reservations":{}},"Placement":{},"ForceUpdate":0},
"Mode":{"Replicated":{}},"EndpointSpec":{"Mode":"vip"}}""")

FULL = json.loads("""
{"Name":"web","Labels":{"x":"y"},"TaskTemplate":{"ContainerSpec":{"Image":"busybox:latest","Labels":{"c":"d"},
"Command":["/e"],"Args":["top","-b"],"Hostname":"h","Env":["A=1"],"Dir":"/w","User":"u","Groups":["g"],"Init":true,
"StopSignal":"TERM","TTY":true,"ReadOnly":true,"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true},
{"Type":"volume","Source":"v","Target":"/c"},{"Type":"tmpfs","Target":"/t","TmpfsOptions":{"SizeBytes":100}}],
"StopGracePeriod":3000000000,"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1000000000,"Timeout":1000000000,
"StartPeriod":1000000000,"Retries":2},"Hosts":["1.2.3.4 h"],"DNSConfig":{"Nameservers":["1.1.1.1"],"Search":["a"],
"Options":["b"]},"Isolation":"default","Sysctls":{"net.a":"b"},"CapabilityAdd":["CAP_NET_ADMIN"],
"CapabilityDrop":["CAP_CHOWN"]},"Resources":{"Limits":{"NanoCPUs":1000000000,"MemoryBytes":134217728,"Pids":10},
"Reservations":{"NanoCPUs":500000000,"MemoryBytes":67108864,"GenericResources":[{"DiscreteResourceSpec":
{"Kind":"gpu","Value":1}}]}},"RestartPolicy":{"Condition":"on-failure","Delay":1000000000,"MaxAttempts":3,
"Window":10000000000},"Placement":{"Constraints":["node.role==worker"],"Preferences":[{"Spread":
{"SpreadDescriptor":"node.labels.zone"}}],"MaxReplicas":2},"Networks":[{"Target":"netid"},{"Target":"other",
"Aliases":["x"],"DriverOpts":{"a":"b"}}],"LogDriver":{"Name":"json-file","Options":{"a":"b"}},"ForceUpdate":0},
"Mode":{"Replicated":{"Replicas":3}},"UpdateConfig":{"Parallelism":2,"Delay":1000000000,"FailureAction":"rollback",
"Monitor":5000000000,"MaxFailureRatio":0.1,"Order":"start-first"},"RollbackConfig":{"Parallelism":0,
"FailureAction":"pause","Monitor":5000000000,"MaxFailureRatio":0,"Order":"stop-first"},"EndpointSpec":{"Mode":"vip",
"Ports":[{"Protocol":"tcp","TargetPort":90,"PublishedPort":91,"PublishMode":"host"}]}}""")


def read(body, version=V):
    unknown = []
    spec = service_spec(convert(body, ServiceSpecWire, unknown), version)
    assert unknown == []
    return spec


def shown(spec, **options):
    return json.loads(msgspec.json.encode(service_spec_wire(spec, **options)))


def changed(path, value, base=PLAIN):
    """`base` with one value set; a path of keys."""
    body = json.loads(json.dumps(base))
    at = body
    *parents, last = path.split(".")
    for key in parents:
        at = at.setdefault(key, {})
    at[last] = value
    return body


@pytest.mark.parametrize("body", [PLAIN, FULL], ids=["plain", "full"])
def test_what_is_shown_can_be_sent_back_and_changes_nothing(body):
    spec = read(body)
    assert read(shown(spec)) == spec
    assert read(shown(spec, insert_defaults=True)).task == spec.task
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=type(spec)) == spec


def test_a_full_specification_comes_back_as_it_was_sent():
    back = shown(read(FULL))
    assert back["TaskTemplate"].pop("Runtime") == "container"
    assert back["RollbackConfig"].pop("Delay") == 0
    assert back == FULL


def test_a_window_of_none_is_not_no_window():
    policy = {"Condition": "any", "Delay": 5, "MaxAttempts": 5, "Window": 0}
    assert shown(read(changed("TaskTemplate.RestartPolicy", policy)))["TaskTemplate"]["RestartPolicy"] == policy


def test_defaults_are_docker_s():
    spec = read(PLAIN)
    assert (spec.mode.kind, spec.mode.replicas, spec.endpoint.mode) == ("replicated", 1, "vip")
    assert spec.task.restart == RestartPolicy() and spec.update is None
    assert spec.task.container.stop_grace_period_ns == 10 * 10**9
    defaults = shown(spec, insert_defaults=True)
    assert defaults["UpdateConfig"]["FailureAction"] == "pause" and defaults["UpdateConfig"]["Parallelism"] == 1
    assert defaults["TaskTemplate"]["RestartPolicy"] == {"Condition": "any", "Delay": 5 * 10**9, "MaxAttempts": 0}
    assert "UpdateConfig" not in shown(spec) and "RestartPolicy" not in shown(spec)["TaskTemplate"]


def test_keys_match_without_case_and_null_is_absent():
    body = {"NAME": "web", "labels": None, "tasktemplate": {"containerspec": {"IMAGE": "b", "Env": None},
            "Resources": None}, "mode": {"global": {}}, "UpdateConfig": None}
    spec = read(body)
    assert (spec.name, spec.task.container.image, spec.mode.kind) == ("web", "b", "global")


@pytest.mark.parametrize("where", ["Networks", "TaskTemplate.Networks"])
def test_networks_may_stand_in_either_place(where):
    assert [each.target for each in read(changed(where, [{"Target": "n"}])).task.networks] == ["n"]


def test_fields_that_came_later_are_not_read_from_older_clients():
    old, new = read(FULL, (1, 40)).task, read(FULL).task
    assert (old.resources.limits.pids, new.resources.limits.pids) == (0, 10)
    assert (old.container.capability_add, new.container.capability_add) == ((), ("CAP_NET_ADMIN",))


C = "TaskTemplate.ContainerSpec."


@pytest.mark.parametrize(
    ("path", "value", "status", "says"),
    [
        ("Name", "", 400, "name must be provided"),
        ("Name", "a b", 400, "DNS name component"),
        ("Name", "a" * 64, 400, "DNS name component"),
        ("Name", 7, 400, "invalid JSON"),
        ("TaskTemplate", None, 400, "missing runtime"),
        ("TaskTemplate.Runtime", "plugin", 501, "Runtime"),
        ("TaskTemplate.PluginSpec", {"Name": "p"}, 501, "PluginSpec"),
        ("TaskTemplate.NetworkAttachmentSpec", {"ContainerID": "c"}, 400, "made by the swarm"),
        (C + "Image", "", 400, "image reference must be provided"),
        (C + "Image", "a b", 400, "not a valid repository/tag"),
        (C + "Args", ["x" * (1 << 20), "y"], 400, "bytes"),
        (C + "Args", "top", 400, "invalid JSON"),
        (C + "Args", ["a\0b"], 400, "NUL"),
        (C + "Env", ["=x"], 400, "no name"),
        (C + "StopGracePeriod", -1, 400, "negative"),
        (C + "StopGracePeriod", 1e20, 400, ""),
        (C + "Healthcheck", {"Retries": 1 << 64}, 400, "out of range"),
        (C + "Mounts", [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 65}}], 400, "range"),
        (C + "Secrets", [{"SecretID": "s"}], 501, "Secrets"),
        (C + "Configs", [{"ConfigID": "s"}], 501, "Configs"),
        (C + "Privileges", {"NoNewPrivileges": True}, 501, "Privileges"),
        (C + "Ulimits", [{"Name": "nofile", "Soft": 1, "Hard": 2}], 501, "Ulimits"),
        (C + "Isolation", "hyperv", 400, "Isolation"),
        (C + "Mounts", [{"Type": "bind", "Source": "a", "Target": "/b"}], 400, "bind mount source"),
        (C + "Mounts", [{"Type": "bind", "Source": "/a", "Target": "b"}], 400, "mount target"),
        (C + "Mounts", [{"Type": "disk", "Target": "/b"}], 400, "MountType"),
        (C + "Mounts", [{"Type": "cluster", "Target": "/b"}], 501, "cluster"),
        (C + "Mounts", [{"Type": "tmpfs", "Target": "/b"}] * 2, 400, "duplicate mount point"),
        (C + "Mounts", [{"Type": "tmpfs", "Target": "/b", "BindOptions": {}}], 400, "BindOptions"),
        (C + "Healthcheck", {"Test": ["SOME"]}, 400, "Healthcheck.Test"),
        (C + "Healthcheck", {"Interval": 5}, 400, "1ms"),
        ("TaskTemplate.Resources", {"Limits": {"NanoCPUs": 1}}, 400, "Must be at least 0.001"),
        ("TaskTemplate.Resources", {"Limits": {"MemoryBytes": 5}}, 400, "4MiB"),
        ("TaskTemplate.Resources", {"Limits": {"Pids": -5}}, 400, "pids"),
        ("TaskTemplate.Resources", {"Limits": {"MemoryBytes": 1 << 70}}, 400, ""),
        ("TaskTemplate.Resources", {"Reservations": {"GenericResources": [{"NamedResourceSpec": {"Kind": "g"}}]}},
         501, "generic"),
        ("TaskTemplate.RestartPolicy", {"Condition": "sometimes"}, 400, "RestartCondition"),
        ("TaskTemplate.RestartPolicy", {"Delay": -1}, 400, "negative"),
        ("TaskTemplate.Placement", {"Constraints": ["node.role=worker"]}, 400, "constraint"),
        ("TaskTemplate.Placement", {"Constraints": ["node.colour==red"]}, 400, "colour"),
        ("TaskTemplate.Placement", {"MaxReplicas": -1}, 400, "negative"),
        ("TaskTemplate.Networks", [{"Aliases": ["x"]}], 400, "named"),
        ("Mode", {"Replicated": {"Replicas": -1}}, 400, "Replicas"),
        ("Mode", {"Replicated": {}, "Global": {}}, 400, "only one"),
        ("Mode", {"ReplicatedJob": {}}, 501, "job modes"),
        ("Mode", {"GlobalJob": {}}, 501, "job modes"),
        ("UpdateConfig", {"FailureAction": "cry"}, 400, "failure action"),
        ("UpdateConfig", {"Order": "any"}, 400, "order"),
        ("UpdateConfig", {"MaxFailureRatio": 2}, 400, "maxfailureratio"),
        ("UpdateConfig", {"Delay": -2}, 400, "negative"),
        ("RollbackConfig", {"FailureAction": "rollback"}, 400, "failure action"),
        ("EndpointSpec", {"Mode": "magic"}, 400, "resolution mode"),
        ("EndpointSpec", {"Ports": [{"TargetPort": 80, "PublishedPort": 80}]}, 501, "mode=host"),
        ("EndpointSpec", {"Mode": "dnsrr", "Ports": [{"TargetPort": 80}]}, 400, "dnsrr"),
        ("EndpointSpec", {"Ports": [{"PublishMode": "host"}]}, 400, "target port"),
        ("EndpointSpec", {"Ports": [{"TargetPort": 1, "PublishedPort": 70000, "PublishMode": "host"}]}, 400, "65535"),
        ("EndpointSpec", {"Ports": [{"TargetPort": 1, "PublishedPort": 8, "PublishMode": "host"}] * 2}, 400,
         "duplicate"),
        ("EndpointSpec", {"Ports": [{"TargetPort": 1, "Protocol": "icmp", "PublishMode": "host"}]}, 400, "protocol"),
    ],
)  # fmt: skip
def test_bad_services_are_refused_by_name(path, value, status, says):
    with pytest.raises(ShoalError) as refused:
        read(changed(path, value))
    assert refused.value.status == status and says in refused.value.message


def test_what_is_not_known_and_means_something_is_told():
    unknown = []
    convert(changed(C + "Gpus", {"Count": 1}), ServiceSpecWire, unknown)
    convert(changed("Future", {"A": [], "B": 0}), ServiceSpecWire, unknown)
    assert unknown == [C + "Gpus"]


def test_a_service_is_shown_with_its_versions():
    spec = read(FULL)
    service = Service(id="s1", spec=spec, previous_spec=read(PLAIN))
    text = json.loads(msgspec.json.encode(service_json(service)))
    assert text["ID"] == "s1" and text["PreviousSpec"]["Name"] == "web" and text["Endpoint"]["Spec"]["Mode"] == "vip"
    assert text["Version"] == {"Index": 0} and "ServiceStatus" not in text


# --- networks and the swarm ---

NETWORK = json.loads("""
{"Driver":"overlay","Scope":"","IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"10.9.0.0/24",
"IPRange":"10.9.0.128/25","Gateway":"10.9.0.1"}]},"Internal":true,"Attachable":true,"Ingress":false,
"ConfigOnly":false,"ConfigFrom":null,"Options":{"x":"y"},"Labels":{"a":"b"},"Name":"ov"}""")


def test_a_network_as_the_command_sends_it():
    spec = network_spec(convert(NETWORK, NetworkWire))
    assert (spec.name, spec.attachable, spec.internal, spec.labels) == ("ov", True, True, {"a": "b"})
    assert [(each.subnet, each.ip_range, each.gateway) for each in spec.pools] == [
        ("10.9.0.0/24", "10.9.0.128/25", "10.9.0.1")]


@pytest.mark.parametrize(
    ("path", "value", "status"),
    [
        ("Name", "", 400), ("Name", "a/b", 400), ("Name", "host", 400), ("Driver", "bridge", 400),
        ("Scope", "local", 400), ("Ingress", True, 501), ("ConfigOnly", True, 501),
        ("ConfigFrom", {"Network": "x"}, 501), ("EnableIPv6", True, 501), ("IPAM.Driver", "magic", 501),
        ("IPAM.Config", [{"Subnet": "10.1.0.0/24"}, {"Subnet": "10.2.0.0/24"}], 501),
        ("IPAM.Config", [{"Subnet": "10.1.0.0/24", "Gateway": "nowhere"}], 400),
        ("IPAM.Config", [{"Subnet": "10.1.0.0/24", "Gateway": "10.1.0.0"}], 400),
        ("IPAM.Config", "10.0.0.0/8", 400), ("Options", {"encrypted": ""}, 501),
        ("Options", {"com.docker.network.driver.mtu": "big"}, 400), ("Options", {"a": 1}, 400),
    ],
)  # fmt: skip
def test_bad_networks_are_refused(path, value, status):
    with pytest.raises(ShoalError) as refused:
        network_spec(convert(changed(path, value, NETWORK), NetworkWire))
    assert refused.value.status == status


SWARM = json.loads("""
{"Name":"default","Labels":null,"Orchestration":{"TaskHistoryRetentionLimit":3},"Raft":{"ElectionTick":0,
"HeartbeatTick":0},"Dispatcher":{"HeartbeatPeriod":5000000000},"CAConfig":{"NodeCertExpiry":7776000000000000},
"TaskDefaults":{},"EncryptionConfig":{"AutoLockManagers":false}}""")


def test_a_swarm_s_specification_as_the_command_sends_it():
    spec = cluster_spec(convert(SWARM, SwarmSpecWire), ClusterSpec(labels={"kept": "1"}, snapshot_interval=77))
    assert (spec.task_history_limit, spec.heartbeat_period_ns, spec.snapshot_interval) == (3, 5 * 10**9, 77)
    assert spec.labels == {"kept": "1"}


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        ("Name", "other", InvalidArgument), ("CAConfig.NodeCertExpiry", 5, InvalidArgument),
        ("CAConfig.ForceRotate", 1, NotImplementedHere), ("CAConfig.SigningCACert", "x", NotImplementedHere),
        ("EncryptionConfig.AutoLockManagers", True, NotImplementedHere),
        ("Dispatcher.HeartbeatPeriod", 5, InvalidArgument), ("Raft.ElectionTick", 1, InvalidArgument),
        ("Raft.SnapshotInterval", -4, InvalidArgument), ("Orchestration", 3, InvalidArgument),
        ("TaskDefaults", {"LogDriver": {"Name": "x"}}, NotImplementedHere),
    ],
)  # fmt: skip
def test_bad_swarm_specifications_are_refused(path, value, error):
    with pytest.raises(error):
        cluster_spec(convert(changed(path, value, SWARM), SwarmSpecWire), ClusterSpec())
