"""Every case of the build corpus gives on shoald what it gave on dockerd (see tests/build/corpus.py)."""

from collections.abc import Iterator

import pytest

from tests.build.corpus import Case, Host, cases
from tests.integration.daemon.host import Machine

pytestmark = [pytest.mark.root, pytest.mark.clients]


@pytest.fixture(scope="module")
def corpus_host(machine: Machine) -> Iterator[Host]:
    yield Host(machine.socket, machine.environment())
    machine.docker("image", "prune", "--force")


@pytest.mark.parametrize("name", cases())
def test_case(name: str, corpus_host: Host, machine: Machine) -> None:
    case = Case(name)
    results, expected = corpus_host.run(case, machine.root), case.expected()
    if "error" in case.settings:  # the same in other words
        assert all(case.settings["error"] in result["error"] for result in results)
        assert [result["code"] for result in results] == [result["code"] for result in expected]
        return
    assert results == expected


def test_the_corpus_is_whole() -> None:
    assert len(cases()) >= 60
