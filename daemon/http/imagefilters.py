"""Which images a request means: the filters of a list and of a prune, as dockerd reads them.

Source: moby, daemon/images/image_list.go and image_prune.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from shoal.api import reference
from shoal.api.errors import InvalidArgument
from shoal.api.ignore import wildcard
from shoal.daemon.http.times import moment_ns, stamp_ns
from shoal.daemon.http.wire import labels_match, truth
from shoal.engine.images.config import Image
from shoal.engine.images.images import Images

LIST_FILTERS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})

Filters = dict[str, Any]


def listed(images: Images, wanted: Filters, *, steps: bool) -> list[Image]:
    """The images of a list, newest first, each with the names that the filters leave it.

    `steps`: also those without a name that others were made of. Raises InvalidArgument, and NotFound for an
    image that a filter names.
    """
    dangling = one_truth(wanted, "dangling")
    below = [stamp_ns(images.resolve(value).created) for value in wanted.get("before", [])]
    below += [moment_ns(value, "until") for value in wanted.get("until", [])]
    above = [stamp_ns(images.resolve(value).created) for value in wanted.get("since", [])]
    patterns = [_pattern(pattern) for pattern in wanted.get("reference", [])]
    found = []
    for image in images.all():
        if not _is_within(stamp_ns(image.created), below, above):
            continue
        if not labels_match(wanted.get("label", []), image.config.labels):
            continue
        shown = _with_matching_names(image, patterns) if "reference" in wanted else image
        nameless = not shown.repo_tags and not shown.repo_digests
        if nameless and ("reference" in wanted or dangling is False):
            continue
        is_step = images.catalog.has_children(image.id)
        if is_step and ((nameless and not steps) or dangling):
            continue
        if dangling and shown.repo_tags:
            continue
        found.append(shown)
    return found


def prunable(wanted: Filters) -> Callable[[Image], bool]:
    """What a prune may take, as to label, label! and until. Raises InvalidArgument."""
    moments = wanted.get("until", [])
    if len(moments) > 1:
        raise InvalidArgument("more than one until filter specified")
    until = moment_ns(moments[0], "until") if moments else None

    def matches(image: Image) -> bool:
        labels = image.config.labels
        return (labels_match(wanted.get("label", []), labels)
                and not ("label!" in wanted and labels_match(wanted["label!"], labels))
                and (until is None or stamp_ns(image.created) <= until))

    return matches


def one_truth(wanted: Filters, name: str) -> bool | None:
    """A filter that is true or false; None where it is not given. Raises InvalidArgument, also for both."""
    if name not in wanted:
        return None
    values = {truth(value, name) for value in wanted[name]}
    if len(values) != 1:
        raise InvalidArgument(f"invalid filter '{name}={wanted[name]}'")
    return values.pop()


def _is_within(created_ns: int, below: Iterable[int], above: Iterable[int]) -> bool:
    return all(created_ns < moment for moment in below) and all(created_ns > moment for moment in above)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return wildcard(text)
    except re.error as error:
        raise InvalidArgument(f"invalid filter 'reference={text}': {error}") from error


def _with_matching_names(image: Image, patterns: Iterable[re.Pattern[str]]) -> Image:
    def matches(name: str) -> bool:
        parsed = reference.parse(name)
        spellings = (parsed.familiar, parsed.familiar_name, str(parsed), parsed.name)
        return any(pattern.fullmatch(spelling) for pattern in patterns for spelling in spellings)

    return msgspec.structs.replace(image, repo_tags=tuple(filter(matches, image.repo_tags)),
                                   repo_digests=tuple(filter(matches, image.repo_digests)))
