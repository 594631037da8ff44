"""`shoal registry deploy`: a registry of the swarm, which every host pulls from."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cluster import eventually

pytestmark = [pytest.mark.root, pytest.mark.lab]

ADDRESS = "m1:5000"


def certify(folder):
    """A certificate of `m1`, which is its own authority, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "m1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("m1")]), critical=False).sign(key, hashes.SHA256()))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


@pytest.fixture
def deploy(cluster):
    """deploy(*words): run the command against m1."""
    def run(*words, fails=False, host="m1"):
        done = subprocess.run([sys.executable, "-m", "shoal.cli.main", "-H", cluster.client(host).host, "registry",
                               "deploy", *words], capture_output=True, text=True, timeout=120, check=False)
        assert bool(done.returncode) == fails, done.stderr
        return done.stderr if fails else done.stdout.strip()
    yield run
    cluster.sweep()
    for client in map(cluster.client, cluster.names):
        for tag in [tag for image in client.call("GET", "/images/json") for tag in image.get("RepoTags") or []]:
            if tag.startswith(("shoal-registry:", ADDRESS)):
                client.call("DELETE", f"/images/{tag}")
    eventually(lambda: cluster.client().text("DELETE", "/volumes/shoal-registry", {"force": True}) == b"")


@pytest.fixture
def trusting(cluster, tmp_path):
    """The hosts m1 and w1 trust the certificate; the folder where it is."""
    certify(tmp_path)
    top = Path("/etc/docker")
    made = not top.is_dir()
    top.mkdir(exist_ok=True)
    trust = (f"mount -t tmpfs none {top} && mkdir -p {top}/certs.d/{ADDRESS} && "
             f"cp {tmp_path}/cert.pem {top}/certs.d/{ADDRESS}/ca.crt")
    for host in ("m1", "w1"):
        assert cluster.inside(host, "sh", "-c", trust).returncode == 0
    yield tmp_path
    for host in ("m1", "w1"):
        cluster.inside(host, "umount", str(top))
    if made:
        top.rmdir()


def succeeds(done):
    return done.returncode == 0


def test_every_host_pulls_what_was_pushed(cluster, deploy, trusting):
    assert "no manager of a swarm" in deploy(fails=True, host="w1")
    serve = ("--settings", str(trusting), "--", "--tls-cert", "/etc/registry/cert.pem",
             "--tls-key", "/etc/registry/key.pem")
    service = deploy(*serve)
    (task,) = cluster.runs("registry", 1)
    assert cluster.hosts_of("registry") == ["m1"]
    cluster.docker("tag", "busybox", f"{ADDRESS}/ours:1")
    pushed = eventually(lambda: cluster.docker_run("push", f"{ADDRESS}/ours:1"), succeeds)
    assert "digest: sha256:" in pushed.stdout
    cluster.service("pulled", container={"Image": f"{ADDRESS}/ours:1"},
                    task={"Placement": {"Constraints": ["node.hostname==w1"]}})
    cluster.runs("pulled", 1)

    image = task["Spec"]["ContainerSpec"]["Image"]
    assert deploy("--detach", *serve, "--delete") == service
    (other,) = eventually(lambda: [each for each in cluster.running("registry") if each["ID"] != task["ID"]])
    assert other["Spec"]["ContainerSpec"]["Image"] == image  # of the same contents
    eventually(lambda: cluster.docker_run("pull", f"{ADDRESS}/ours:1", host="w1"), succeeds)


def test_another_service_of_that_name_is_left_alone(cluster, deploy):
    cluster.service("registry")
    assert "is no registry of this command" in deploy(fails=True)
    assert cluster.any_manager().call("GET", "/services/registry")["Spec"]["TaskTemplate"]["ContainerSpec"][
        "Image"].startswith("busybox")
