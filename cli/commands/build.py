"""`shoal build`."""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from shoal.api.errors import InvalidArgument
from shoal.cli.buildcontext import STDIN, is_remote, pack, pass_on, read_dockerfile
from shoal.cli.client import Client
from shoal.cli.dockerconfig import keyring_header
from shoal.cli.output import reading, size

SECRETS_HEADER = "X-Shoal-Build-Secrets"
MAX_SECRET_BYTES = 4096
"""Of all of them: they go in a header."""


@click.command()
@click.option("-t", "--tag", multiple=True, metavar="NAME[:TAG]", help="What the image is called.")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="The Dockerfile, else PATH/Dockerfile; - reads it.")
@click.option("--build-arg", multiple=True, metavar="NAME[=VALUE]", help="An ARG; without a value, the environment's.")
@click.option("--label", multiple=True, metavar="NAME=VALUE")
@click.option("--target", default="", help="The stage to build.")
@click.option("--no-cache", is_flag=True, help="Do every step again.")
@click.option("--pull", is_flag=True, help="Ask the registry for newer images to start from.")
@click.option("--cache-from", multiple=True, metavar="IMAGE")
@click.option("--network", default="", help="Of RUN.")
@click.option("--add-host", multiple=True, metavar="NAME:ADDRESS")
@click.option("--platform", default="", metavar="OS/ARCH")
@click.option("--squash", is_flag=True, help="Make one layer of those that are new.")
@click.option("-m", "--memory", default=None, metavar="SIZE", help="Of RUN, at most.")
@click.option("--shm-size", default=None, metavar="SIZE", help="Of /dev/shm, for RUN.")
@click.option("--ulimit", multiple=True, metavar="NAME=SOFT[:HARD]", help="Of RUN.")
@click.option("--secret", multiple=True, metavar="id=ID[,src=FILE]", help="For RUN --mount=type=secret.")
@click.option("-q", "--quiet", is_flag=True, help="Say only the id of the image.")
@click.argument("path", metavar="PATH|URL|-")
@click.pass_obj
def build(client: Client, /, path: str, file: Path | None, **options: Any) -> None:
    """Build an image from the Dockerfile and the files at PATH.

    Or at a URL, which the daemon fetches: of a tar, of a Dockerfile, or of a git repository, with what to check out and
    a folder in it after a # (https://example.org/app.git#v1:sub). --file is then the Dockerfile's path in there.
    With - a tar of the files, or the Dockerfile alone, is read from standard input.
    """
    query: dict[str, Any] = {
        "t": options["tag"], "target": options["target"], "networkmode": options["network"],
        "platform": options["platform"], "nocache": options["no_cache"], "pull": options["pull"], "q": options["quiet"],
        "rm": True, "forcerm": True, "extrahosts": options["add_host"], "cachefrom": list(options["cache_from"]),
        "buildargs": arguments(options["build_arg"]),
        "labels": dict(_pair(text, "--label") for text in options["label"]),
        "squash": options["squash"], "memory": size(options["memory"]) or 0, "shmsize": size(options["shm_size"]) or 0,
        "ulimits": [ulimit(text) for text in options["ulimit"]],
    }
    headers = keyring_header()
    if options["secret"]:
        headers[SECRETS_HEADER] = encoded(options["secret"])
    if is_remote(path):
        query |= {"remote": path, "dockerfile": str(file or "")}
        _show(client.messages("POST", "/build", query, headers=headers))
        return
    with tempfile.TemporaryFile() as archive:
        query["dockerfile"] = _write(archive, path, file)
        archive.seek(0)
        with reading(archive, "sending") as content:
            _show(client.upload("/build", query, content, headers))


def _write(archive: IO[bytes], path: str, file: Path | None) -> str:
    """The context; the name of the Dockerfile in it. Raises InvalidArgument."""
    if str(file) != STDIN:
        return pass_on(sys.stdin.buffer, file, archive) if path == STDIN else pack(Path(path), file, archive)
    if path == STDIN:
        raise InvalidArgument("standard input cannot be both the files and the Dockerfile: leave --file - out")
    with tempfile.NamedTemporaryFile() as read:
        read.write(read_dockerfile(sys.stdin.buffer))
        read.flush()
        return pack(Path(path), Path(read.name), archive)


def _show(messages: Iterator[dict[str, Any]]) -> None:
    for message in messages:
        sys.stdout.write(message.get("stream") or _status(message))
        sys.stdout.flush()


def _status(message: dict[str, Any]) -> str:
    """A line of a pull, unless it is a mere figure."""
    if not message.get("status") or message.get("progress"):
        return ""
    return f"{message['id']}: {message['status']}\n" if message.get("id") else f"{message['status']}\n"


def arguments(given: tuple[str, ...]) -> dict[str, str | None]:
    """As the API has them: those of the environment are left out where it has none."""
    values = {}
    for text in given:
        name, equals, value = text.partition("=")
        if equals:
            values[name] = value
        elif name in os.environ:
            values[name] = os.environ[name]
    return dict(values)


def ulimit(text: str) -> dict[str, Any]:
    """As the API has it; a limit alone is both. Raises InvalidArgument."""
    name, value = _pair(text, "--ulimit")
    soft, _, hard = value.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError as error:
        raise InvalidArgument(f"--ulimit {text!r}: write NAME=SOFT or NAME=SOFT:HARD, as numbers") from error


def encoded(given: tuple[str, ...]) -> str:
    """The secrets, as their header has them. Raises InvalidArgument."""
    secrets: dict[str, str] = {}
    total = 0
    for text in given:
        words = dict(_pair(word, "--secret") for word in text.split(","))
        if not words.get("id") or words.keys() - {"id", "src", "source", "type"}:
            raise InvalidArgument(f"--secret {text!r}: write id=ID,src=FILE")
        place = Path(words.get("src") or words.get("source") or words["id"])
        try:
            content = place.read_bytes()
        except OSError as error:
            raise InvalidArgument(f"--secret {text!r}: {place}: {error.strerror}") from error
        total += len(content)
        if total > MAX_SECRET_BYTES:
            raise InvalidArgument(f"--secret {text!r}: all secrets together have at most {MAX_SECRET_BYTES} bytes")
        secrets[words["id"]] = base64.b64encode(content).decode()
    return base64.b64encode(json.dumps(secrets).encode()).decode()


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidArgument(f"{option} {text!r}: write NAME=VALUE")
    return name, value
