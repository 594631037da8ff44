"""What several threads decode at once is known to msgspec before they do: it crashes where two learn a type at once."""

import subprocess
import sys

import pytest

LEARNS = "get_class_annotations"
"""msgspec calls this for each type that it learns."""

SCRIPT = """
import sys
{setup}
called = set()
sys.setprofile(lambda frame, event, _: called.add(frame.f_code.co_name))
{decode}
sys.setprofile(None)
print(*called)
"""
SECCOMP = "from shoal.engine.containers.oci import seccomp"
PROFILE = b'{"defaultAction": "x", "archMap": [{"architecture": "a"}], "syscalls": [{"action": "y", "names": ["z"]}]}'
ARCHIVE = "from shoal.engine.images import archive"
MANIFESTS = "from shoal.engine.images.distribution import manifests"
DOCKER = b'[{"Config": "x"}]'
BLOB = '{{"digest": "sha256:{}", "size": 1, "mediaType": "x", "platform": {{}}}}'.format("a" * 64)
MANIFEST = f'{{"schemaVersion": 2, "config": {BLOB}, "layers": [{BLOB}]}}'.encode()


@pytest.mark.parametrize(("setup", "decode"), [
    pytest.param(SECCOMP, f"seccomp.compile_profile({PROFILE!r}, [], 'x86_64', (6, 1))", id="seccomp profiles"),
    pytest.param(MANIFESTS, f"manifests.parse_manifest({MANIFEST!r})", id="manifests of images"),
    pytest.param(ARCHIVE, f"archive._decode({DOCKER!r}, archive._docker_manifests, 'it')", id="docker archives"),
    pytest.param(ARCHIVE, "archive._decode(b'{\"manifests\": [{}]}', archive._names, 'it')", id="names in indexes"),
])
def test_no_type_is_learned_in_a_thread(setup: str, decode: str) -> None:
    assert LEARNS not in called_by(setup, decode)


def test_that_a_type_is_learned_would_be_seen() -> None:
    setup = "import msgspec\nclass Late(msgspec.Struct):\n    x: int"
    assert LEARNS in called_by(setup, "msgspec.json.decode(b'{\"x\": 1}', type=Late)")


def called_by(setup: str, decode: str) -> list[str]:
    """The names of the functions that it calls, in a process that has done nothing else."""
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(setup=setup, decode=decode)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
