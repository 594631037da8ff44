import datetime
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from shoal.api.errors import InvalidArgument
from shoal.api.specs import SECOND_NS
from shoal.api.states import Role
from shoal.manager.ca.issue import issue, new_key, new_request, new_root

NOW = time.time()
ROOT = new_root(NOW)
DAY_NS = 24 * 3600 * SECOND_NS


def certificate(role=Role.WORKER, lifetime_ns=90 * DAY_NS, now=NOW):
    request = new_request(new_key())
    pem = issue(ROOT, request, node_id="n1", role=role, cluster_id="c1", lifetime_ns=lifetime_ns, now=now)
    return x509.load_pem_x509_certificate(pem.encode())


def test_a_certificate_says_who_where_and_as_what():
    cert = certificate(Role.MANAGER)
    assert cert.subject.rfc4514_string() == "CN=n1,OU=swarm-manager,O=c1"
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"n1", "swarm-manager", "swarm-ca"}
    cert.verify_directly_issued_by(x509.load_pem_x509_certificate(ROOT.cert_pem.encode()))


def test_lifetimes_are_backdated_and_bounded():
    later = NOW + 7 * 24 * 3600
    cert = certificate(now=later)
    assert cert.not_valid_before_utc.timestamp() == int(later) - 3600
    assert cert.not_valid_after_utc.timestamp() == int(later) + 90 * 24 * 3600
    brief = certificate(lifetime_ns=1)
    assert brief.not_valid_after_utc - brief.not_valid_before_utc == datetime.timedelta(hours=2)
    root = x509.load_pem_x509_certificate(ROOT.cert_pem.encode())
    assert certificate(lifetime_ns=DAY_NS * 365 * 50).not_valid_after_utc == root.not_valid_after_utc


def test_what_the_request_asks_to_be_called_is_ignored():
    key = ec.generate_private_key(ec.SECP256R1())
    wants = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root"),
                       x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "swarm-manager")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(wants).sign(key, hashes.SHA256())
    pem = issue(ROOT, csr.public_bytes(serialization.Encoding.PEM).decode(), node_id="n1", role=Role.WORKER,
                cluster_id="c1", lifetime_ns=DAY_NS, now=NOW)
    assert x509.load_pem_x509_certificate(pem.encode()).subject.rfc4514_string() == "CN=n1,OU=swarm-worker,O=c1"


def _rsa_request():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("csr", "says"),
    [
        pytest.param("", "cannot be read", id="empty"),
        pytest.param("garbage", "cannot be read", id="garbage"),
        pytest.param(ROOT.cert_pem, "cannot be read", id="a-certificate"),
        pytest.param("x" * 20_000, "too long", id="too-long"),
        pytest.param(_rsa_request(), "not P-256", id="rsa"),
    ],
)
def test_a_bad_request_gets_nothing(csr, says):
    with pytest.raises(InvalidArgument, match=says):
        issue(ROOT, csr, node_id="n", role=Role.WORKER, cluster_id="c", lifetime_ns=DAY_NS, now=NOW)
