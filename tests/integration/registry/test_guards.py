"""Users, tokens, TLS and bounds."""

import asyncio
import contextlib
import datetime
import http.client
import os
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import bcrypt
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from shoal.registry.errors import TooLarge, TooMany
from shoal.registry.manifests import OCI_MANIFEST, Manifest
from shoal.registry.names import Digest, Repository, Tag
from shoal.registry.store import Store
from shoal.registry.uploads import Uploads
from tests.integration.registry.conftest import DEADLINE_S, basic
from tests.integration.registry.pushing import digest, push_blob, push_image


def test_htpasswd(serve, tmp_path, users):
    server = serve(tmp_path / "store", "--htpasswd", str(users))
    for header in (None, "Basic x", basic("ann", "wrong"), basic("bob", "secret"), "Bearer x"):
        for path in ("/v2/", "/v2/a/tags/list", "/v2/_catalog", "/metrics"):
            answer = server.call("GET", path, **({"Authorization": header} if header else {}))
            assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
            assert answer.headers["WWW-Authenticate"] == 'Basic realm="Registry Realm"'
    assert server.call("GET", "/v2/", Authorization=basic("ann", "secret")).status == 200
    users.write_text(f"bob:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n# and nobody else\n")
    assert server.call("GET", "/v2/", Authorization=basic("ann", "secret")).status == 401
    assert server.call("GET", "/v2/", Authorization=basic("bob", "secret")).status == 200


def test_skopeo_with_a_password(serve, tmp_path, users):
    server = serve(tmp_path / "store", "--htpasswd", str(users))
    layout = tmp_path / "dir"
    plain = serve(tmp_path / "plain")
    found = push_image(plain, "a", "x")
    subprocess.run(["skopeo", "--insecure-policy", "copy", "--preserve-digests", "--src-tls-verify=false",
                    "--dest-tls-verify=false", "--dest-creds", "ann:secret", f"docker://{plain.address}/a:x",
                    f"docker://{server.address}/b:y"], check=True, timeout=120, cwd=tmp_path)
    answer = server.call("HEAD", "/v2/b/manifests/y", Authorization=basic("ann", "secret"))
    assert answer.headers["Docker-Content-Digest"] == found
    assert not layout.exists()


KEYS = {"RS256": rsa.generate_private_key(65537, 2048), "ES256": ec.generate_private_key(ec.SECP256R1())}


@pytest.fixture
def guarded(serve, tmp_path):
    options = []
    for name, key in KEYS.items():
        pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / name).write_bytes(pem)
        options += ["--token-key", str(tmp_path / name)]
    return serve(tmp_path / "store", "--delete", "--token-realm", "https://auth.example/token",
                 "--token-service", "reg",
                 "--token-issuer", "auth", *options)


def token(name="a", actions=("pull",), key="ES256", **changes):
    access = [{"type": "repository", "name": name, "actions": list(actions)}]
    claims = {"iss": "auth", "aud": "reg", "exp": time.time() + 600, "access": access, **changes}
    return "Bearer " + jwt.encode(claims, KEYS[key], algorithm=key)


@pytest.mark.parametrize("key", list(KEYS))
def test_tokens(guarded, key):
    def status(method, path, bearer):
        return guarded.call(method, path, **({"Authorization": bearer} if bearer else {})).status

    challenge = guarded.call("GET", "/v2/a/tags/list").headers["WWW-Authenticate"]
    assert challenge == 'Bearer realm="https://auth.example/token",service="reg",scope="repository:a:pull"'
    pull, push = token(key=key), token(actions=["pull", "push"], key=key)
    assert status("GET", "/v2/", None) == 401
    assert status("GET", "/v2/", pull) == 200
    assert status("GET", "/v2/a/tags/list", pull) == 404
    assert status("GET", "/v2/b/tags/list", pull) == 401
    assert status("POST", "/v2/a/blobs/uploads/", pull) == 401
    assert status("POST", "/v2/a/blobs/uploads/", push) == 202
    assert status("DELETE", "/v2/a/manifests/x", push) == 401
    assert status("GET", "/v2/_catalog", push) == 401


@pytest.mark.parametrize("bearer", [
    pytest.param(lambda: token(exp=time.time() - 3600), id="over"),
    pytest.param(lambda: token(nbf=time.time() + 3600), id="not yet"),
    pytest.param(lambda: token(aud="other"), id="for another service"),
    pytest.param(lambda: token(iss="other"), id="from another issuer"),
    pytest.param(lambda: token(access=[1]), id="without sense"),
    pytest.param(lambda: token()[:-8] + "AAAAAAAA", id="changed"),
    pytest.param(lambda: "Bearer " + jwt.encode({"iss": "auth", "aud": "reg", "exp": time.time() + 600}, "k" * 32),
                 id="HS256"),
    pytest.param(lambda: "Bearer " + jwt.encode({"iss": "auth", "aud": "reg"}, None, algorithm="none"), id="unsigned"),
])
def test_tokens_that_are_none(guarded, bearer):
    answer = guarded.call("GET", "/v2/", Authorization=bearer())
    assert answer.status == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_a_mount_takes_the_right_to_the_source(guarded):
    content = b"of others"
    both = [{"type": "repository", "name": name, "actions": ["pull", "push"]} for name in ("secret", "a")]
    path = f"/v2/secret/blobs/uploads/?digest={digest(content)}"
    assert guarded.call("POST", path, content, Authorization=token(access=both)).status == 201
    path = f"/v2/a/blobs/uploads/?mount={digest(content)}&from=secret"
    assert guarded.call("POST", path, Authorization=token(actions=["pull", "push"])).status == 202
    assert guarded.call("POST", path, Authorization=token(access=both)).status == 201


def test_tls(serve, tmp_path):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    key = KEYS["ES256"]
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256()))
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    server = serve(tmp_path / "store", "--tls-cert", str(tmp_path / "cert.pem"),
                   "--tls-key", str(tmp_path / "key.pem"))
    content = os.urandom(3 << 20)
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    connection = http.client.HTTPSConnection("localhost", server.port, timeout=DEADLINE_S, context=context)
    with contextlib.closing(connection):
        connection.request("POST", f"/v2/a/blobs/uploads/?digest={digest(content)}", content)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (201, b"")
        connection.request("GET", f"/v2/a/blobs/{digest(content)}")
        assert connection.getresponse().read() == content


@pytest.mark.parametrize("options", [
    ["--listen", "nowhere"], ["--proxy", "ftp://x"], ["--token-realm", "x"],
    ["--proxy", "http://x", "--proxy-user", "x"],
])
def test_options_that_make_no_sense(tmp_path, options):
    command = [sys.executable, "-m", "shoal.cli.main", "registry", "serve", "--root", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 1
    assert done.stderr.startswith("shoal: ")


async def test_bounds(tmp_path):
    """Open uploads, the size of a blob, and how long an upload may lie."""
    async def pieces(*parts):
        for each in parts:
            yield each

    store = Store(tmp_path)
    uploads = Uploads(store, most=2, largest=10)
    first, _ = [await uploads.start(Repository("a")) for _ in range(2)]
    with pytest.raises(TooMany):
        await uploads.start(Repository("a"))
    await uploads.receive(first, pieces(b"12345", b"67890"))
    with pytest.raises(TooLarge):
        await uploads.receive(first, pieces(b"x"))
    for folder in (first.folder, first.data):
        os.utime(folder, (1, 1))
    assert await uploads.purge(3600) == 1
    assert not first.folder.exists()
    await uploads.start(Repository("a"))
    assert len(uploads) == 2


async def test_a_tag_that_is_pushed_while_its_old_manifest_is_deleted_stays(tmp_path):
    store, name, tag = Store(tmp_path), Repository("a"), Tag("latest")

    def push(turn):
        content = str(turn).encode()
        found = Digest(digest(content))
        store.add_manifest(name, found, content, Manifest(media_type=OCI_MANIFEST), tag)
        return found

    old = push(0)
    for turn in range(1, 150):
        deleting = asyncio.to_thread(store.delete_manifest, name, old)
        old, _ = await asyncio.gather(asyncio.to_thread(push, turn), deleting)
        assert store.resolve(name, "latest") == old


def test_memory_stays_bounded(serve, tmp_path):
    """Eight uploads and downloads of 48 MiB at once take far less memory than they have bytes."""
    server = serve(tmp_path / "store")
    contents = [os.urandom(1 << 20) * 48 for _ in range(8)]
    found = []

    def both(content):
        name = push_blob(server, "a", content)
        found.append(server.call("GET", f"/v2/a/blobs/{name}").body == content)

    threads = [threading.Thread(target=both, args=(each,)) for each in contents]
    for each in threads:
        each.start()
    for each in threads:
        each.join(240)
    assert found == [True] * 8
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak_kib < 200 << 10
