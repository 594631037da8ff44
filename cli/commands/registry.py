"""`shoal registry`: an OCI registry on this host, or as a service of the swarm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from shoal.api.errors import InvalidArgument
from shoal.cli.client import Client, ClientError
from shoal.cli.output import reading

_root = click.option("--root", type=click.Path(path_type=Path, file_okay=False), default="/var/lib/shoal-registry",
                     show_default=True, help="Where it keeps what it holds, as Docker's registry lays it out.")
_file = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def registry() -> None:
    """A registry that images are pushed to and pulled from."""


@registry.command()
@_root
@click.option("--listen", default="127.0.0.1:5000", show_default=True, metavar="HOST:PORT")
@click.option("--tls-cert", type=_file)
@click.option("--tls-key", type=_file)
@click.option("--htpasswd", type=_file, help="Users and bcrypt hashes (htpasswd -B).")
@click.option("--token-realm", default="", metavar="URL", help="Where clients get tokens.")
@click.option("--token-service", default="", help="Whom the tokens are for.")
@click.option("--token-issuer", default="", help="Who signs them.")
@click.option("--token-key", "token_keys", type=_file, multiple=True, help="Public key or certificate of the issuer.")
@click.option("--proxy", default="", metavar="URL", help="Be a cache of this registry.")
@click.option("--proxy-user", default="")
@click.option("--proxy-password-file", type=_file)
@click.option("--proxy-ttl", "proxy_tag_ttl_s", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS",
              help="How long a tag is served before it is compared again; by default each time.")
@click.option("--delete", "deletes", is_flag=True, help="Allow tags, manifests and blobs to be deleted.")
def serve(root: Path, listen: str, tls_cert: Path | None, tls_key: Path | None, htpasswd: Path | None, token_realm: str,
          token_service: str, token_issuer: str, token_keys: tuple[Path, ...], proxy: str, proxy_user: str,
          proxy_password_file: Path | None, proxy_tag_ttl_s: float, deletes: bool) -> None:
    """Serve until interrupted."""
    import asyncio

    from shoal.registry import serving

    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"--listen is {listen!r}; it has to be HOST:PORT")
    if proxy and not proxy.startswith(("http://", "https://")):
        raise InvalidArgument(f"--proxy is {proxy!r}; it has to be a URL")
    if bool(proxy_user) != bool(proxy_password_file):
        raise InvalidArgument("--proxy-user and --proxy-password-file go together")
    # Not uvloop: it has no sendfile.
    password = proxy_password_file.read_text().strip() if proxy_password_file else ""
    asyncio.run(serving.serve(serving.Settings(
        root=root, host=host.strip("[]") or "0.0.0.0", port=int(port),  # noqa: S104 # :PORT means every address
        tls_cert=tls_cert, tls_key=tls_key, htpasswd=htpasswd, token_realm=token_realm, token_service=token_service,
        token_issuer=token_issuer, token_keys=token_keys, proxy=proxy,
        proxy_credentials=(proxy_user, password) if proxy_user else None, proxy_tag_ttl_s=proxy_tag_ttl_s,
        deletes=deletes,
    )))


@registry.command()
@_root
@click.option("--grace", "grace_s", default=3600.0, show_default=True, metavar="SECONDS",
              help="Keep what was touched since: what pushes may count on.")
@click.option("--delete-untagged", "untagged", is_flag=True, help="Also manifests that no tag leads to.")
@click.option("--dry-run", "dry", is_flag=True, help="Only say what would go.")
def gc(root: Path, grace_s: float, untagged: bool, dry: bool) -> None:
    """Remove blobs that no manifest needs; `serve` may go on meanwhile."""
    from shoal.registry.collector import collect
    from shoal.registry.store import Store

    if grace_s < 0:
        raise InvalidArgument("--grace cannot be negative")
    if not (root / "docker/registry/v2").is_dir():
        raise InvalidArgument(f"no registry lies in {root}")
    gone = collect(Store(root), grace_s, untagged=untagged, dry=dry)
    for each in [*gone.manifests, *gone.blobs]:
        click.echo(each)
    verb = "would go" if dry else "removed"
    click.echo(f"{len(gone.manifests)} manifests, {len(gone.blobs)} blobs, {gone.bytes} bytes {verb}", err=True)


@registry.command(context_settings={"ignore_unknown_options": True})
@click.option("--name", default="registry", show_default=True, help="Of the service.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True,
              help="On which this host serves it.")
@click.option("--volume", default="shoal-registry", show_default=True, help="Which holds its images.")
@click.option("--settings", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="FOLDER",
              help="The container has it at /etc/registry, read-only: users, keys, certificates.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait until it runs.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- SERVE-OPTION…]")
@click.pass_obj
def deploy(client: Client, name: str, port: int, volume: str, settings: Path | None, detach: bool,
           options: tuple[str, ...]) -> None:
    """Run a registry as a service of the swarm, on the node that the daemon is.

    The image is made of this host's Python and packages; nothing is fetched. What comes after -- is given to `shoal
    registry serve`. Deployed again, the service is changed.
    """
    from shoal.cli.commands.service import converge
    from shoal.registry import deployment

    node_id, before = _manager(client), _deployed(client, name)
    spec = deployment.specification(name, _load_image(client), node_id, port, volume,
                                    str(settings.absolute()) if settings else "", options)
    if before is None:
        service_id = client.call("POST", "/services/create", body=spec)["ID"]
    else:
        service_id = before["ID"]
        client.call("POST", f"/services/{service_id}/update", {"version": before["Version"]["Index"]}, spec)
    click.echo(service_id)
    if not detach:
        converge(client, service_id)


def _deployed(client: Client, name: str) -> dict[str, Any] | None:
    """The service of that name, where this command made it. Raises ClientError where it is another."""
    from shoal.registry import deployment

    found = client.call("GET", "/services", {"filters": {"name": [name]}})
    service: dict[str, Any] | None = next((each for each in found if each["Spec"]["Name"] == name), None)
    if service is not None and deployment.LABEL not in (service["Spec"].get("Labels") or {}):
        raise ClientError(f"there is a service {name} that is no registry of this command; choose another --name")
    return service


def _manager(client: Client) -> str:
    """The id of the daemon's node. Raises ClientError where it cannot take services, or is another kind of machine."""
    from shoal.registry import contents

    info = client.call("GET", "/info")
    swarm = info.get("Swarm") or {}
    if not swarm.get("ControlAvailable"):
        raise ClientError("the daemon is no manager of a swarm; run `shoal swarm init`, or ask a manager")
    theirs, ours = info.get("Architecture"), contents.machine()
    if theirs != ours:
        raise ClientError(f"the daemon's host is {theirs}, this one {ours}; run the command there")
    return str(swarm["NodeID"])


def _load_image(client: Client) -> str:
    """See that the daemon has the image of this code; its name there."""
    import tempfile

    from shoal.registry import image

    with tempfile.TemporaryDirectory() as folder:
        packed = image.pack(Path(folder))
        try:
            client.call("GET", f"/images/{packed.reference}/json")
        except ClientError as error:
            if error.code != 404:
                raise
            with packed.archive.open("rb") as archive, reading(archive, "sending") as content:
                for _ in client.upload("/images/load", {"quiet": True}, content):
                    pass
        return packed.reference
