"""Instructions of `docker import -c`."""

import pytest

from shoal.api.errors import InvalidArgument
from shoal.api.specs import HealthCheck
from shoal.engine.images.changes import apply_changes, duration_ns
from shoal.engine.images.config import Image, ImageConfig, build_config, parse_config


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["a", "b c"]'], ImageConfig(cmd=("a", "b c"))),
        (["CMD a b"], ImageConfig(cmd=("/bin/sh", "-c", "a b"))),
        (['cmd ["a"]', 'CMD ["b"]'], ImageConfig(cmd=("b",))),
        (['ENTRYPOINT ["/e"]'], ImageConfig(entrypoint=("/e",))),
        (["ENV A=1 B='two words'", "ENV A=3"], ImageConfig(env=("A=3", "B=two words"))),
        (["ENV A the rest of it"], ImageConfig(env=("A=the rest of it",))),
        (["LABEL a=b c.d=e"], ImageConfig(labels={"a": "b", "c.d": "e"})),
        (["EXPOSE 80 53/udp", "EXPOSE 80"], ImageConfig(exposed_ports=("80/tcp", "53/udp"))),
        (["VOLUME /a /b", 'VOLUME ["/c"]'], ImageConfig(volumes=("/a", "/b", "/c"))),
        (["WORKDIR /a", "WORKDIR b"], ImageConfig(working_dir="/a/b")),
        (["USER 1000:1000"], ImageConfig(user="1000:1000")),
        (["STOPSIGNAL SIGINT"], ImageConfig(stop_signal="SIGINT")),
        (
            ["HEALTHCHECK --interval=5s --retries=3 CMD curl localhost"],
            ImageConfig(
                healthcheck=HealthCheck(test=("CMD-SHELL", "curl localhost"), interval_ns=5 * 10**9, retries=3)
            ),
        ),
        (["HEALTHCHECK NONE"], ImageConfig(healthcheck=HealthCheck(test=("NONE",)))),
    ],
)
def test_applied(changes: list[str], expected: ImageConfig) -> None:
    assert apply_changes(ImageConfig(), changes) == expected


@pytest.mark.parametrize(
    "change",
    ["", "RUN a", "FROM x", "CMD", "ENV A", "LABEL a=b c", "EXPOSE x", "ENV A='", "HEALTHCHECK a",
     "HEALTHCHECK --x=1 CMD a"],
)  # fmt: skip
def test_refused(change: str) -> None:
    with pytest.raises(InvalidArgument):
        apply_changes(ImageConfig(), [change])


def test_durations() -> None:
    assert duration_ns("1m30s") == 90 * 10**9
    assert duration_ns("1.5s") == 1_500_000_000
    with pytest.raises(InvalidArgument):
        duration_ns("5 parsecs")


def test_written_and_read_again() -> None:
    config = apply_changes(
        ImageConfig(), ["CMD a", "ENV A=b", "EXPOSE 80", "VOLUME /v", "HEALTHCHECK --interval=1s CMD true", "USER u"]
    )
    image = Image(id="", config=config, layers=("sha256:" + "0" * 64,), created="2026-01-01T00:00:00Z")
    assert parse_config(build_config(image), "").config == config


def test_null_is_absent() -> None:
    raw = (b'{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":null,"Labels":null},'
           b'"rootfs":{"diff_ids":null}}')
    assert parse_config(raw, "sha256:1").config == ImageConfig()


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"os":"windows"}', b'{"config":{"Env":3}}'])
def test_configuration_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_config(raw, "sha256:1")
