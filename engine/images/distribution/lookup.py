"""What a registry says of images without giving them: GET /distribution/…/json and GET /images/search."""

from __future__ import annotations

import msgspec
from yarl import URL

from shoal.api.errors import InvalidArgument, NotFound, ShoalError
from shoal.api.reference import DEFAULT_DOMAIN, Reference
from shoal.engine.images.config import parse_config
from shoal.engine.images.distribution.challenges import ANONYMOUS, Credentials
from shoal.engine.images.distribution.endpoints import HUB_NAMES, RegistryRules, is_hub
from shoal.engine.images.distribution.manifests import Descriptor, Manifest, Platform
from shoal.engine.images.distribution.mirrors import first_that_gives
from shoal.engine.images.distribution.puller import MAX_CONFIG_BYTES, translated
from shoal.engine.images.distribution.registry import FAILURES, Refused, Registry
from shoal.engine.images.distribution.repository import Repository
from shoal.engine.images.distribution.retry import PATIENT
from shoal.engine.images.distribution.source import Source


class Described(msgspec.Struct, frozen=True):
    """What a reference names, and the platforms that it is for."""

    descriptor: Descriptor
    platforms: tuple[Platform, ...]


async def describe(wanted: Reference, rules: RegistryRules, credentials: Credentials = ANONYMOUS) -> Described:
    """Raises NotFound, Unauthorized, Unreachable."""
    async def read(registry: Registry) -> Described:
        try:
            return await describe_in(Repository(registry, wanted.path, PATIENT), wanted)
        except Refused as error:
            raise translated(error, wanted) from error

    return await first_that_gives(
        lambda passed: Registry(wanted.domain, rules, credentials, mirrors=True, passed=passed), read)


async def describe_in(source: Source, wanted: Reference) -> Described:
    """What a source says that it is. Raises what the source does."""
    manifest = await source.manifest(wanted.digest or wanted.tag, wanted.digest)
    platforms = await _platforms(source, manifest)
    return Described(Descriptor(manifest.digest, len(manifest.raw), manifest.media_type), platforms)


async def _platforms(source: Source, manifest: Manifest) -> tuple[Platform, ...]:
    if manifest.manifests is not None:
        return tuple(one.platform for one in manifest.manifests if one.platform is not None)
    assert manifest.config is not None
    image = parse_config(await source.small_blob(manifest.config, MAX_CONFIG_BYTES), manifest.config.digest)
    return (Platform(image.os, image.architecture, image.variant),)


SEARCH_HUB = "https://index.docker.io/"
MAX_RESULTS = 100


class Found(msgspec.Struct, frozen=True):
    """A repository that a search found."""

    name: str
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Page(msgspec.Struct):
    results: list[Found] | None = None


async def search(term: str, limit: int, rules: RegistryRules, credentials: Credentials = ANONYMOUS) -> list[Found]:
    """Repositories by a word, at Docker Hub or at the registry that the term begins with.

    Source: the search of Docker's first registry protocol, the only one there is. Raises NotFound where
    the registry has none, Unreachable, Unauthorized.
    """
    domain, words = split_term(term)
    if not 1 <= limit <= MAX_RESULTS:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {MAX_RESULTS}]")
    async with Registry(domain, rules, credentials) as registry:
        base = URL(SEARCH_HUB if is_hub(domain) else registry.address.url + "/")
        query = URL("v1/search").with_query(q=words, n=limit)
        try:
            _, raw = await registry.read("GET", str(query), scope="", base=base)
            found = msgspec.json.decode(raw, type=_Page).results or []
        except Refused as error:
            if error.http_status == 404:
                raise NotFound(f"the registry {domain} cannot be searched") from error
            raise
        except (*FAILURES, msgspec.MsgspecError) as error:
            raise ShoalError(f"searching {domain} failed: {error or 'no answer in time'}") from error
    return found[:limit]


def split_term(term: str) -> tuple[str, str]:
    """The registry to search, and for what: as the names of images are read. Raises InvalidArgument. Pure."""
    if not term.strip():
        raise InvalidArgument("search term is missing")
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: repository name ({term}) should not have a scheme")
    first, slash, rest = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return (DEFAULT_DOMAIN if first in HUB_NAMES else first), rest
    return DEFAULT_DOMAIN, term.removeprefix("library/")
