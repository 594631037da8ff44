"""The Engine API's specification against a real shoald: every operation that neither hijacks nor streams.

Each operation gets requests that have to succeed (`good`), whose answers have to have the shape of the
specification; and requests that schemathesis makes up from the specification, which may be refused, but with a
message, without a 500, and without a status of the 500s that the operation does not list.

SHOAL_ENGINE_API names the specification (Docker Engine API v1.50, a Swagger 2.0 file).
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case
from schemathesis.schemas import APIOperation

from tests.contract.bed import ADDRESS, BASE, TIMEOUT_S, Bed
from tests.contract.exceptions import HIJACKED, NEVER_GOOD
from tests.contract.good import GOOD, Good
from tests.contract.judge import faults
from tests.contract.tame import tame

pytestmark = [pytest.mark.root, pytest.mark.contract]

SPECIFICATION = os.environ.get("SHOAL_ENGINE_API", "")
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "15"))


@schemathesis.serializer("application/x-tar", "application/octet-stream")
def as_it_is(context: schemathesis.SerializationContext, body: Any) -> bytes:
    return body if isinstance(body, bytes) else str(body).encode()


def operations() -> dict[str, APIOperation[Any, Any, Any, Any]]:
    if not SPECIFICATION:
        return {}
    found = (result.ok() for result in schemathesis.openapi.from_path(SPECIFICATION).get_all_operations())
    return {operation.label: operation for operation in found if operation.label not in HIJACKED}


OPERATIONS = operations()
LABELS = list(OPERATIONS) or [pytest.param("", marks=pytest.mark.skip(
    "SHOAL_ENGINE_API does not name the specification of the Engine API"))]


def ask(bed: Bed, case: Case) -> requests.Response:
    return bed.session.request(**case.as_transport_kwargs(base_url=BASE), timeout=TIMEOUT_S)


@pytest.mark.parametrize("label", LABELS)
def test_answers_have_the_shape_of_the_specification(bed: Bed, label: str) -> None:
    bed.mend()
    for good in GOOD.get(label, []):
        if good.given is not None:
            good = replace(good, **good.given(bed))
        case = _case(OPERATIONS[label], good)
        answer = ask(bed, case)
        assert answer.status_code == good.status, (case.as_curl_command(), answer.status_code, answer.text[:500])
        found = faults(case, answer)
        assert not found, "\n".join(found)


def _case(operation: APIOperation[Any, Any, Any, Any], good: Good) -> Case:
    given: dict[str, Any] = {} if good.body is None else {"body": good.body, "media_type": good.media_type}
    return operation.Case(path_parameters=good.path, query=good.query, **given)


@pytest.mark.parametrize("label", LABELS)
def test_no_request_is_answered_with_what_the_specification_does_not_know(bed: Bed, label: str) -> None:
    bed.mend()
    operation, names = OPERATIONS[label], bed.names().get(label.split("/")[1], ())
    found: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(), name=st.sampled_from(["", *names]), freely=st.booleans())
    def once(case: Case, name: str, freely: bool) -> None:
        tame(case, name, freely=freely)
        found.update(faults(case, ask(bed, case)))

    once()
    assert not found, "\n".join(f"{count} times: {fault}" for fault, count in found.items())
    assert bed.call("GET", "/version")["ApiVersion"] == "1.50"


def test_every_operation_is_seen_to_succeed_or_excused() -> None:
    seen = {label for label, requests_ in GOOD.items() if requests_}
    assert not seen & NEVER_GOOD.keys(), "these need no excuse any more"
    if OPERATIONS:
        assert seen | NEVER_GOOD.keys() == OPERATIONS.keys()


@pytest.mark.skipif(not OPERATIONS, reason="SHOAL_ENGINE_API does not name the specification of the Engine API")
def test_a_swarm_is_left_and_made_again(bed: Bed) -> None:
    """In between, everything about swarms answers that there is none. The last test: its swarm is new."""
    bed.mend()
    found: list[str] = []
    for label, good in (
        ("POST /swarm/leave", Good(query={"force": True})),
        *((label, Good(path={"id": "any"}, query={"version": 1}, body={}, status=503)) for label in OPERATIONS
          if label.split("/")[1] in ("nodes", "services", "tasks", "secrets", "configs")),
        ("GET /swarm", Good(status=503)),
        ("POST /swarm/init", Good(body={"ListenAddr": ADDRESS, "AdvertiseAddr": ADDRESS})),
        ("GET /swarm", Good()),
    ):
        case = _case(OPERATIONS[label], good)
        answer = ask(bed, case)
        assert answer.status_code == good.status, (case.as_curl_command(), answer.status_code, answer.text[:500])
        found += faults(case, answer)
    assert not found, "\n".join(found)
