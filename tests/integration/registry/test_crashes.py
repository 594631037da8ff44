"""What is killed, cut or collected in the middle loses nothing that was acknowledged and shows nothing that was not."""

import http.client
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shoal.registry.collector import collect
from shoal.registry.names import Repository
from shoal.registry.store import Store
from tests.integration.registry import pushing
from tests.integration.registry.conftest import DEADLINE_S, wait_for
from tests.integration.registry.pushing import digest, push_blob, push_image


def half_sent(server, where, content):
    """A PATCH whose body stops in the middle. The connection, which stays open."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE_S)
    connection.putrequest("PATCH", where)
    connection.putheader("Content-Length", str(len(content)))
    connection.endheaders()
    connection.send(content[:len(content) // 2])
    return connection


def held(server, where):
    first, _, last = server.call("GET", where).headers["Range"].partition("-")
    assert first == "0"
    return int(last) + 1 if last != "0" else 0


@pytest.mark.parametrize("kill", [True, False], ids=["the registry is killed", "the connection is cut"])
def test_an_upload_goes_on(serve, tmp_path, kill):
    root, content = tmp_path / "store", os.urandom(8 << 20)
    server = serve(root)
    where = server.call("POST", "/v2/a/blobs/uploads/").headers["Location"]
    connection = half_sent(server, where, content)
    wait_for(lambda: held(server, where) > 1 << 20, "a part of the upload")
    if kill:
        server.kill()
        server = serve(root)
    connection.close()
    wait_for(lambda: server.call("PATCH", where, b"").status == 202, "the end of the first request")
    size = held(server, where)
    assert 1 << 20 < size <= len(content) // 2
    assert server.call("HEAD", f"/v2/a/blobs/{digest(content)}").status == 404
    done = server.call("PUT", f"{where}?digest={digest(content)}", content[size:],
                       Content_Range=f"{size}-{len(content) - 1}")
    assert done.status == 201, done.body
    assert server.call("GET", done.headers["Location"]).body == content


def test_kills_between_pushes(serve, tmp_path):
    """Whatever was acknowledged is there after a kill, whole; the blobs on the disk are what their names say."""
    root, acknowledged = tmp_path / "store", {}
    for number in range(3):
        server = serve(root)
        stop = threading.Event()

        def push(server=server, stop=stop, number=number):
            count = 0
            while not stop.is_set():
                layer = f"{number} {count}".encode() * 1000
                try:
                    acknowledged[f"{number}-{count}"] = (push_image(server, "a", f"{number}-{count}", layer), layer)
                except (OSError, http.client.HTTPException):
                    return
                count += 1

        thread = threading.Thread(target=push)
        thread.start()
        wait_for(lambda number=number: f"{number}-2" in acknowledged, "three pushes")
        server.kill()
        stop.set()
        thread.join(DEADLINE_S)
    server = serve(root)
    for tag, (found, layer) in acknowledged.items():
        assert server.call("GET", f"/v2/a/manifests/{tag}").headers["Docker-Content-Digest"] == found
        assert server.call("GET", f"/v2/a/blobs/{digest(layer)}").body == layer
    for path in Path(root, "docker/registry/v2/blobs").rglob("data"):
        assert digest(path.read_bytes()) == f"sha256:{path.parent.name}"


def test_one_request_at_a_time_writes(serve, tmp_path):
    server = serve(tmp_path / "store")
    where = server.call("POST", "/v2/a/blobs/uploads/").headers["Location"]
    connection = half_sent(server, where, bytes(8 << 20))
    wait_for(lambda: held(server, where) > 1 << 20, "a part of the upload")
    answer = server.call("PATCH", where, b"x")
    assert (answer.status, answer.code) == (409, "BLOB_UPLOAD_INVALID")
    connection.close()


def age(store):
    """Make every blob look old."""
    for path in store.layout.blobs.rglob("data"):
        os.utime(path, (1, 1))


def test_a_collection_leaves_what_a_push_was_told_of(serve, tmp_path):
    """A client asks by HEAD whether an old blob is there, and counts on it."""
    root = tmp_path / "store"
    server, store = serve(root), Store(root)
    for each in (b"counted on", b"mounted", b"left"):
        push_blob(server, "a", each)
    age(store)
    assert server.call("HEAD", f"/v2/a/blobs/{digest(b'counted on')}").status == 200
    assert server.call("POST", f"/v2/b/blobs/uploads/?mount={digest(b'mounted')}&from=a").status == 201
    assert collect(store, dry=True).blobs == [digest(b"left")]
    assert server.call("HEAD", f"/v2/a/blobs/{digest(b'counted on')}").status == 200
    assert collect(store).blobs == [digest(b"left")]
    assert server.call("GET", f"/v2/b/blobs/{digest(b'mounted')}").body == b"mounted"
    assert list(store.layers(Repository("a"))).count(digest(b"left")) == 0


def test_collections_beside_pushes(serve, tmp_path):
    """Clients push images whose blobs are old and nobody's, and send only those that HEAD does not find, while
    collections run: none ends up with a hole."""
    root = tmp_path / "store"
    server, store = serve(root), Store(root)
    images = [pushing.image(f"layer {number}".encode()) for number in range(12)]
    for _, *blobs in images:
        for each in blobs:
            push_blob(server, "a", each)
    orphan = push_blob(server, "a", b"of no image")
    age(store)
    answers = []

    def push():
        for number, (manifest, *blobs) in enumerate(images):
            for each in blobs:
                if server.call("HEAD", f"/v2/a/blobs/{digest(each)}").status == 404:
                    push_blob(server, "a", each)
            answers.append(server.call("PUT", f"/v2/a/manifests/v{number}", manifest,
                                       Content_Type=pushing.OCI_MANIFEST).status)

    thread = threading.Thread(target=push)
    thread.start()
    while thread.is_alive():
        collect(store, untagged=True)
        thread.join(0.01)
    collect(store, untagged=True)
    assert server.call("HEAD", f"/v2/a/blobs/{orphan}").status == 404
    assert answers == [201] * len(images)
    for number, (manifest, *blobs) in enumerate(images):
        assert server.call("GET", f"/v2/a/manifests/v{number}").body == manifest
        for each in blobs:
            assert server.call("GET", f"/v2/a/blobs/{digest(each)}").body == each


KILLED = """
import os, signal, sys

left = int(sys.argv.pop(1))

def count(event, _):
    global left
    if event in ("os.remove", "os.rmdir"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

from shoal.cli.main import main
sys.addaudithook(count)
main()
"""
"""The command, killed just before the removal of a file or a folder whose number is given."""


def test_a_collection_that_is_killed(serve, serve_docker, tmp_path):
    """What is needed stays whole, and the next collection goes on."""
    root = tmp_path / "store"
    server, store = serve(root, "--delete"), Store(root)
    tags = [f"kept-{number}" for number in range(3)]
    kept = {tag: push_image(server, "a", tag, tag.encode()) for tag in tags}
    needed = set(store.layout.blobs.glob("*/*/*/data"))
    for number in range(4):
        push_image(server, "a", "gone", f"gone {number}".encode())
        push_blob(server, "b", f"of no image {number}".encode())
    server.call("DELETE", "/v2/a/manifests/gone")
    server.kill()
    age(store)
    words = ("registry", "gc", "--delete-untagged", "--root", str(root))
    for number in (1, 2, 5, 14):
        done = subprocess.run([sys.executable, "-c", KILLED, str(number), *words], stdout=subprocess.DEVNULL,
                              timeout=DEADLINE_S)
        assert done.returncode == -signal.SIGKILL
        assert needed < set(store.layout.blobs.glob("*/*/*/data"))
    collect(store, untagged=True)
    assert set(store.layout.blobs.glob("*/*/*/data")) == needed
    for each in (serve(root), serve_docker(root)):
        assert sorted(each.call("GET", "/v2/a/tags/list").json["tags"]) == tags
        for tag, found in kept.items():
            answer = each.call("GET", f"/v2/a/manifests/{tag}", Accept=pushing.OCI_MANIFEST)
            assert answer.headers["Docker-Content-Digest"] == found
            assert each.call("GET", f"/v2/a/blobs/{digest(tag.encode())}").body == tag.encode()


def test_what_a_killed_collection_left_half_removed(serve, tmp_path):
    """Folders without what they were for: of a blob, a tag, a manifest, a link to a blob."""
    root = tmp_path / "store"
    server, store, name = serve(root), Store(root), Repository("a")
    found = push_image(server, "a", "x")
    blob = push_blob(server, "a", b"of no image")
    files = [store.layout.blob(digest(b"nothing")), store.layout.tag(name, "gone"),
             store.layout.revision(name, digest(b"gone")), store.layout.layer(name, digest(b"gone"))]
    for path in files:
        path.parent.mkdir(parents=True)
    collect(store)
    assert not any(path.parent.exists() for path in files)
    assert store.resolve(name, "x") == found
    assert store.layout.blob(blob).exists()  # it is young


def test_untagged_manifests(serve, tmp_path):
    root = tmp_path / "store"
    server, store = serve(root, "--delete"), Store(root)
    kept, gone = push_image(server, "a", "kept", b"kept"), push_image(server, "a", "gone", b"gone")
    server.call("DELETE", "/v2/a/manifests/gone")
    age(store)
    assert collect(store).blobs == []
    done = subprocess.run([sys.executable, "-m", "shoal.cli.main", "registry", "gc", "--root", str(root),
                           "--delete-untagged"], capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    assert f"a@{gone}" in done.stdout
    assert digest(b"gone") in done.stdout
    assert server.call("GET", f"/v2/a/manifests/{gone}").status == 404
    assert server.call("GET", f"/v2/a/manifests/{kept}").status == 200
    assert pushing.digest(server.call("GET", f"/v2/a/blobs/{digest(b'kept')}").body) == digest(b"kept")
