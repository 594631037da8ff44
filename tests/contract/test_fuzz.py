"""Hostile requests against a real shoald: whatever a client sends, it is told what is wrong; it is never our fault.

FUZZ_RUNS: how many requests (300 of them in `make test`).
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.contract.bed import BASE, TIMEOUT_S, Bed
from tests.contract.exceptions import NOT_BUILT, STATUSES
from tests.contract.hostile import Hostile, requests

RUNS = int(os.environ.get("FUZZ_RUNS", "300"))
pytestmark = [pytest.mark.root, pytest.mark.contract, pytest.mark.timeout(max(300, RUNS))]
MEND_EVERY = 100
EXCUSED = {"POST /build": "Cannot locate specified Dockerfile"}
"""What dockerd answers with 500, too."""


def test_fuzz_no_request_is_the_daemons_fault(bed: Bed) -> None:
    bed.mend()
    names = bed.names()
    found: dict[str, Counter[str]] = {}
    asked = 0

    @settings(max_examples=RUNS, derandomize=RUNS <= 300, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(hostile=requests(names))
    def once(hostile: Hostile) -> None:
        nonlocal asked
        asked += 1
        if asked % MEND_EVERY == 0:
            bed.mend()
        if fault := _fault(bed, hostile):
            found.setdefault(fault, Counter())[f"{hostile.path[:300]} {(hostile.body or b'')[:600]!r}"] += 1

    once()
    assert not found, "\n".join(f"{fault}\n    {next(iter(those))}" for fault, those in found.items())
    assert bed.call("GET", "/version")["ApiVersion"] == "1.50"


def _fault(bed: Bed, hostile: Hostile) -> str:
    answer = bed.session.request(hostile.method, BASE + hostile.path, data=hostile.body, timeout=TIMEOUT_S,
                                 headers={"Content-Type": hostile.media_type})
    if answer.status_code < 400:
        return ""
    if hostile.method != "HEAD":
        try:
            message = answer.json()["message"]
        except (ValueError, KeyError, TypeError):
            return f"{hostile.label}: {answer.status_code} without a message: {answer.text[:200]!r}"
    else:
        message = ""
    known = (answer.status_code < 500 or answer.status_code == 503 or (hostile.label, answer.status_code) in STATUSES
             or (answer.status_code == 501 and hostile.label in NOT_BUILT)
             or message.startswith(EXCUSED.get(hostile.label, "\n")))
    return "" if known else f"{hostile.label}: {answer.status_code} {message[:200]}"
