"""Accounts that come with a build."""

import base64
import json

import pytest

from shoal.api import reference
from shoal.api.errors import InvalidArgument
from shoal.engine.images.distribution.challenges import ANONYMOUS, Credentials
from shoal.engine.images.distribution.keyring import account_for, parse_keyring


def header(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


def test_each_registry_has_its_own_account() -> None:
    keyring = parse_keyring(header({
        "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
        "example.org:5000": {"auth": base64.b64encode(b"me:secret").decode()},
        "https://token.example.org/v2/": {"identitytoken": "t"},
        "empty.example.org": None,
    }))
    assert account_for(keyring, reference.parse("busybox")) == Credentials("hub", "p")
    assert account_for(keyring, reference.parse("example.org:5000/a/b:v1")) == Credentials("me", "secret")
    assert account_for(keyring, reference.parse("token.example.org/a")) == Credentials(identity_token="t")
    assert account_for(keyring, reference.parse("empty.example.org/a")) == ANONYMOUS
    assert account_for(keyring, reference.parse("other.example.org/a")) == ANONYMOUS


@pytest.mark.parametrize("said", ["", header({}), header(None)])
def test_nobody(said: str) -> None:
    assert account_for(parse_keyring(said), reference.parse("busybox")) == ANONYMOUS


@pytest.mark.parametrize("said", [
    "!", header([1]), header({"a": 1}), header({"a": {"auth": "!"}}), header({"a b": {}}), "A" * 40_000])
def test_what_is_wrong_is_named(said: str) -> None:
    with pytest.raises(InvalidArgument, match=r"X-Registry-Config|registry name"):
        parse_keyring(said)
