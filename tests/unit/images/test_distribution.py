"""The pure parts of the client of registries."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.api.errors import InvalidArgument, NotFound
from shoal.engine.images.distribution.challenges import ANONYMOUS, Challenge, Credentials, parse_challenges
from shoal.engine.images.distribution.challenges import parse_credentials as parse_auth
from shoal.engine.images.distribution.endpoints import RegistryRules, check_rules, endpoints, names_to_look_up
from shoal.engine.images.distribution.lookup import split_term
from shoal.engine.images.distribution.manifests import Descriptor, Platform, choose, parse_manifest, parse_platform
from shoal.engine.images.distribution.progress import bar
from shoal.engine.images.distribution.repository import next_page
from shoal.engine.images.distribution.retry import RetryPolicy
from shoal.engine.images.distribution.upload import received

A = "sha256:" + "a" * 64


@pytest.mark.parametrize(("headers", "found"), [
    pytest.param(['Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"'],
                 [Challenge("bearer", "https://a/token", "s", "repository:x:pull,push")], id="bearer"),
    pytest.param(['Basic realm="h, Bearer x"'], [Challenge("basic", "h, Bearer x")], id="a scheme in quotes is none"),
    pytest.param(['Basic realm="b", Bearer realm="r"'], [Challenge("bearer", "r"), Challenge("basic", "b")], id="both"),
    pytest.param(["basic realm=here"], [Challenge("basic", "here")], id="no quotes"),
    pytest.param(['Digest realm="x"'], [], id="unknown"),
])
def test_challenges(headers: list[str], found: list[Challenge]) -> None:
    assert parse_challenges(headers) == found


@given(st.text(max_size=200))
def test_no_challenge_breaks_the_parser(header: str) -> None:
    parse_challenges([header])


def encoded(**fields: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


@pytest.mark.parametrize(("header", "found"), [
    ("", ANONYMOUS),
    ("bnVsbA==", ANONYMOUS),  # null
    (encoded(username="u", password="p", serveraddress="x"), Credentials("u", "p")),
    (encoded(username="u", password="p?>").rstrip("="), Credentials("u", "p?>")),
    (encoded(identitytoken="t"), Credentials(identity_token="t")),
    (encoded(auth=base64.b64encode(b"u:p:q").decode()), Credentials("u", "p:q")),
])
def test_credentials(header: str, found: Credentials) -> None:
    assert parse_auth(header) == found


def test_credentials_are_not_printed() -> None:
    assert repr((Credentials("u", "secret", "t", "r"), ANONYMOUS)) == "(Credentials(…), Credentials())"


@pytest.mark.parametrize("header", ["!", "abc", base64.b64encode(b"{").decode(), "A" * 40_000, "WzFd"])
def test_credentials_that_are_none(header: str) -> None:
    with pytest.raises(InvalidArgument, match="X-Registry-Auth"):
        parse_auth(header)


@pytest.mark.parametrize(("domain", "rules", "urls"), [
    ("docker.io", RegistryRules(), ["https://registry-1.docker.io"]),
    ("docker.io", RegistryRules(mirrors=("http://m:5000/",)), ["http://m:5000", "https://registry-1.docker.io"]),
    ("r.example", RegistryRules(mirrors=("http://m:5000",)), ["https://r.example"]),
    ("127.0.0.9:5000", RegistryRules(), ["https://127.0.0.9:5000", "http://127.0.0.9:5000"]),
    ("localhost:5000", RegistryRules(), ["https://localhost:5000", "http://localhost:5000"]),
    ("10.1.2.3", RegistryRules(insecure=("10.0.0.0/8",)), ["https://10.1.2.3", "http://10.1.2.3"]),
    ("r:1", RegistryRules(insecure=("r:1",)), ["https://r:1", "http://r:1"]),
    ("r:2", RegistryRules(insecure=("r:1",)), ["https://r:2"]),
])
def test_where_a_registry_is(domain: str, rules: RegistryRules, urls: list[str]) -> None:
    found = endpoints(domain, rules, mirrors=True)
    assert [one.url for one in found] == urls
    assert [one.url for one in endpoints(domain, rules)] == [one.url for one in found if not one.mirror]


@pytest.mark.parametrize(("domain", "rules", "addresses", "insecure"), [
    ("r.example:5000", RegistryRules(), ["192.0.2.1"], False),
    ("r.example:5000", RegistryRules(), ["192.0.2.1", "127.0.1.1"], True),
    ("r.example", RegistryRules(), ["::1"], True),
    ("r.example", RegistryRules(insecure=("192.0.2.0/24",)), ["192.0.2.1"], True),
    ("r.example", RegistryRules(insecure=("192.0.2.0/24",)), [], False),
    ("docker.io", RegistryRules(mirrors=("http://m.example:1/",)), ["127.0.0.1"], False),
])
def test_a_name_is_as_insecure_as_its_addresses(
        domain: str, rules: RegistryRules, addresses: list[str], insecure: bool) -> None:
    """Source: the API's specification, InsecureRegistryCIDRs."""
    names = names_to_look_up(domain, rules, mirrors=True)
    assert names == ["m.example" if domain == "docker.io" else "r.example"]
    found = endpoints(domain, rules, mirrors=True, known=dict.fromkeys(names, addresses))
    assert (len([one for one in found if not one.mirror]) == 2) == insecure
    assert [one.verify for one in found if one.mirror] == ([False] if domain == "docker.io" else [])


def test_addresses_are_not_looked_up() -> None:
    assert [names_to_look_up(domain, RegistryRules(mirrors=("https://m",))) for domain in (
        "127.0.0.1:5000", "[::1]:5000", "docker.io")] == [[], [], []]


@pytest.mark.parametrize("rules", [
    RegistryRules(insecure=("http://x",)), RegistryRules(insecure=("10.0.0.0/99",)),
    RegistryRules(mirrors=("x:5000",))])
def test_rules_that_mean_nothing(rules: RegistryRules) -> None:
    with pytest.raises(InvalidArgument):
        check_rules(rules)


@pytest.mark.parametrize("document", [
    b"", b"[]", b"{}", b'{"schemaVersion":1}', b'{"schemaVersion":2}',
    b'{"schemaVersion":2,"config":{"digest":"x","size":1}}',
    json.dumps({"schemaVersion": 2, "config": {"digest": A, "size": -1}}).encode(),
    json.dumps({"schemaVersion": 2, "manifests": [], "config": {"digest": A, "size": 1}}).encode(),
])
def test_manifests_that_are_none(document: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_manifest(document)


def test_a_manifest_of_another_digest_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="verification failed"):
        parse_manifest(json.dumps({"schemaVersion": 2, "config": {"digest": A, "size": 1}}).encode(), expected=A)


HOST = Platform("linux", "amd64")


@pytest.mark.parametrize(("text", "found"), [
    ("", "linux/amd64"), ("linux", "linux/amd64"), ("arm64", "linux/arm64"), ("linux/aarch64", "linux/arm64"),
    ("linux/armhf", "linux/arm/v7"), ("Linux/ARM/v6", "linux/arm/v6"),
    ("windows", "windows/amd64"), ("x86_64", "linux/amd64"),
])
def test_platforms(text: str, found: str) -> None:
    assert str(parse_platform(text, HOST)) == found


@pytest.mark.parametrize("text", ["foobar", "linux/a/b/c", "linux/", "a b"])
def test_no_platforms(text: str) -> None:
    with pytest.raises(InvalidArgument, match="unknown operating system or architecture"):
        parse_platform(text, HOST)


def test_the_best_variant_is_chosen() -> None:
    def of(*variants: str) -> tuple[Descriptor, ...]:
        return tuple(Descriptor(variant, 1, platform=Platform("linux", "arm", variant)) for variant in variants)

    assert choose(of("v5", "v6", "v8"), Platform("linux", "arm", "v7"), "x").digest == "v6"
    assert choose(of("v7", ""), Platform("linux", "arm", "v7"), "x").digest == "v7"
    with pytest.raises(NotFound, match="no matching manifest for linux/arm/v6"):
        choose(of("v7"), Platform("linux", "arm", "v6"), "x")


@given(st.integers(1, 20), st.floats(0, 1, exclude_max=True))
def test_waits_are_bounded_and_end(failures: int, lot: float) -> None:
    delay_s = RetryPolicy(attempts=5, first_s=1, most_s=8).delay_s(failures, lot)
    assert delay_s is None if failures >= 5 else 0.5 <= delay_s <= 8  # type: ignore[operator]


@pytest.mark.parametrize(("header", "count"), [("0-99", 100), ("bytes=0-99", 100), ("0-0", 0), ("", 0), ("x-y", 0)])
def test_what_an_upload_has(header: str, count: int) -> None:
    assert received(header) == count


def test_where_a_list_goes_on() -> None:
    assert next_page('</v2/x/tags/list?last=b&n=2>; rel="next"') == "/v2/x/tags/list?last=b&n=2"
    assert next_page('</a>; rel="prev"') == next_page("") == ""


def test_bars() -> None:
    assert bar(0, 100).startswith("[>   ")
    assert bar(1_234_000, 1_234_000) == f"[{'=' * 50}]  1.234MB/1.234MB"


@pytest.mark.parametrize(("term", "found"), [
    ("nginx", ("docker.io", "nginx")), ("team/app", ("docker.io", "team/app")),
    ("r.example:5000/team/app", ("r.example:5000", "team/app")), ("docker.io/x", ("docker.io", "x"))])
def test_where_to_search(term: str, found: tuple[str, str]) -> None:
    assert split_term(term) == found
