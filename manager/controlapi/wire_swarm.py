"""The swarm itself on the wire: its specification both ways, and what GET /swarm and /info show. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from shoal.api.errors import NotImplementedHere
from shoal.api.objects import Cluster
from shoal.api.specs import SECOND_NS, ClusterSpec
from shoal.api.states import Role
from shoal.api.wire import Wire, means_something
from shoal.manager.ca.issue import MIN_NODE_LIFETIME_NS, issuer_of
from shoal.manager.ca.tokens import token_for
from shoal.manager.controlapi.errors import invalid
from shoal.manager.controlapi.requests import rfc3339
from shoal.manager.controlapi.wire_node import TLSInfoWire

MIN_HEARTBEAT_NS = SECOND_NS // 10
MAX_HEARTBEAT_NS = 3600 * SECOND_NS


class OrchestrationWire(Wire, frozen=True):
    task_history_retention_limit: int | None = None


class RaftWire(Wire, frozen=True):
    snapshot_interval: int = 0
    keep_old_snapshots: int | None = None
    log_entries_for_slow_followers: int = 0
    election_tick: int = 0
    heartbeat_tick: int = 0


class DispatcherWire(Wire, frozen=True):
    heartbeat_period: int = 0


class CAWire(Wire, frozen=True):
    node_cert_expiry: int = 0
    external_cas: Any = field(name="ExternalCAs", default=None)
    signing_ca_cert: str = field(name="SigningCACert", default="")
    signing_ca_key: str = field(name="SigningCAKey", default="")
    force_rotate: int = 0


class EncryptionWire(Wire, frozen=True):
    auto_lock_managers: bool = False


class SwarmSpecWire(Wire, frozen=True):
    """Sections and fields that a client leaves out, or sends as zero, stay as they are."""

    name: str = ""
    labels: dict[str, str] | None = None
    orchestration: OrchestrationWire = OrchestrationWire()
    raft: RaftWire = RaftWire()
    dispatcher: DispatcherWire = DispatcherWire()
    ca_config: CAWire = field(name="CAConfig", default=CAWire())
    encryption_config: EncryptionWire = EncryptionWire()
    task_defaults: Any = None


def cluster_spec(wire: SwarmSpecWire, current: ClusterSpec) -> ClusterSpec:
    """What a client sent, over what is stored. Raises InvalidArgument and NotImplementedHere."""
    _refuse(wire, current)
    raft, orchestration = wire.raft, wire.orchestration
    spec = msgspec.structs.replace(
        current,
        labels=current.labels if wire.labels is None else wire.labels,
        task_history_limit=current.task_history_limit
        if orchestration.task_history_retention_limit is None
        else orchestration.task_history_retention_limit,
        snapshot_interval=raft.snapshot_interval or current.snapshot_interval,
        log_entries_for_slow_followers=raft.log_entries_for_slow_followers or current.log_entries_for_slow_followers,
        election_tick=raft.election_tick or current.election_tick,
        heartbeat_tick=raft.heartbeat_tick or current.heartbeat_tick,
        heartbeat_period_ns=wire.dispatcher.heartbeat_period or current.heartbeat_period_ns,
        node_cert_expiry_ns=wire.ca_config.node_cert_expiry or current.node_cert_expiry_ns,
    )
    _check(spec)
    return spec


def swarm_spec_json(spec: ClusterSpec) -> dict[str, Any]:
    return {
        "Name": spec.name,
        "Labels": spec.labels,
        "Orchestration": {"TaskHistoryRetentionLimit": spec.task_history_limit},
        "Raft": {
            "SnapshotInterval": spec.snapshot_interval,
            "KeepOldSnapshots": 0,
            "LogEntriesForSlowFollowers": spec.log_entries_for_slow_followers,
            "ElectionTick": spec.election_tick,
            "HeartbeatTick": spec.heartbeat_tick,
        },
        "Dispatcher": {"HeartbeatPeriod": spec.heartbeat_period_ns},
        "CAConfig": {"NodeCertExpiry": spec.node_cert_expiry_ns},
        "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": spec.auto_lock},
    }


def cluster_json(cluster: Cluster) -> dict[str, Any]:
    """The swarm as /info shows it: without what lets others join."""
    return {
        "ID": cluster.id,
        "Version": {"Index": cluster.meta.version},
        "CreatedAt": rfc3339(cluster.meta.created_at),
        "UpdatedAt": rfc3339(cluster.meta.updated_at),
        "Spec": swarm_spec_json(cluster.spec),
        "TLSInfo": tls_info(cluster),
        "RootRotationInProgress": False,
        "DefaultAddrPool": list(cluster.spec.default_address_pool),
        "SubnetSize": cluster.spec.subnet_size,
        "DataPathPort": cluster.spec.data_path_port,
    }


def swarm_json(cluster: Cluster) -> dict[str, Any]:
    """The swarm as GET /swarm shows it to a manager's client."""
    tokens = {"Worker": token_for(cluster, Role.WORKER), "Manager": token_for(cluster, Role.MANAGER)}
    return {**cluster_json(cluster), "JoinTokens": tokens}


def tls_info(cluster: Cluster) -> TLSInfoWire:
    subject, key = issuer_of(cluster.root_ca)
    return TLSInfoWire(trust_root=cluster.root_ca.cert_pem, cert_issuer_subject=subject, cert_issuer_public_key=key)


def _refuse(wire: SwarmSpecWire, current: ClusterSpec) -> None:
    if wire.name and wire.name != current.name:
        raise invalid(f'swarm spec: the name of a swarm cannot change from "{current.name}"')
    if wire.encryption_config.auto_lock_managers:
        raise NotImplementedHere("locking managers (autolock) is not supported yet: leave AutoLockManagers out")
    ca = wire.ca_config
    if ca.force_rotate != current.ca_force_rotate or ca.signing_ca_cert or ca.signing_ca_key:
        raise NotImplementedHere("rotating the root CA is not supported yet; join tokens can be rotated")
    if means_something(ca.external_cas):
        raise NotImplementedHere("external CAs are not supported: leave ExternalCAs out")
    if means_something(wire.task_defaults):
        raise NotImplementedHere("TaskDefaults are not supported: give the log driver with the service")
    if wire.raft.keep_old_snapshots:
        raise NotImplementedHere("KeepOldSnapshots is not supported: leave it 0")


def _check(spec: ClusterSpec) -> None:
    if spec.node_cert_expiry_ns < MIN_NODE_LIFETIME_NS:
        raise invalid("minimum certificate expiry time is: 1h0m0s")
    if not MIN_HEARTBEAT_NS <= spec.heartbeat_period_ns <= MAX_HEARTBEAT_NS:
        raise invalid("invalid dispatcher heartbeat period: it has to be from 100ms to 1h")
    for name, value in (
        ("SnapshotInterval", spec.snapshot_interval),
        ("LogEntriesForSlowFollowers", spec.log_entries_for_slow_followers),
        ("HeartbeatTick", spec.heartbeat_tick),
    ):
        if not 0 < value < 1 << 31:
            raise invalid(f"invalid {name}: {value}")
    if not spec.heartbeat_tick < spec.election_tick < 1 << 31:
        raise invalid("ElectionTick must be greater than HeartbeatTick")
    if any(not key for key in spec.labels):
        raise invalid("a label needs a name")
