"""Bodies of /swarm/init, /swarm/join and /swarm/leave as clients send them, and what they mean."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec

from shoal.api.errors import InvalidArgument, NotImplementedHere
from shoal.api.specs import ClusterSpec
from shoal.api.states import Availability
from shoal.api.wire import Wire

DATA_PORTS = range(1024, 49152)
MIN_CERTIFICATE_NS = 3600 * 1_000_000_000


class OrchestrationWire(Wire, frozen=True):
    task_history_retention_limit: int | None = None


class DispatcherWire(Wire, frozen=True):
    heartbeat_period: int = 0


class CAWire(Wire, frozen=True):
    node_cert_expiry: int = 0
    external_cas: tuple[Any, ...] = ()


class EncryptionWire(Wire, frozen=True):
    auto_lock_managers: bool = False


class RaftWire(Wire, frozen=True):
    snapshot_interval: int = 0
    log_entries_for_slow_followers: int | None = None
    election_tick: int = 0
    heartbeat_tick: int = 0


class SpecWire(Wire, frozen=True):
    name: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    orchestration: OrchestrationWire = OrchestrationWire()
    raft: RaftWire = RaftWire()
    dispatcher: DispatcherWire = DispatcherWire()
    ca_config: CAWire = CAWire()
    encryption_config: EncryptionWire = EncryptionWire()


class InitWire(Wire, frozen=True):
    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    data_path_port: int = 0
    default_addr_pool: tuple[str, ...] = ()
    subnet_size: int = 0
    force_new_cluster: bool = False
    auto_lock_managers: bool = False
    availability: str = ""
    spec: SpecWire = SpecWire()


class JoinWire(Wire, frozen=True):
    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    remote_addrs: tuple[str, ...] = ()
    join_token: str = ""
    availability: str = ""


def availability(text: str) -> Availability:
    """Raises InvalidArgument."""
    try:
        return Availability(text.lower() or "active")
    except ValueError as error:
        raise InvalidArgument(f'invalid Availability: "{text}"') from error


def data_port(number: int) -> int:
    """Raises InvalidArgument."""
    if number and number not in DATA_PORTS:
        raise InvalidArgument(f"Datapath port number {number} is not in range [1024-49151]")
    return number or 4789


def cluster_spec(wire: InitWire) -> ClusterSpec:
    """What the new swarm's specification is. Raises InvalidArgument, NotImplementedHere."""
    spec, default = wire.spec, ClusterSpec()
    if spec.encryption_config.auto_lock_managers or wire.auto_lock_managers:
        raise NotImplementedHere("locking managers (autolock) is not supported yet")
    if spec.ca_config.external_cas:
        raise NotImplementedHere("external certificate authorities are not supported yet")
    if spec.name not in ("", "default"):
        raise InvalidArgument("swarm spec must be named 'default'")
    expiry = spec.ca_config.node_cert_expiry or default.node_cert_expiry_ns
    if expiry < MIN_CERTIFICATE_NS:
        raise InvalidArgument("invalid CAConfig: minimum certificate expiry time is 1h0m0s")
    beat = spec.dispatcher.heartbeat_period or default.heartbeat_period_ns
    if beat < 0:
        raise InvalidArgument("invalid DispatcherConfig: heartbeat period cannot be a negative duration")
    raft, limit = spec.raft, spec.orchestration.task_history_retention_limit
    slow = raft.log_entries_for_slow_followers
    return ClusterSpec(
        labels=spec.labels,
        task_history_limit=default.task_history_limit if limit is None else limit,
        snapshot_interval=raft.snapshot_interval or default.snapshot_interval,
        log_entries_for_slow_followers=default.log_entries_for_slow_followers if slow is None else slow,
        election_tick=raft.election_tick or default.election_tick,
        heartbeat_tick=raft.heartbeat_tick or default.heartbeat_tick,
        heartbeat_period_ns=beat,
        node_cert_expiry_ns=expiry,
        default_address_pool=_pools(wire.default_addr_pool) or default.default_address_pool,
        subnet_size=_subnet_size(wire),
        data_path_port=data_port(wire.data_path_port),
    )


def _pools(texts: tuple[str, ...]) -> tuple[str, ...]:
    try:
        networks = [ipaddress.IPv4Network(text, strict=False) for text in texts]
    except ValueError as error:
        raise InvalidArgument(f"invalid default address pool: {error}") from error
    for position, network in enumerate(networks):
        if any(network.overlaps(other) for other in networks[:position]):
            raise InvalidArgument(f"default address pool {network} overlaps another")
    return tuple(str(network) for network in networks)


def _subnet_size(wire: InitWire) -> int:
    size = wire.subnet_size or 24
    longest = max((ipaddress.IPv4Network(pool, strict=False).prefixlen for pool in _pools(wire.default_addr_pool)),
                  default=0)
    if not max(longest, 1) <= size <= 29:
        raise InvalidArgument(f"invalid subnet size {size}: it has to be between the pool's and 29")
    return size
