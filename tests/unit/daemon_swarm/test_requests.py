"""Bodies and addresses of requests to make or join a swarm."""

from __future__ import annotations

import pytest

from shoal.api.errors import InvalidArgument, NotImplementedHere
from shoal.daemon.http.wire import decode
from shoal.daemon.swarm import wire
from shoal.daemon.swarm.addresses import advertised_address, data_path_address, listen_address


def spec_of(body: str):  # type: ignore[no-untyped-def]
    return wire.cluster_spec(decode(body.encode(), wire.InitWire))


def test_what_the_docker_command_sends_means_the_defaults() -> None:
    spec = spec_of('{"ListenAddr":"0.0.0.0:2377","DefaultAddrPool":null,"Spec":{"Labels":null,"Orchestration":{},'
                   '"Raft":{},"Dispatcher":{},"CAConfig":{},"EncryptionConfig":{"AutoLockManagers":false}}}')
    assert (spec.task_history_limit, spec.heartbeat_period_ns, spec.subnet_size) == (5, 3_000_000_000, 24)


def test_values_are_taken_over() -> None:
    spec = spec_of('{"DefaultAddrPool":["10.20.0.0/16"],"SubnetSize":26,"spec":{"labels":{"a":"b"},"Orchestration":'
                   '{"TaskHistoryRetentionLimit":0},"Dispatcher":{"HeartbeatPeriod":7000000000}}}')
    assert spec.default_address_pool == ("10.20.0.0/16",)
    assert (spec.subnet_size, spec.task_history_limit, spec.heartbeat_period_ns) == (26, 0, 7_000_000_000)
    assert spec.labels == {"a": "b"}


@pytest.mark.parametrize(("body", "error"), [
    ('{"DataPathPort": 80}', InvalidArgument),
    ('{"DefaultAddrPool": ["nonsense"]}', InvalidArgument),
    ('{"DefaultAddrPool": ["10.0.0.0/8", "10.1.0.0/16"]}', InvalidArgument),
    ('{"DefaultAddrPool": ["10.0.0.0/16"], "SubnetSize": 8}', InvalidArgument),
    ('{"Spec": {"CAConfig": {"NodeCertExpiry": 1}}}', InvalidArgument),
    ('{"Spec": {"Dispatcher": {"HeartbeatPeriod": -1}}}', InvalidArgument),
    ('{"Spec": {"Name": "other"}}', InvalidArgument),
    ('{"Spec": {"EncryptionConfig": {"AutoLockManagers": true}}}', NotImplementedHere),
])
def test_what_cannot_be_is_refused(body: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        spec_of(body)


@pytest.mark.parametrize(("text", "address"), [
    ("", ("0.0.0.0", 2377)), ("192.0.2.1", ("192.0.2.1", 2377)), ("192.0.2.1:12377", ("192.0.2.1", 12377)),
    ("lo", ("127.0.0.1", 2377)), ("lo:99", ("127.0.0.1", 99)), ("2001:db8::1", ("2001:db8::1", 2377)),
    ("[2001:db8::1]:99", ("2001:db8::1", 99)),
])
def test_listen_addresses(text: str, address: tuple[str, int]) -> None:
    assert listen_address(text) == address


@pytest.mark.parametrize("text", ["nonsense", "192.0.2.1:0", "192.0.2.1:65535", "192.0.2.1:+99", "192.0.2.1:1000000",
                                  "192.0.2.1:", "eth99:2377", "300.1.1.1"])
def test_listen_addresses_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument):
        listen_address(text)


def test_advertised_addresses() -> None:
    everywhere = listen_address("0.0.0.0:12377")
    assert advertised_address("192.0.2.7:2377", everywhere) == ("192.0.2.7", 2377)
    assert advertised_address("192.0.2.7", everywhere) == ("192.0.2.7", 12377)
    assert advertised_address("", listen_address("192.0.2.8:99")) == ("192.0.2.8", 99)
    with pytest.raises(InvalidArgument, match="non-zero IP address"):
        advertised_address("0.0.0.0", everywhere)


def test_data_path_addresses() -> None:
    assert data_path_address("") == ""
    assert data_path_address("lo") == "127.0.0.1"
    with pytest.raises(InvalidArgument):
        data_path_address("0.0.0.0")


@pytest.mark.parametrize("text", ["active", "Pause", "DRAIN", ""])
def test_availability(text: str) -> None:
    assert wire.availability(text) == (text.lower() or "active")


def test_availability_that_is_none() -> None:
    with pytest.raises(InvalidArgument):
        wire.availability("asleep")
