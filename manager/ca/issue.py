"""Keys, requests and certificates. Time is an argument; the only chance is in keys and serial numbers.

P-256 throughout. A root lives 20 years; a node's certificate as long as the
cluster's specification says (90 days, at least an hour), backdated by an hour for
hosts whose clock is behind. Source of the numbers: SwarmKit, ca/certificates.go.
"""

from __future__ import annotations

import base64
import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shoal.api.errors import InvalidArgument
from shoal.api.jointoken import digest_of
from shoal.api.objects import RootCA
from shoal.api.specs import SECOND_NS
from shoal.api.states import Role

ROOT_LIFETIME = datetime.timedelta(days=20 * 365)
BACKDATED = datetime.timedelta(hours=1)
MIN_NODE_LIFETIME_NS = 3600 * SECOND_NS
MAX_CSR_CHARACTERS = 16 << 10

OU = {Role.MANAGER: "swarm-manager", Role.WORKER: "swarm-worker"}
"""Role → organizational unit of its certificates."""


def new_key() -> str:
    """A fresh private key (PEM, PKCS #8)."""
    return _key_pem(ec.generate_private_key(ec.SECP256R1()))


def new_root(now: float, name: str = "swarm-ca") -> RootCA:
    """A fresh self-signed authority. `now`: seconds since the epoch."""
    key, start = ec.generate_private_key(ec.SECP256R1()), _at(now)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - BACKDATED)
        .not_valid_after(start + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_pem = _pem(certificate)
    return RootCA(cert_pem=cert_pem, key_pem=_key_pem(key), digest=digest_of(cert_pem))


def new_request(key_pem: str) -> str:
    """A certificate request (PEM) for a key. It asks for no name: the CA alone says who its bearer is."""
    key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def issue(
    root: RootCA, csr_pem: str, *, node_id: str, role: Role, cluster_id: str, lifetime_ns: int, now: float
) -> str:
    """A node's certificate (PEM). Raises InvalidArgument where the request is none, or its key is not P-256."""
    public_key = _requested_key(csr_pem)
    issuer = x509.load_pem_x509_certificate(root.cert_pem.encode())
    signer = serialization.load_pem_private_key(root.key_pem.encode(), password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    start = _at(now)
    lifetime = datetime.timedelta(microseconds=max(lifetime_ns, MIN_NODE_LIFETIME_NS) // 1000)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_subject(node_id, role, cluster_id))
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(start - BACKDATED, issuer.not_valid_before_utc))
        .not_valid_after(min(start + lifetime, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(_names(node_id, role), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _pem(certificate)


def issuer_of(root: RootCA) -> tuple[str, str]:
    """What the API's TLSInfo shows of the issuer: its subject and public key, base 64 of their DER."""
    certificate = x509.load_pem_x509_certificate(root.cert_pem.encode())
    key = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(certificate.subject.public_bytes()).decode(), base64.b64encode(key).decode()


def _requested_key(csr_pem: str) -> ec.EllipticCurvePublicKey:
    if len(csr_pem) > MAX_CSR_CHARACTERS:
        raise InvalidArgument("the certificate request is too long")
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key, proven = request.public_key(), request.is_signature_valid
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise InvalidArgument(f"the certificate request cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidArgument("the certificate request has a key that is not P-256")
    if not proven:
        raise InvalidArgument("the certificate request is not signed by its own key")
    return key


def _subject(node_id: str, role: Role, cluster_id: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_id),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, OU[role]),
            x509.NameAttribute(NameOID.COMMON_NAME, node_id),
        ]
    )


def _names(node_id: str, role: Role) -> x509.SubjectAlternativeName:
    names = [OU[role], node_id]
    if role is Role.MANAGER:
        names.append("swarm-ca")  # managers serve the CA
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in names])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _at(now: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(now), datetime.UTC)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
