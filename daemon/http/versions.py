"""Versions of the API: which are spoken, and how a request names one. Pure but for the request.

A path may begin with `/v1.NN`. It is taken off before routing, so that a route is
written once; the handler reads `version_of(request)` where fields differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from aiohttp import web
from yarl import URL

from shoal.api.errors import InvalidArgument

API_VERSION = "1.50"
MIN_API_VERSION = "1.40"

_MAX = (1, 50)
_MIN = (1, 40)
_PREFIX = re.compile(r"^/v(\d{1,5})\.(\d{1,5})(?=/|$)")
_OF_EVERY_VERSION = frozenset({"/images/get", "/images/load"})
"""The same since they are there; Debian 12's skopeo asks for them as of version 1.22."""

_KEY = "api_version"


def versioned(factory: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """A request factory that takes the version off the path and notes it on the request."""

    def make(message: Any, *rest: Any) -> web.BaseRequest:
        found = _PREFIX.match(message.path)
        if found is None:
            return factory(message, *rest)
        path = message.path[found.end() :] or "/"
        url = URL.build(path=message.url.raw_path[found.end() :] or "/", encoded=True,
                        query_string=message.url.raw_query_string)
        request = factory(message._replace(path=path, url=url), *rest)
        request[_KEY] = (int(found[1]), int(found[2]))
        return request

    return make


def version_of(request: web.BaseRequest) -> tuple[int, int]:
    """The version that the client speaks; the newest where it named none."""
    version: tuple[int, int] = request.get(_KEY, _MAX)
    return version


def check_version(request: web.BaseRequest) -> None:
    """Raises InvalidArgument for a version that is not spoken here."""
    major, minor = version = version_of(request)
    if version > _MAX:
        raise InvalidArgument(
            f"client version {major}.{minor} is too new. Maximum supported API version is {API_VERSION}"
        )
    if version < _MIN and request.path not in _OF_EVERY_VERSION:
        raise InvalidArgument(
            f"client version {major}.{minor} is too old. Minimum supported API version is {MIN_API_VERSION}, "
            "please upgrade your client to a newer version"
        )
