"""Who is on the other end of a TLS connection, and whether it may do this. The manager side's one place for roles.

The handshake has verified the certificate against the cluster's CA before anything
here looks at it; a connection without one has no identity.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import msgspec

from shoal.api.errors import PermissionDenied
from shoal.api.states import Role

ROLE_OF_OU = {"swarm-manager": Role.MANAGER, "swarm-worker": Role.WORKER}


class PeerIdentity(msgspec.Struct, frozen=True):
    """What a verified node certificate says of its bearer."""

    node_id: str
    role: Role
    cluster_id: str


def peer_identity(connection: ssl.SSLObject | ssl.SSLSocket | None) -> PeerIdentity | None:
    """The peer's identity; None without TLS, without a certificate, or with one that is no node's."""
    if connection is None:
        return None
    certificate = connection.getpeercert()
    return identity_in(certificate.get("subject", ())) if certificate else None


def identity_in(subject: Iterable[Any]) -> PeerIdentity | None:
    """The identity in a subject as `ssl` gives it: a tuple of RDNs, each of (name, value) pairs."""
    fields = {pair[0]: pair[1] for rdn in subject for pair in rdn}
    node_id, cluster_id = fields.get("commonName", ""), fields.get("organizationName", "")
    role = ROLE_OF_OU.get(fields.get("organizationalUnitName", ""))
    if role is None or not node_id or not cluster_id:
        return None
    return PeerIdentity(node_id, role, cluster_id)


def require_node(connection: ssl.SSLObject | ssl.SSLSocket | None, cluster_id: str) -> PeerIdentity:
    """The peer, which has to be a node of this cluster. Raises PermissionDenied."""
    peer = peer_identity(connection)
    if peer is None:
        raise PermissionDenied("a node certificate of this swarm is needed for this")
    if peer.cluster_id != cluster_id:
        raise PermissionDenied(f"the certificate of node {peer.node_id} belongs to another swarm")
    return peer


def require_manager(connection: ssl.SSLObject | ssl.SSLSocket | None, cluster_id: str) -> PeerIdentity:
    """The peer, which has to be a manager of this cluster. Raises PermissionDenied."""
    peer = require_node(connection, cluster_id)
    if peer.role is not Role.MANAGER:
        raise PermissionDenied(f"node {peer.node_id} is not a manager: its certificate does not allow this")
    return peer
