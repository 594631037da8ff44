"""Small pure parts: times, detach keys, mounts, ports, endpoints, events' filters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.api.errors import InvalidArgument
from shoal.daemon.http.containers.archives import go_mode
from shoal.daemon.http.containers.detachkeys import DetachKeys, parse
from shoal.daemon.http.containers.mounts import bind
from shoal.daemon.http.containers.networking import checked_link, checked_port, endpoints, published
from shoal.daemon.http.containers.wire import BindingWire, NetworkingWire
from shoal.daemon.http.events import matches
from shoal.daemon.http.imagewire import provides
from shoal.daemon.http.times import NEVER, moment_ns, rfc3339, stamp_ns
from shoal.engine.containers.nouns import Event
from shoal.engine.images.config import Image

S = 1_000_000_000


@pytest.mark.parametrize(("moment", "text"), [
    (0, NEVER), (S, "1970-01-01T00:00:01Z"), (S + 1, "1970-01-01T00:00:01.000000001Z"),
    (S + 500_000_000, "1970-01-01T00:00:01.5Z"),
])
def test_times_are_written_as_go_writes_them(moment, text):
    assert rfc3339(moment) == text


@given(st.integers(min_value=1, max_value=253_402_300_799 * S))
def test_times_come_back(moment):
    assert stamp_ns(rfc3339(moment)) == moment


@pytest.mark.parametrize(("text", "moment"), [
    ("", 0), ("10", 10 * S), ("10.5", 10_500_000_000), ("1970-01-01T00:00:10Z", 10 * S), ("1970-01-02", 86400 * S),
    ("1970-01-01T01:00:10+01:00", 10 * S), ("1m30s", 910 * S), ("10ms", 1000 * S - 10_000_000),
])
def test_moments(text, moment):
    assert moment_ns(text, "since", now_ns=1000 * S) == moment


@pytest.mark.parametrize("text", ["yesterday", "1x", "nan", "1e5", "10.", "1970-13-01"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(InvalidArgument):
        moment_ns(text, "since", now_ns=0)


@pytest.mark.parametrize(("text", "codes"), [
    ("", b"\x10\x11"), ("ctrl-a", b"\x01"), ("a,ctrl-@", b"a\x00"), ("ctrl-[,ctrl-_", b"\x1b\x1f"),
])
def test_detach_keys(text, codes):
    assert parse(text) == codes


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "abc", ",", "ä"])
def test_keys_that_there_are_not(text):
    with pytest.raises(InvalidArgument):
        parse(text)


@pytest.mark.parametrize(("chunks", "passed", "found"), [
    ([b"hello"], b"hello", False),
    ([b"a\x10\x11b"], b"a", True),
    ([b"a\x10", b"\x11"], b"a", True),
    ([b"\x10", b"x"], b"\x10x", False),
    ([b"\x10\x10\x11"], b"\x10", True),
])
def test_the_sequence_is_found_across_chunks(chunks, passed, found):
    keys = DetachKeys(b"\x10\x11")
    assert b"".join(keys.pass_on(chunk) for chunk in chunks) == passed
    assert keys.found == found


@pytest.mark.parametrize(("text", "kind", "source", "target", "read_only"), [
    ("/a:/b", "bind", "/a", "/b", False),
    ("/a/../c:/b/:ro", "bind", "/c", "/b", True),
    ("data:/b:rw,nocopy", "volume", "data", "/b", False),
    ("/b", "volume", "", "/b", False),
    ("/a:/b:ro,rslave,z", "bind", "/a", "/b", True),
])
def test_binds(text, kind, source, target, read_only):
    found = bind(text)
    assert (found.type, found.source, found.target, found.read_only) == (kind, source, target, read_only)


@pytest.mark.parametrize("text", ["", ":", "a:", ":/b", "/a:b", "/a:/b:xx", "/a:/b:ro:rw", "/a:/b:ro,rw",
                                  "a/b:/c", "data:/b:rslave", "/a:/b:nocopy"])
def test_binds_that_make_no_sense(text):
    with pytest.raises(InvalidArgument):
        bind(text)


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "80/http", "80/", "-1", "80/tcp/udp", "٣"])
def test_ports_that_there_are_not(text):
    with pytest.raises(InvalidArgument):
        checked_port(text)


def test_published_ports():
    ports = published({"80": (BindingWire(host_port="8080"), BindingWire(host_ip="127.0.0.1")), "53/UDP": ()})
    assert [(each.container_port, each.protocol, each.host_ip, each.host_port) for each in ports] == [
        (80, "tcp", "", 8080), (80, "tcp", "127.0.0.1", 0)]


@pytest.mark.parametrize(("binding", "error"), [
    (BindingWire(host_port="x"), InvalidArgument), (BindingWire(host_port="70000"), InvalidArgument),
    (BindingWire(host_ip="here"), InvalidArgument), (BindingWire(host_port="2-1"), InvalidArgument),
    (BindingWire(host_port="1-70000"), InvalidArgument), (BindingWire(host_port="1-"), InvalidArgument),
])
def test_bindings_that_are_refused(binding, error):
    with pytest.raises(error):
        published({"80/tcp": (binding,)})


@pytest.mark.parametrize(("text", "first", "last"), [
    ("", 0, 0), ("80", 80, 0), ("8000-8010", 8000, 8010), ("80-80", 80, 0),
])
def test_ranges_of_host_ports(text, first, last):
    (port,) = published({"80/tcp": (BindingWire(host_port=text),)})
    assert (port.host_port, port.last_host_port) == (first, last)


@pytest.mark.parametrize(("text", "link"), [
    ("db:store", ("db", "store")), ("db", ("db", "db")), ("/db:/web/store", ("db", "store")),
])
def test_links(text, link):
    assert checked_link(text) == link


@pytest.mark.parametrize("text", ["", ":", ":a", "a:", "a:b:c"])
def test_links_that_are_refused(text):
    with pytest.raises(InvalidArgument):
        checked_link(text)


def test_what_an_endpoint_asks_for_is_kept():
    (end,) = endpoints("app", NetworkingWire(endpoints_config={"app": {
        "IPAMConfig": {"IPv4Address": "10.0.0.9", "IPv6Address": "FD00::9", "LinkLocalIPs": ["169.254.8.8"]},
        "Links": ["db:store"], "DriverOpts": {"com.example": "on"}, "GwPriority": 7}}))
    assert (end.address, end.address6, end.link_local) == ("10.0.0.9", "fd00::9", ("169.254.8.8",))
    assert (end.links, end.driver_opts, end.gw_priority) == (("db:store",), {"com.example": "on"}, 7)


@pytest.mark.parametrize(("mode", "wanted", "names"), [
    ("default", {}, []),
    ("default", {"default": None}, ["bridge"]),
    ("default", {"app": {}}, ["app"]),
    ("bridge", {"app": {}}, ["bridge", "app"]),
    ("app", {}, []),
    ("app", {"app": {"Aliases": ["x"]}}, ["app"]),
    ("app", {"db": {}, "app": {}}, ["app", "db"]),
    ("app", {"db": {}}, ["app", "db"]),
    ("host", {"host": {}}, []),
])
def test_places_on_networks(mode, wanted, names):
    found = endpoints(mode, NetworkingWire(endpoints_config=wanted))
    assert [each.network for each in found] == names


def test_the_containers_own_mac_goes_to_its_first_place():
    assert endpoints("default", NetworkingWire(), "02:00:00:00:00:01")[0].mac == "02:00:00:00:00:01"


@pytest.mark.parametrize(("mode", "wanted", "error"), [
    ("host", {"app": {}}, InvalidArgument),
    ("default", {"bridge": {"Aliases": ["x"]}}, InvalidArgument),
    ("default", {"bridge": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}}}, InvalidArgument),
    ("app", {"app": {"IPAMConfig": {"IPv4Address": "10.0.0"}}}, InvalidArgument),
    ("app", {"app": {"IPAMConfig": {"IPv6Address": "10.0.0.9"}}}, InvalidArgument),
    ("app", {"app": {"IPAMConfig": {"LinkLocalIPs": ["10.0.0.9"]}}}, InvalidArgument),
    ("app", {"app": {"Links": ["a:b:c"]}}, InvalidArgument),
    ("app", {"app": {"DriverOpts": {"com.docker.network.endpoint.ifname": "a/b"}}}, InvalidArgument),
    ("app", {"app": {"DriverOpts": {"com.docker.network.endpoint.sysctls": "kernel.x=1"}}}, InvalidArgument),
    ("app", {"app": {"MacAddress": "02:00"}}, InvalidArgument),
    ("app", {"app": []}, InvalidArgument),
])
def test_places_that_are_refused(mode, wanted, error):
    with pytest.raises(error):
        endpoints(mode, NetworkingWire(endpoints_config=wanted))


EVENT = Event(type="container", action="exec_create: sh", actor_id="abcdef", time_ns=1,
              attributes={"name": "web", "image": "busybox:latest", "tier": "1"})


@pytest.mark.parametrize(("filters", "passes"), [
    ({}, True), ({"type": ["container"]}, True), ({"type": ["image"]}, False),
    ({"event": ["exec_create"]}, True), ({"event": ["exec_create: sh"]}, True), ({"event": ["start"]}, False),
    ({"container": ["web"]}, True), ({"container": ["abc"]}, True), ({"container": ["db"]}, False),
    ({"image": ["busybox"]}, True), ({"image": ["alpine"]}, False),
    ({"label": ["tier=1"]}, True), ({"label": ["tier=2"]}, False), ({"scope": ["swarm"]}, False),
])
def test_filters_of_events(filters, passes):
    assert matches(EVENT, filters) == passes


@pytest.mark.parametrize(("mode", "shown"), [
    (0o100644, 0o644), (0o040755, 1 << 31 | 0o755), (0o120777, 1 << 27 | 0o777), (0o104755, 1 << 23 | 0o755),
    (0o041777, 1 << 31 | 1 << 20 | 0o777), (0o020666, 1 << 26 | 1 << 21 | 0o666),
])
def test_modes_as_go_numbers_them(mode, shown):
    assert go_mode(mode) == shown


@pytest.mark.parametrize(("platform", "fits"), [
    ("", True), ("linux", True), ("linux/amd64", True), ("linux/x86_64", True), ("linux/amd64/v2", True),
    ("linux/arm64", False), ("windows/amd64", False),
])
def test_platforms_of_images(platform, fits):
    assert provides(Image(id="sha256:1", architecture="amd64"), platform) == fits
