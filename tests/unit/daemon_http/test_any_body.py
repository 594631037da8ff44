"""Whatever JSON a client sends to create a container: it is stored whole, or refused.

Refused with a 4xx, or with 501 where this engine lacks what is asked for.
"""

import string

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.api.errors import ShoalError
from shoal.daemon.http.containers.config import container_config
from shoal.daemon.http.containers.host import host_config
from shoal.daemon.http.containers.inspect import Surroundings, inspect_json
from shoal.daemon.http.containers.wire import CreateWire, HostWire
from shoal.daemon.http.errors import errors
from shoal.daemon.http.wire import body, decode, reply
from shoal.engine.containers import merge, mounts
from shoal.engine.containers.nouns import Container
from shoal.engine.images.config import ImageConfig

AROUND = Surroundings(sandbox=None, network_of=lambda name: ("", name), runtime="runc", driver="overlay2",
                      cgroupns="host")


def stored(raw):
    """What a client would read back of the body. Raises ShoalError."""
    wire = decode(raw, CreateWire)
    config, host = merge.merge(container_config(wire), ImageConfig(cmd=("sh",))), host_config(wire)
    merge.check(config, host, cpus=2)
    for mount in host.mounts:
        mounts.check(mount)
    container = Container(id="1" * 64, name="x", created_ns=1, image_id="sha256:1", config=config, host=host)
    return msgspec.json.decode(msgspec.json.encode(inspect_json(container, AROUND)))


FIELDS = sorted(field.encode_name for kind in (CreateWire, HostWire) for field in msgspec.structs.fields(kind))
texts = st.text(max_size=8) | st.sampled_from(["", "/", "/a", "80/tcp", "a:/b", "host", "container:x", "-1", "no"])
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
junk = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(texts | st.sampled_from(FIELDS), inner, max_size=4), max_leaves=12)
bodies = st.fixed_dictionaries({"Image": st.just("busybox") | junk}, optional={
    **{name: junk for name in FIELDS if name not in ("Image", "HostConfig")},
    "HostConfig": junk | st.dictionaries(st.sampled_from(FIELDS), junk, max_size=4)})


@settings(max_examples=300, deadline=None)
@given(bodies | junk)
def test_any_json_is_stored_or_refused(value):
    try:
        raw = msgspec.json.encode(value)
    except (UnicodeEncodeError, msgspec.MsgspecError, OverflowError):
        return  # no client can write it as JSON
    try:
        shown = stored(raw)
    except ShoalError as error:
        assert 400 <= error.status < 500 or error.status == 501, error
        assert error.message
    else:
        assert shown["Config"]["Image"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_refused_or_stored(raw):
    try:
        stored(raw)
    except ShoalError as error:
        assert 400 <= error.status < 500


names = st.text(string.ascii_letters, min_size=2, max_size=6)
paths = names.map(lambda name: f"/{name}")
lists = st.lists(names, min_size=1, max_size=3, unique=True)
CONFIG = {
    "Hostname": names, "Domainname": names, "User": names, "Tty": st.booleans(), "OpenStdin": st.booleans(),
    "StdinOnce": st.booleans(), "AttachStdin": st.booleans(), "AttachStdout": st.booleans(),
    "AttachStderr": st.booleans(), "Env": st.lists(names.map(lambda name: f"{name}=1"), max_size=3), "Cmd": lists,
    "Entrypoint": lists, "WorkingDir": paths, "Labels": st.dictionaries(names, names), "StopSignal": st.just("SIGINT"),
    "StopTimeout": st.integers(0, 100), "Volumes": st.dictionaries(paths, st.just({}), min_size=1),
    "ExposedPorts": st.dictionaries(st.integers(1, 65535).map(lambda port: f"{port}/tcp"), st.just({}), min_size=1),
    "Healthcheck": st.fixed_dictionaries({"Test": lists.map(lambda words: ["CMD", *words])}, optional={
        "Interval": st.integers(10**6, 10**12), "Retries": st.integers(1, 9)}),
}
HOST = {
    "AutoRemove": st.booleans(), "Binds": st.lists(paths, min_size=1, max_size=3, unique=True).map(
        lambda found: [f"/src:{path}:ro" for path in found]),
    "Memory": st.integers(6 << 20, 1 << 40), "MemoryReservation": st.just(6 << 20), "NanoCpus": st.integers(1, 10**9),
    "CpuShares": st.integers(0, 1024), "CpusetCpus": st.just("0-1"), "PidsLimit": st.integers(1, 1000),
    "OomKillDisable": st.booleans(), "BlkioWeight": st.integers(10, 1000), "MemorySwappiness": st.integers(0, 100),
    "BlkioWeightDevice": paths.map(lambda path: [{"Path": path, "Weight": 100}]),
    **{f"BlkioDevice{kind}": paths.map(lambda path: [{"Path": path, "Rate": 1 << 20}])
       for kind in ("ReadBps", "WriteBps", "ReadIOps", "WriteIOps")},
    "Privileged": st.booleans(), "ReadonlyRootfs": st.booleans(), "PublishAllPorts": st.booleans(),
    "CapAdd": st.just(["NET_ADMIN"]), "CapDrop": st.just(["ALL"]),
    "Dns": lists, "DnsSearch": lists, "DnsOptions": lists, "GroupAdd": lists,
    "SecurityOpt": st.sampled_from([["no-new-privileges"], ["seccomp=unconfined"]]), "VolumesFrom": lists,
    "ExtraHosts": lists.map(lambda found: [f"{name}:10.0.0.1" for name in found]),
    "Sysctls": st.dictionaries(names, names, min_size=1), "ShmSize": st.integers(1, 1 << 30), "Init": st.booleans(),
    "OomScoreAdj": st.integers(-1000, 1000), "IpcMode": st.sampled_from(["none", "shareable", "host", "container:x"]),
    "PidMode": st.sampled_from(["host", "container:x"]), "UTSMode": st.just("host"), "CgroupParent": paths,
    "Tmpfs": st.dictionaries(st.sampled_from(["/run", "/tmp"]), st.sampled_from(["", "size=1m"]), min_size=1),
    "Ulimits": st.just([{"Name": "nofile", "Soft": 10, "Hard": 20}]), "Runtime": names,
    "Devices": paths.map(lambda path: [{"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rw"}]),
    "PortBindings": st.just({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
                             "53/udp": [{"HostIp": "", "HostPort": ""}]}),
    "LogConfig": st.just({"Type": "json-file", "Config": {"max-size": "1m"}}),
    "Mounts": st.just([{"Type": "volume", "Source": "data", "Target": "/data", "VolumeOptions": {"NoCopy": True}},
                       {"Type": "bind", "Source": "/etc", "Target": "/e", "ReadOnly": True,
                        "BindOptions": {"Propagation": "rslave"}},
                       {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448}}]),
}


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({}, optional=CONFIG), st.fixed_dictionaries({}, optional=HOST),
       st.sampled_from(["no", "always", "unless-stopped"]))
def test_what_is_accepted_is_shown_as_it_was_sent(config, host, restart):
    if not host.get("AutoRemove"):
        host["RestartPolicy"] = {"Name": restart, "MaximumRetryCount": 0}
    if host.get("Privileged"):
        host.pop("MaskedPaths", None)
    shown = stored(msgspec.json.encode({"Image": "busybox", **config, "HostConfig": host}))
    assert {key: shown["Config"][key] for key in config} == config
    assert {key: shown["HostConfig"][key] for key in host} == host


def test_keys_match_without_regard_to_case_and_null_is_absent():
    shown = stored(b'{"image": "busybox", "env": null, "hostconfig": {"AUTOREMOVE": true, "binds": null}}')
    assert shown["HostConfig"]["AutoRemove"] is True


REFUSED = {
    "no image": {"Cmd": ["sh"]},
    "wrong type": {"Image": 5},
    "relative working directory": {"Image": "b", "WorkingDir": "tmp"},
    "nameless variable": {"Image": "b", "Env": ["=x"]},
    "signal": {"Image": "b", "StopSignal": "SIGFOO"},
    "health check": {"Image": "b", "Healthcheck": {"Test": ["RUN", "x"]}},
    "too often": {"Image": "b", "Healthcheck": {"Interval": 1}},
    "little memory": {"Image": "b", "HostConfig": {"Memory": 1000}},
    "swap alone": {"Image": "b", "HostConfig": {"MemorySwap": 10 << 20}},
    "less swap than memory": {"Image": "b", "HostConfig": {"Memory": 20 << 20, "MemorySwap": 10 << 20}},
    "many CPUs": {"Image": "b", "HostConfig": {"NanoCpus": 10**15}},
    "two ways of CPUs": {"Image": "b", "HostConfig": {"NanoCpus": 10**9, "CpuQuota": 50000}},
    "restart policy": {"Image": "b", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}},
    "retries of always": {"Image": "b", "HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}},
    "removed and restarted": {"Image": "b", "HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}},
    "options of another mount": {"Image": "b", "HostConfig": {"Mounts": [
        {"Type": "bind", "Source": "/a", "Target": "/b", "TmpfsOptions": {"Mode": 1}}]}},
    "mount over everything": {"Image": "b", "HostConfig": {"Tmpfs": {"/": ""}}},
    "log driver": {"Image": "b", "HostConfig": {"LogConfig": {"Type": "gelf"}}},
    "mount type": {"Image": "b", "HostConfig": {"Mounts": [{"Type": "magic", "Target": "/x"}]}},
    "hostname of another": {"Image": "b", "Hostname": "h", "HostConfig": {"NetworkMode": "container:x"}},
    "ulimit": {"Image": "b", "HostConfig": {"Ulimits": [{"Name": "patience", "Soft": 1, "Hard": 1}]}},
    "port": {"Image": "b", "ExposedPorts": {"http": {}}},
    "oom score": {"Image": "b", "HostConfig": {"OomScoreAdj": 5000}},
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
def test_refused(value):
    with pytest.raises(ShoalError) as refusal:
        stored(msgspec.json.encode(value))
    assert refusal.value.status == 400


@pytest.mark.parametrize(("raw", "kind", "status"), [
    (b"", "application/json", 400), (b"[]", "application/json", 400), (b"{", "application/json", 400),
    (b"null", "application/json", 400), (b'{"Image": "x"}', "text/plain", 400),
    (b'{"Image": "a\\u0000b"}', "application/json", 400), (b'{"Image": "a\\\\u0000b"}', "application/json", 200),
    (b"[" * 100_000, "application/json", 400), (b'{"Image": "\\ud800"}', "application/json", 400),
    (b'{"Image": "x"}', "application/json", 200),
])
async def test_bodies_over_http(raw, kind, status):
    async def handler(request):
        return reply({"Image": (await body(request, CreateWire)).image})

    app = web.Application(middlewares=[errors])
    app.router.add_post("/", handler)
    async with TestClient(TestServer(app)) as client:
        answer = await client.post("/", data=raw, headers={"Content-Type": kind})
        assert answer.status == status, await answer.text()
        assert status == 200 or (await answer.json())["message"]
