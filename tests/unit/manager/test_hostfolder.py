"""What a manager keeps on disk, and which log an identity may speak for."""

import stat

import pytest

from shoal.api.errors import Conflict, ShoalError
from shoal.api.membership import Identity
from shoal.api.states import Role
from shoal.manager.hostfolder import HostFolder


@pytest.fixture
def folder(tmp_path):
    return HostFolder(tmp_path)


def with_log(folder, name, data=b"journal"):
    (folder.raft / name).mkdir(parents=True, exist_ok=True)
    (folder.raft / name / "journal").write_bytes(data)
    return name


def test_a_new_join_has_a_name_of_its_own_each_time(folder):
    names = {folder.new_join("r1") for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("r1-") for name in names)
    assert len(list(folder.raft.iterdir())) == 1, "what was before is gone"


@pytest.mark.parametrize(("logs", "found"), [
    pytest.param({}, None, id="never joined"),
    pytest.param({"r1-a": b"log"}, "r1-a", id="its own"),
    pytest.param({"r0-a": b"log"}, None, id="of an earlier membership"),
    pytest.param({"r1-a": b""}, None, id="cut off before the first record"),
    pytest.param({"r0-a": b"log", "r1-b": b"log"}, "r1-b", id="beside an old one"),
])
def test_found_join(folder, logs, found):
    for name, data in logs.items():
        with_log(folder, name, data)
    assert folder.found_join("r1") == found


def test_two_logs_of_one_identity_are_not_chosen_from(folder):
    with_log(folder, "r1-a")
    with_log(folder, "r1-b")
    with pytest.raises(ShoalError, match="logs of several joins"):
        folder.found_join("r1")


def test_files_are_for_root_alone(folder):
    folder.save_certificate("key", "certificate", "root")
    folder.save_identity(Identity(node_id="n", cluster_id="c", role=Role.MANAGER, advertise_addr="192.0.2.1"))
    for path in folder.folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert folder.identity().node_id == "n"
    assert stat.S_IMODE(folder.folder.stat().st_mode) == 0o700


def test_no_identity_is_no_error_and_a_broken_one_is(folder):
    assert folder.identity() is None
    folder.folder.mkdir()
    (folder.folder / "identity.json").write_text('{"node_id": ')
    with pytest.raises(ShoalError, match=r"identity.json cannot be used"):
        folder.identity()


def test_a_second_process_is_refused(folder):
    folder.lock(wait_s=0.0)
    with pytest.raises(Conflict, match=r"in use by another manager process \(pid \d+\)"):
        HostFolder(folder.data_root).lock(wait_s=0.0)
