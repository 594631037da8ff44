"""A cache of another registry: what it keeps, how often it asks, and what it does while the other cannot be reached."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from shoal.registry.names import Repository
from shoal.registry.proxy import Upstream
from shoal.registry.store import Store
from shoal.registry.uploads import Uploads
from tests.integration.registry.conftest import DEADLINE_S, basic, wait_for
from tests.integration.registry.pushing import digest, push_image


def test_a_cache(serve, serve_docker, tmp_path):
    """Of Docker's registry: what was asked for once is served when that is gone; a tag that moved is followed."""
    docker = serve_docker(tmp_path / "docker")
    cache = serve(tmp_path / "cache", "--proxy", f"http://{docker.address}")
    layer = os.urandom(3 << 20)
    old = push_image(docker, "a/b", "v1", b"old")
    assert cache.call("GET", "/v2/a/b/manifests/v1").headers["Docker-Content-Digest"] == old
    new = push_image(docker, "a/b", "v1", layer)
    assert cache.call("GET", "/v2/a/b/manifests/v1").headers["Docker-Content-Digest"] == new
    for part, code in (("manifests/none", "MANIFEST_UNKNOWN"), ("blobs/sha256:" + "0" * 64, "BLOB_UNKNOWN")):
        answer = cache.call("GET", f"/v2/a/b/{part}")
        assert (answer.status, answer.code) == (404, code)
    found = []
    threads = [threading.Thread(target=lambda: found.append(cache.call("GET", f"/v2/a/b/blobs/{digest(layer)}").body))
               for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(DEADLINE_S)
    assert found == [layer] * 4
    assert cache.call("POST", "/v2/a/b/blobs/uploads/").code == "UNSUPPORTED"
    docker.kill()
    for reference in ("v1", new):
        assert cache.call("GET", f"/v2/a/b/manifests/{reference}").headers["Docker-Content-Digest"] == new
    assert cache.call("GET", f"/v2/a/b/blobs/{digest(layer)}").body == layer
    missing = cache.call("GET", "/v2/a/b/manifests/other")
    assert (missing.status, missing.code) == (502, "UNAVAILABLE")


def test_a_cache_believes_nothing(serve, tmp_path):
    """A blob that is not what its name says is neither served nor kept."""
    liar = serve(tmp_path / "liar")
    push_image(liar, "a", "x", b"what it says")
    store = Store(tmp_path / "liar")
    store.layout.blob(digest(b"what it says")).write_bytes(b"something else")
    cache = serve(tmp_path / "cache", "--proxy", f"http://{liar.address}")
    assert cache.call("GET", "/v2/a/manifests/x").status == 200
    answer = cache.call("GET", f"/v2/a/blobs/{digest(b'what it says')}")
    assert (answer.status, answer.code) == (502, "UNAVAILABLE")
    assert not list((tmp_path / "cache/docker/registry/v2/repositories/a/_uploads").iterdir())


def test_a_cache_with_credentials(serve, tmp_path, users):
    source = serve(tmp_path / "store", "--htpasswd", str(users))
    content = b"guarded"
    path = f"/v2/a/blobs/uploads/?digest={digest(content)}"
    assert source.call("POST", path, content, Authorization=basic("ann", "secret")).status == 201
    (tmp_path / "password").write_text("secret\n")
    cache = serve(tmp_path / "cache", "--proxy", f"http://{source.address}", "--proxy-user", "ann",
                  "--proxy-password-file", str(tmp_path / "password"))
    assert cache.call("GET", f"/v2/a/blobs/{digest(content)}").body == content
    without = serve(tmp_path / "without", "--proxy", f"http://{source.address}")
    assert without.call("GET", f"/v2/a/blobs/{digest(content)}").status == 502


def asked(server, route, method="GET"):
    """How often a registry of ours answered such requests well."""
    wanted = f'registry_http_requests_total{{code="200",method="{method}",route="{route}"}} '
    lines = server.call("GET", "/metrics").body.decode().splitlines()
    return sum(int(float(line.removeprefix(wanted))) for line in lines if line.startswith(wanted))


def test_many_readers_are_one_fetch(serve, tmp_path):
    source = serve(tmp_path / "store")
    cache = serve(tmp_path / "cache", "--proxy", f"http://{source.address}")
    layer = os.urandom(4 << 20)
    push_image(source, "a", "x", layer)
    begin = threading.Barrier(16)

    def read(_):
        begin.wait(DEADLINE_S)
        return cache.call("GET", f"/v2/a/blobs/{digest(layer)}").body == layer

    with ThreadPoolExecutor(16) as readers:
        assert all(readers.map(read, range(16)))
    assert asked(source, "blob") == 1


def shows(cache, tag="x"):
    return cache.call("HEAD", f"/v2/a/manifests/{tag}").headers["Docker-Content-Digest"]


def test_a_tag_is_served_for_its_time_without_asking(serve, tmp_path):
    source = serve(tmp_path / "store")
    long, short = (serve(tmp_path / name, "--proxy", f"http://{source.address}", "--proxy-ttl", ttl)
                   for name, ttl in (("long", "3600"), ("short", "0.2")))
    old = push_image(source, "a", "x", b"old")
    assert [shows(cache) for cache in (long, short)] == [old, old]
    new = push_image(source, "a", "x", b"new")
    wait_for(lambda: shows(short) == new, "the new image")
    assert shows(long) == old
    assert long.call("GET", f"/v2/a/manifests/{new}").status == 200  # a digest is asked for at once


@pytest.fixture
async def silent():
    """A server that takes connections and never answers: its URL, and how many it took."""
    taken = []
    server = await asyncio.start_server(lambda _, writer: taken.append(writer), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", taken
    for writer in taken:
        writer.close()
    server.close()


async def test_what_is_cached_is_served_though_the_other_is_silent(serve, tmp_path, silent):
    """The first waits a while for the comparison; then it is not tried again for some time."""
    source = serve(tmp_path / "store")
    push_image(source, "a", "x")
    source.kill()
    (url, taken), store, name = silent, Store(tmp_path / "store"), Repository("a")
    upstream = Upstream(url, store, Uploads(store), patience_s=0.1)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await upstream.refresh(name, "x")
            assert len(taken) == 1
            await upstream.refresh(name, "x")
    finally:
        await upstream.close()
    assert len(taken) == 1
