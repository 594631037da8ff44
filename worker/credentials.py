"""The files that say who this host is in its swarm, and TLS contexts made of them.

`<data>/swarm/{identity.json,node.key,node.crt,ca.crt}`. Every file is replaced as a
whole; `node.key` is written before the certificate that belongs to it, so that a
crash between the two is seen (and mended by asking for a certificate again).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shoal.api.errors import ShoalError
from shoal.api.membership import Identity
from shoal.api.states import Role

IDENTITY, KEY, CERTIFICATE, ROOT = "identity.json", "node.key", "node.crt", "ca.crt"

_ROLE_OF_OU = {"swarm-manager": Role.MANAGER, "swarm-worker": Role.WORKER}


class CertificateFacts(msgspec.Struct, frozen=True):
    """What this host's own certificate says. Times are seconds since the epoch."""

    node_id: str
    cluster_id: str
    role: Role
    not_before: float
    not_after: float


class Credentials:
    """One host's folder. `load` it, then use `identity`, `client` and `server`.

    The contexts stay the same objects when certificates change: later handshakes use what is new.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity: Identity | None = None
        self.client = _context(ssl.PROTOCOL_TLS_CLIENT)
        self.server = _context(ssl.PROTOCOL_TLS_SERVER)
        self.changed = asyncio.Event()
        """Set whenever identity or certificate were replaced; whoever waits for it clears it."""

    def load(self) -> Identity | None:
        """Read what is there; None where this host is in no swarm. Raises ShoalError naming a broken file."""
        path = self.folder / IDENTITY
        try:
            self.identity = msgspec.json.decode(path.read_bytes(), type=Identity)
            self._refresh()
        except FileNotFoundError:
            if path.exists():
                raise ShoalError(f"{self.folder} lacks a key or certificate of this node: leave the swarm with "
                                 "--force, and join again") from None
            return None
        except (OSError, ssl.SSLError, msgspec.MsgspecError) as error:
            raise ShoalError(f"the identity in {self.folder} cannot be used: {error}") from error
        return self.identity

    def save(self, identity: Identity) -> None:
        """Replace the identity."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self.folder / IDENTITY, msgspec.json.format(msgspec.json.encode(identity), indent=2))
        self.identity = identity
        self.changed.set()

    def save_certificate(self, key_pem: str, certificate_pem: str, root_ca_pem: str) -> None:
        """Replace key, certificate and roots."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self.folder / ROOT, root_ca_pem.encode())
        replace_file(self.folder / KEY, key_pem.encode())
        replace_file(self.folder / CERTIFICATE, certificate_pem.encode())
        self._refresh()
        self.changed.set()

    def facts(self) -> CertificateFacts:
        """What the certificate says. Raises ShoalError where it is none of a node."""
        return certificate_facts((self.folder / CERTIFICATE).read_text())

    def clear(self) -> None:
        """Forget the swarm: everything in the folder but what the daemon keeps beside it."""
        self.identity = None
        (self.folder / IDENTITY).unlink(missing_ok=True)  # first: without it this host is in no swarm
        for entry in self.folder.iterdir() if self.folder.exists() else ():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        self.client = _context(ssl.PROTOCOL_TLS_CLIENT)
        self.server = _context(ssl.PROTOCOL_TLS_SERVER)
        self.changed.set()

    def _refresh(self) -> None:
        for context in (self.client, self.server):
            context.load_verify_locations(cafile=str(self.folder / ROOT))
            context.load_cert_chain(str(self.folder / CERTIFICATE), str(self.folder / KEY))


def new_key() -> tuple[str, str]:
    """A fresh P-256 key and a request for its certificate (PEM both). The CA alone says who its bearer is."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key_pem.decode(), request.public_bytes(serialization.Encoding.PEM).decode()


def certificate_facts(certificate_pem: str) -> CertificateFacts:
    """Raises ShoalError where it is no node's certificate."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        fields = {oid: certificate.subject.get_attributes_for_oid(oid)[0].value
                  for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)}
        role = _ROLE_OF_OU[str(fields[NameOID.ORGANIZATIONAL_UNIT_NAME])]
    except (ValueError, IndexError, KeyError) as error:
        raise ShoalError(f"this is no certificate of a node: {error}") from error
    return CertificateFacts(
        node_id=str(fields[NameOID.COMMON_NAME]), cluster_id=str(fields[NameOID.ORGANIZATION_NAME]), role=role,
        not_before=certificate.not_valid_before_utc.timestamp(), not_after=certificate.not_valid_after_utc.timestamp())


class Peer(msgspec.Struct, frozen=True):
    """Who is on the other side of a connection, as the certificate says."""

    node_id: str
    role: Role


def peer_of(connection: Any, cluster_id: str) -> Peer | None:
    """A verified peer of this cluster; None for anybody else. The worker side's one place for roles."""
    certificate = connection.getpeercert() if connection is not None else None
    if not certificate:
        return None
    fields = {pair[0]: pair[1] for rdn in certificate.get("subject", ()) for pair in rdn}
    if fields.get("organizationName") != cluster_id:
        return None
    role = _ROLE_OF_OU.get(fields.get("organizationalUnitName", ""))
    return Peer(fields.get("commonName", ""), role) if role is not None else None


def replace_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader, or a crash, sees the old or the new one. Mode 0600.

    `durable`: also after a power cut.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _context(protocol: int) -> ssl.SSLContext:
    """TLS 1.3, both certificates checked, no host names: who the other is stands in its certificate."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    return context
