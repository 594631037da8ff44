"""`shoal registry`: an OCI registry on this host."""

from __future__ import annotations

from pathlib import Path

import click

from shoal.api.errors import InvalidArgument

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
@click.option("--delete", "deletes", is_flag=True, help="Allow tags, manifests and blobs to be deleted.")
def serve(root: Path, listen: str, tls_cert: Path | None, tls_key: Path | None, htpasswd: Path | None, token_realm: str,
          token_service: str, token_issuer: str, token_keys: tuple[Path, ...], proxy: str, proxy_user: str,
          proxy_password_file: Path | None, deletes: bool) -> None:
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
        proxy_credentials=(proxy_user, password) if proxy_user else None, deletes=deletes,
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
