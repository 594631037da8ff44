"""An image as the rest of the engine sees it, read once from its OCI configuration.

Pure: bytes in, nouns out. What is written is made in `build_config`, so that
reading and writing of the format stay side by side.

Source of the format: OCI image specification, config.md.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from shoal.api.errors import InvalidArgument
from shoal.api.reference import is_digest
from shoal.api.specs import HealthCheck

SUPPORTED_OS = "linux"


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an image asks of the containers made from it."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    labels: dict[str, str] = {}
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    volumes: tuple[str, ...] = ()  # paths
    stop_signal: str = ""
    healthcheck: HealthCheck | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class Image(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image that is here, whole. `id` is the digest of its configuration."""

    id: str  # sha256:…
    config: ImageConfig = ImageConfig()
    repo_tags: tuple[str, ...] = ()  # familiar names, sorted
    repo_digests: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()  # diff ids, lowest first
    size: int = 0  # bytes, of the unpacked layers
    created: str = ""  # RFC 3339
    architecture: str = ""
    variant: str = ""
    os: str = SUPPORTED_OS
    author: str = ""
    comment: str = ""
    last_tagged: float = 0.0  # seconds since the epoch
    history: tuple[HistoryEntry, ...] = ()


_Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class _Health(msgspec.Struct, rename="pascal"):
    test: list[str] | None = None
    interval: _Int64 | None = None
    timeout: _Int64 | None = None
    start_period: _Int64 | None = None
    start_interval: _Int64 | None = None
    retries: _Int64 | None = None


class _Config(msgspec.Struct, rename="pascal"):
    """`config` of the OCI document; clients and old tools write null for what is absent."""

    user: str | None = None
    env: list[str] | None = None
    entrypoint: list[str] | str | None = None
    cmd: list[str] | str | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    exposed_ports: dict[str, Any] | None = None
    volumes: dict[str, Any] | None = None
    stop_signal: str | None = None
    healthcheck: _Health | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None


class _RootFS(msgspec.Struct):
    type: str = "layers"
    diff_ids: list[str] | None = None


class _History(msgspec.Struct):
    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class _Document(msgspec.Struct):
    architecture: str | None = None
    variant: str | None = None
    os: str | None = None
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    config: _Config | None = None
    rootfs: _RootFS | None = None
    history: list[_History] | None = None


_decoder = msgspec.json.Decoder(_Document)


def parse_config(raw: bytes, image_id: str) -> Image:
    """The image that the OCI configuration `raw` describes; tags and size are left to the caller.

    Raises InvalidArgument where it is not such a document, or not for Linux.
    """
    try:
        document = _decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidArgument(f"invalid image configuration {image_id}: {error}") from error
    os = document.os or SUPPORTED_OS
    if os != SUPPORTED_OS:
        raise InvalidArgument(f'image operating system "{os}" cannot be used on this platform')
    layers = tuple((document.rootfs or _RootFS()).diff_ids or ())
    if not all(map(is_digest, layers)):
        raise InvalidArgument(f"invalid image configuration {image_id}: a layer is named by no digest")
    config = document.config or _Config()
    return Image(
        id=image_id,
        config=ImageConfig(
            user=config.user or "",
            env=tuple(config.env or ()),
            entrypoint=_words(config.entrypoint),
            cmd=_words(config.cmd),
            working_dir=config.working_dir or "",
            labels=config.labels or {},
            exposed_ports=tuple(config.exposed_ports or ()),
            volumes=tuple(config.volumes or ()),
            stop_signal=config.stop_signal or "",
            healthcheck=_healthcheck(config.healthcheck),
            shell=tuple(config.shell or ()),
            on_build=tuple(config.on_build or ()),
        ),
        layers=layers,
        created=document.created or "",
        architecture=document.architecture or "",
        variant=document.variant or "",
        os=os,
        author=document.author or "",
        comment=document.comment or "",
        history=tuple(
            HistoryEntry(
                created=entry.created or "",
                created_by=entry.created_by or "",
                author=entry.author or "",
                comment=entry.comment or "",
                empty_layer=bool(entry.empty_layer),
            )
            for entry in document.history or ()
        ),
    )


def build_config(image: Image) -> bytes:
    """The OCI configuration of a new image; its digest is the image's id. `image.id` is ignored."""
    document: dict[str, Any] = {
        "architecture": image.architecture,
        "author": image.author,
        "comment": image.comment,
        "config": config_json(image.config),
        "created": image.created,
        "history": [
            {key: value for key, value in msgspec.to_builtins(entry).items() if value}
            for entry in image.history
        ],
        "os": image.os,
        "rootfs": {"type": "layers", "diff_ids": list(image.layers)},
        "variant": image.variant,
    }
    return msgspec.json.encode({key: value for key, value in document.items() if value not in ("", [])})


def config_json(config: ImageConfig) -> dict[str, Any]:
    """The `Config` of an image as the API and the OCI document write it."""
    health = config.healthcheck
    body: dict[str, Any] = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Env": list(config.env),
        "Cmd": list(config.cmd),
        "Entrypoint": list(config.entrypoint),
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.working_dir,
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "Shell": list(config.shell),
        "OnBuild": list(config.on_build),
    }
    if health is not None:
        body["Healthcheck"] = {
            "Test": list(health.test),
            "Interval": health.interval_ns,
            "Timeout": health.timeout_ns,
            "StartPeriod": health.start_period_ns,
            "StartInterval": health.start_interval_ns,
            "Retries": health.retries,
        }
    return {key: value for key, value in body.items() if value}


def _words(value: list[str] | str | None) -> tuple[str, ...]:
    if isinstance(value, str):  # written so by some old builders
        return ("/bin/sh", "-c", value)
    return tuple(value or ())


def _healthcheck(found: _Health | None) -> HealthCheck | None:
    if found is None or not found.test:
        return None
    return HealthCheck(
        test=tuple(found.test),
        interval_ns=found.interval or 0,
        timeout_ns=found.timeout or 0,
        start_period_ns=found.start_period or 0,
        start_interval_ns=found.start_interval or 0,
        retries=found.retries or 0,
    )
