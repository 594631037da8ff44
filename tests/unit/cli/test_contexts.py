"""Contexts as files, and which daemon a command goes to."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from shoal.cli.contexts import Context, ContextError, Contexts
from shoal.cli.endpoint import DEFAULT_HOST, Endpoint, EndpointError, resolve, ssh_command

FAR = "tcp://10.0.0.1:2376"


@pytest.fixture
def contexts(tmp_path: Path) -> Contexts:
    made = Contexts(tmp_path / "shoal")
    (tmp_path / "ca").write_text("a certificate")
    made.create(Context("far", FAR, "far away"), {"ca.pem": tmp_path / "ca"})
    made.create(Context("near", "unix:///near.sock"), {})
    return made


def test_what_was_kept_is_found(contexts: Contexts, tmp_path: Path) -> None:
    tls = tmp_path / "shoal" / "contexts" / "far" / "tls"
    assert contexts.get("far") == Context("far", FAR, "far away", False, tls)
    assert (tls / "ca.pem").read_text() == "a certificate"
    assert stat.S_IMODE((tls / "ca.pem").stat().st_mode) == 0o600
    assert [each.name for each in contexts.all()] == ["default", "far", "near"]


def test_one_that_is_removed_is_no_longer_used(contexts: Contexts) -> None:
    contexts.use("near")
    assert contexts.current() == "near"
    contexts.remove("near")
    assert contexts.current() == "default"
    with pytest.raises(ContextError, match="no context 'near'"):
        contexts.get("near")


@pytest.mark.parametrize(("name", "host", "said"), [
    ("far", "unix:///x", "exists already"),
    ("default", "unix:///x", "exists already"),
    ("../up", "unix:///x", "can be no context's name"),
    ("-x", "unix:///x", "can be no context's name"),
    ("new", "http://x", "is no host"),
    ("new", "x", "is no host"),
])
def test_what_cannot_be_one_is_refused(contexts: Contexts, name: str, host: str, said: str) -> None:
    with pytest.raises(ContextError, match=said):
        contexts.create(Context(name, host), {})


def test_nothing_is_left_of_one_that_failed(contexts: Contexts, tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="cannot be kept"):
        contexts.create(Context("new", FAR), {"ca.pem": tmp_path / "nothing"})
    assert [each.name for each in contexts.all()] == ["default", "far", "near"]
    assert not list((tmp_path / "shoal" / "contexts").glob(".*"))


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense"])
def test_a_broken_file_is_named(contexts: Contexts, tmp_path: Path, text: str) -> None:
    (tmp_path / "shoal" / "contexts" / "far" / "context.json").write_text(text)
    with pytest.raises(ContextError, match="context 'far' cannot be read"):
        contexts.get("far")


CERTIFICATES = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certificates"}


@pytest.mark.parametrize(("host", "context", "environment", "expected"), [
    pytest.param(None, None, {}, Endpoint(DEFAULT_HOST), id="this host's"),
    pytest.param("unix:///x", None, {"SHOAL_HOST": "unix:///y"}, Endpoint("unix:///x"), id="the option first"),
    pytest.param(None, "near", {"SHOAL_HOST": "unix:///y"}, Endpoint("unix:///near.sock"), id="then the context"),
    pytest.param(None, None, {"SHOAL_HOST": "unix:///y", "SHOAL_CONTEXT": "near"}, Endpoint("unix:///y"),
                 id="SHOAL_HOST"),
    pytest.param(None, None, {"SHOAL_CONTEXT": "near", "DOCKER_HOST": "unix:///z"}, Endpoint("unix:///near.sock"),
                 id="SHOAL_CONTEXT"),
    pytest.param(None, None, {"DOCKER_HOST": "unix:///z", **CERTIFICATES}, Endpoint("unix:///z"), id="DOCKER_HOST"),
    pytest.param(None, None, {"DOCKER_HOST": FAR, **CERTIFICATES},
                 Endpoint(FAR, tls=True, certificates=Path("/certificates")), id="with certificates"),
    pytest.param(FAR, None, {}, Endpoint(FAR), id="without"),
])
def test_where_a_command_goes(contexts: Contexts, tmp_path: Path, host: str | None, context: str | None,
                              environment: dict[str, str], expected: Endpoint) -> None:
    assert resolve(host, context, {"SHOAL_CONFIG": str(tmp_path / "shoal"), **environment}) == expected


def test_the_context_in_use_is_the_last_word(contexts: Contexts, tmp_path: Path) -> None:
    environment = {"SHOAL_CONFIG": str(tmp_path / "shoal")}
    contexts.use("far")
    assert resolve(None, None, environment) == Endpoint(FAR, tls=True, certificates=contexts.get("far").certificates)
    assert resolve(None, None, {**environment, "DOCKER_HOST": "unix:///z"}) == Endpoint("unix:///z")
    with pytest.raises(ContextError, match="not both"):
        resolve("unix:///x", "near", environment)


def test_what_ssh_is_asked() -> None:
    command = ssh_command("ssh://me@host:99")
    assert command[:-1] == ["ssh", "-T", "-o", "ConnectTimeout=30", "-l", "me", "-p", "99", "--", "host"]
    assert "dial-stdio" in ssh_command("ssh://host")[-1]


@pytest.mark.parametrize("host", ["ssh://", "ssh://-oProxyCommand=x", "ssh://-x@host", "ssh://me:secret@host", "ssh://h:x"])
def test_what_ssh_is_not_asked(host: str) -> None:
    with pytest.raises(EndpointError):
        ssh_command(host)
