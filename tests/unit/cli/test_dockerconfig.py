"""Accounts as the docker command keeps them."""

import base64
import json
from pathlib import Path

import pytest

from shoal.api.errors import InvalidArgument
from shoal.cli import dockerconfig

HELPER = """\
#!/bin/sh
read -r server
case "$1 $server" in
    "list ") echo '{"one.example.org": "me", "gone.example.org": "me"}' ;;
    "get one.example.org") echo '{"ServerURL": "one.example.org", "Username": "me", "Secret": "pw"}' ;;
    "get two.example.org") echo '{"Username": "<token>", "Secret": "tok"}' ;;
    "get gone.example.org") echo 'credentials not found in native keychain'; exit 1 ;;
    *) echo "the keychain is locked"; exit 1 ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    helper = tmp_path / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    return tmp_path


def write(folder: Path, document: object) -> None:
    (folder / "config.json").write_text(json.dumps(document))


def test_no_file_means_no_accounts(folder: Path) -> None:
    assert dockerconfig.accounts() == {}
    assert dockerconfig.keyring_header() == {}


def test_of_the_file(folder: Path) -> None:
    write(folder, {"auths": {"a:5000": {"auth": base64.b64encode(b"me:p:w").decode()}, "b": {"identitytoken": "t"},
                             "c": {}}})
    assert dockerconfig.accounts() == {"a:5000": {"username": "me", "password": "p:w"}, "b": {"identitytoken": "t"}}
    sent = dockerconfig.keyring_header()["X-Registry-Config"]
    assert json.loads(base64.urlsafe_b64decode(sent)) == dockerconfig.accounts()


def test_of_helpers(folder: Path) -> None:
    write(folder, {"auths": {"one.example.org": {}}, "credsStore": "test",
                   "credHelpers": {"two.example.org": "test"}})
    assert dockerconfig.accounts() == {"one.example.org": {"username": "me", "password": "pw"},
                                       "two.example.org": {"identitytoken": "tok"}}


@pytest.mark.parametrize(("reference", "found"), [
    ("a:5000/x", {"username": "me", "password": "p:w"}),
    ("busybox", {"username": "hub", "password": "p"}),
    ("old.example.org/x:v1", {"username": "old", "password": "p"}),
    ("two.example.org/x", {"identitytoken": "tok"}),
    ("other.example.org/x", {}),
    ("a/x", {"username": "hub", "password": "p"}),
])
def test_the_one_for_an_image(folder: Path, reference: str, found: dict[str, str]) -> None:
    """No other helper is asked than the one that may know."""
    def kept(account: str) -> dict[str, str]:
        return {"auth": base64.b64encode(account.encode()).decode()}

    write(folder, {"auths": {"a:5000": kept("me:p:w"), "https://index.docker.io/v1/": kept("hub:p"),
                             "https://old.example.org/v1/": kept("old:p"), "other.example.org": {}},
                   "credHelpers": {"two.example.org": "test", "locked": "test"}})
    sent = dockerconfig.account_header(reference)
    assert (json.loads(base64.urlsafe_b64decode(sent["X-Registry-Auth"])) if sent else {}) == found


def test_the_one_that_the_helper_of_all_has(folder: Path) -> None:
    write(folder, {"credsStore": "test"})
    assert dockerconfig.account_at("one.example.org") == {"username": "me", "password": "pw"}
    assert dockerconfig.account_at("gone.example.org") == {}


@pytest.mark.parametrize(("document", "said"), [
    ({"auths": {"a": {"auth": "!"}}}, "config.json"),
    ([], "not a JSON object"),
    ({"credsStore": "absent"}, "docker-credential-absent"),
    ({"credHelpers": {"locked": "test"}}, "the keychain is locked"),
])
def test_what_is_wrong_is_named(folder: Path, document: object, said: str) -> None:
    write(folder, document)
    with pytest.raises(InvalidArgument, match=said):
        dockerconfig.accounts()
