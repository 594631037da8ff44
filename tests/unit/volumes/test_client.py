"""Calls of a plugin over a socket and over TLS; answers of every kind, deadlines, and who is not there."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from shoal.engine.volumes.client import PluginClient, PluginRefused, PluginUnreachable
from shoal.engine.volumes.discovery import TLS, Discovery, Endpoint
from shoal.engine.volumes.drivers import Drivers
from shoal.engine.volumes.local import LocalDriver
from shoal.engine.volumes.nouns import Volume


class Plugin:
    """What it answers to each method; a coroutine function, or JSON."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {"Plugin.Activate": {"Implements": ["VolumeDriver"]}}
        self.asked: list[tuple[str, object]] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        method = request.path.removeprefix("/")
        assert request.headers["Accept"] == "application/vnd.docker.plugins.v1.2+json"
        self.asked.append((method, await request.json()))
        answer = self.answers.get(method, {"Err": ""})
        if callable(answer):
            return await answer(request)  # type: ignore[no-any-return]
        return web.json_response(answer)

    async def start(self, path: Path) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/{method}", self.serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(path)).start()
        return runner


@pytest.fixture
async def plugin(tmp_path: Path) -> AsyncIterator[Plugin]:
    made = Plugin()
    runner = await made.start(tmp_path / "box.sock")
    yield made
    await runner.cleanup()


@pytest.fixture
def client(tmp_path: Path) -> PluginClient:
    return PluginClient("box", Endpoint(path=str(tmp_path / "box.sock")), first_pause_s=0.01, silent_timeout_s=0.05)


async def test_call(plugin: Plugin, client: PluginClient) -> None:
    assert await client.call("Plugin.Activate", timeout_s=5) == {"Implements": ["VolumeDriver"]}
    await client.call("VolumeDriver.Get", {"Name": "ä"}, timeout_s=5)
    assert plugin.asked == [("Plugin.Activate", {}), ("VolumeDriver.Get", {"Name": "ä"})]


async def _hang(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def _drip(request: web.Request) -> web.StreamResponse:
    """An answer that never comes to its end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


async def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(("answer", "kind", "said"), [
    pytest.param({"Err": "no"}, PluginRefused, "^no$", id="an error"),
    pytest.param(lambda r: _status(500, b'{"Err": "no"}'), PluginRefused, "^X: no$", id="an error by its status"),
    pytest.param(lambda r: _status(404, b"nothing"), PluginRefused, "^X: nothing$", id="an error as text"),
    pytest.param(lambda r: _status(302, b""), PluginRefused, "status 302", id="no redirection is followed"),
    pytest.param(lambda r: _status(200, b"[]"), PluginRefused, "did not answer with a JSON object", id="another kind"),
    pytest.param(lambda r: _status(200, b"\xff{"), PluginRefused, "did not answer with a JSON object", id="no JSON"),
    pytest.param(lambda r: _status(200, b" " * (5 << 20)), PluginRefused, "answered more than", id="too much"),
    pytest.param(_hang, PluginUnreachable, "did not answer in 0.3 s", id="nothing"),
    pytest.param(_drip, PluginUnreachable, "did not answer in 0.3 s", id="for ever"),
    pytest.param(_cut, PluginUnreachable, "broke off before it had answered", id="broken off"),
])
async def test_answers(plugin: Plugin, client: PluginClient, answer: object, kind: type[Exception], said: str) -> None:
    plugin.answers["X"] = answer
    with pytest.raises(kind, match=said):
        await client.call("X", timeout_s=0.3 if answer in (_hang, _drip) else 10)
    assert len(plugin.asked) == 1, "what was reached is asked once"


async def _status(status: int, content: bytes) -> web.Response:
    return web.Response(status=status, body=content)


async def test_one_that_is_not_there_is_tried_again(tmp_path: Path, client: PluginClient) -> None:
    calling = asyncio.create_task(client.call("Plugin.Activate", timeout_s=10))
    await asyncio.sleep(0)
    made = Plugin()
    runner = await made.start(tmp_path / "box.sock")
    assert "Implements" in await calling
    await runner.cleanup()
    began = time.monotonic()
    with pytest.raises(PluginUnreachable, match="cannot be reached"):
        await client.call("X", timeout_s=0.2)
    assert time.monotonic() - began < 1
    with pytest.raises(PluginUnreachable, match="cannot be reached"):
        await client.call("X", timeout_s=10, retry=False)


async def test_silent_one_holds_up_nobody_for_long(plugin: Plugin, client: PluginClient) -> None:
    plugin.answers["X"] = _hang
    with pytest.raises(PluginUnreachable):
        await client.call("X", timeout_s=0.2)
    with pytest.raises(PluginUnreachable, match=r"0.05 s"):
        await client.call("X", timeout_s=60, brief=True)
    await client.call("Y", timeout_s=60)  # it answers again
    with pytest.raises(PluginUnreachable, match=r"0.2 s"):
        await client.call("X", timeout_s=0.2, brief=True)


async def test_tls(tmp_path: Path) -> None:
    """Both sides show a certificate; who is not trusted is not asked."""
    ca, cert, key = _certificates(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca))
    context.load_cert_chain(cert, key)
    context.verify_mode = ssl.CERT_REQUIRED
    made, app = Plugin(), web.Application()
    app.router.add_post("/{method}", made.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    host = f"127.0.0.1:{runner.addresses[0][1]}"
    trusting = TLS(ca_file=str(ca), cert_file=str(cert), key_file=str(key))
    try:
        assert "Implements" in await PluginClient("t", Endpoint(host=host, tls=trusting)).call(
            "Plugin.Activate", timeout_s=10)
        for tls in (TLS(), TLS(insecure_skip_verify=True), TLS(ca_file="/nowhere")):
            with pytest.raises(PluginUnreachable):
                await PluginClient("t", Endpoint(host=host, tls=tls)).call("X", timeout_s=10, retry=False)
        assert len(made.asked) == 1
    finally:
        await runner.cleanup()


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "plugin")])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256()))
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                         serialization.NoEncryption()))
    return cert, cert, secret


# --- the driver on top of it ---


async def test_what_a_driver_makes_of_answers(plugin: Plugin, tmp_path: Path) -> None:
    drivers = Drivers(LocalDriver(tmp_path / "volumes"), Discovery([str(tmp_path)]))
    assert drivers.names() == ["local", "box"]
    driver = await drivers.plugin("box")
    plugin.answers |= {
        "VolumeDriver.Capabilities": {"Capabilities": {"Scope": "GLOBAL"}},
        "VolumeDriver.Get": {"Volume": {"Name": "v", "Mountpoint": "relative", "Status": ["no", "object"],
                                        "CreatedAt": "2026-01-02T03:04:05.5+01:00"}},
        "VolumeDriver.List": {"Volumes": [{"Name": "v"}, {"Name": ""}, 7, {"Name": "w", "Mountpoint": "/w"}]},
        "VolumeDriver.Mount": {"Mountpoint": "not/absolute"},
    }
    assert await driver.scope() == "global"
    told = await driver.get("v")
    assert told is not None
    assert (told.mountpoint, told.status, told.created_ns) == ("", {}, 1767319445_500_000_000)
    assert [(each.name, each.mountpoint) for each in await driver.list()] == [("v", ""), ("w", "/w")]
    with pytest.raises(PluginRefused, match="no absolute path"):
        await driver.mount(Volume(name="v"), "c1")


async def test_known_volume_is_gone_only_if_the_list_says_so(plugin: Plugin, tmp_path: Path) -> None:
    """A plugin that has lost its servers refuses everything; its volumes are not to be made anew for that."""
    driver = await Drivers(LocalDriver(tmp_path / "volumes"), Discovery([str(tmp_path)])).plugin("box")
    plugin.answers |= {"VolumeDriver.Get": {"Err": "no route"}, "VolumeDriver.List": {"Volumes": [{"Name": "other"}]}}
    assert await driver.get("v", known=True) is None
    plugin.answers["VolumeDriver.List"] = {"Err": "no route either"}
    assert await driver.get("v") is None
    with pytest.raises(PluginRefused, match="no route either"):
        await driver.get("v", known=True)
    plugin.answers["VolumeDriver.List"] = {"Volumes": [{"Name": "v"}]}
    with pytest.raises(PluginRefused, match="no route"):
        await driver.get("v", known=True)


async def test_plugins_of_another_kind(plugin: Plugin, tmp_path: Path) -> None:
    plugin.answers["Plugin.Activate"] = {"Implements": ["NetworkDriver"]}
    drivers = Drivers(LocalDriver(tmp_path / "volumes"), Discovery([str(tmp_path)]))
    assert await drivers.plugins() == ([], [])
    assert drivers.names() == ["local"]
