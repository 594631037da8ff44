"""What builds keep on a host: told by `docker system df`, pruned as it is asked for, and bounded."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.integration.daemon.host import Machine

pytestmark = [pytest.mark.root, pytest.mark.clients]

MEGABYTE = 1 << 20
WITH_MOUNT = "FROM busybox\nRUN --mount=type=cache,target=/kept,id=downloads dd if=/dev/zero of=/kept/x bs=1M count=2\n"


class Small(Machine):
    """Its builds may keep 5 MiB."""

    def _config(self) -> Path:
        path = self.root / "shoald.json"
        path.write_text(json.dumps({"build-cache-bytes": 5 * MEGABYTE}))
        return path


@pytest.fixture
def small() -> Iterator[Machine]:
    with Small(Path(tempfile.mkdtemp(prefix="shoal-daemon-"))) as made:
        yield made


def records(host: Machine) -> dict[str, Any]:
    """By what was done."""
    status, found = host.call("GET", "/v1.50/system/df?type=build-cache")
    assert status == 200
    return {record["Description"]: record for record in found["BuildCache"]}


def prune(host: Machine, **query: Any) -> dict[str, Any]:
    if "filters" in query:
        query["filters"] = json.dumps(query["filters"])
    status, found = host.call("POST", f"/v1.50/build/prune?{urlencode(query)}")
    assert status == 200, found
    return found


def megabytes(number: int, times: int = 2) -> str:
    return f"FROM busybox\nRUN echo {number}; dd if=/dev/urandom of=/big bs=1M count={times}\n"


def test_it_is_told_and_pruned(host: Machine) -> None:
    prune(host, all=True)
    host.docker("build", "--tag", "named", "-", stdin=WITH_MOUNT + "RUN echo named > /name\n")
    host.docker("build", "-", stdin="FROM busybox\nENV A=b\nRUN echo private > /private\n")
    found = records(host)
    private = next(found[text] for text in found if "echo private" in text)
    shared = next(found[text] for text in found if "dd if=/dev/zero" in text)
    mount = next(found[text] for text in found if "cached mount downloads" in text)
    assert len(found) == 4  # the last step of what has a name is no cache
    assert (private["Type"], private["Shared"], private["Size"], private["InUse"]) == ("regular", False, 8, False)
    assert (shared["Type"], shared["Shared"], shared["UsageCount"]) == ("regular", True, 1)
    assert (mount["Type"], mount["Size"]) == ("exec.cachemount", 2 * MEGABYTE)
    assert private["Parents"] == [next(record["ID"] for record in found.values() if record["ID"] != private["ID"]
                                       and "ENV A=b" in record["Description"])]
    assert "Build Cache" in host.docker("system", "df")
    for keeps in ({"filters": {"until": ["1h"]}}, {"filters": {"id": ["nothing"]}}, {"reserved-space": 1 << 40},
                  {"filters": {"type": ["source.local"]}}, {"min-free-space": 1}):
        assert prune(host, **keeps)["CachesDeleted"] == [], keeps
    assert prune(host, filters={"id": [private["ID"]]})["CachesDeleted"] == [private["ID"]]
    told = prune(host, **{"max-used-space": MEGABYTE})
    assert told["SpaceReclaimed"] >= 2 * MEGABYTE
    assert mount["ID"] in told["CachesDeleted"] and shared["ID"] not in told["CachesDeleted"]
    said = host.docker("build", "-", stdin=WITH_MOUNT)
    assert "Using cache" in said
    assert shared["ID"] in prune(host, all=True)["CachesDeleted"]
    assert host.docker("run", "--rm", "named", "cat", "/name") == "named"
    host.docker("rmi", "named")
    assert records(host) == {}


@pytest.mark.parametrize("query", [
    {"filters": '{"until": ["1h", "2h"]}'}, {"filters": '{"until": ["1h"], "unused-for": ["1h"]}'},
    {"filters": '{"until": ["never"]}'}, {"filters": '{"color": ["red"]}'}, {"filters": '{"shared": ["perhaps"]}'},
    {"keep-storage": "much"}, {"max-used-space": "-1"}])
def test_what_is_wrong_is_refused(host: Machine, query: dict[str, str]) -> None:
    assert host.call("POST", f"/v1.50/build/prune?{urlencode(query)}")[0] == 400


def test_it_stays_within_its_bound(small: Machine) -> None:
    """The least recently used go; what has a name, and what the last build made, stay."""
    small.docker("build", "--tag", "named", "-", stdin=megabytes(0))
    small.docker("build", "-", stdin=megabytes(1))
    small.docker("build", "-", stdin=megabytes(2))
    assert "Using cache" in small.docker("build", "-", stdin=megabytes(1))  # 4 MiB: both are there
    small.docker("build", "-", stdin=megabytes(3))
    left = {text.partition("echo ")[2][0] for text in records(small)}
    assert left == {"1", "3"}  # 2 was not used for the longest time
    large = small.docker("build", "--quiet", "-", stdin=megabytes(4, 7))
    assert {text.partition("echo ")[2][0] for text in records(small)} == {"4"}
    assert small.inspect(large)["Id"] == large  # it is over the bound by itself
    assert "Using cache" in small.docker("build", "-", stdin=megabytes(0))
