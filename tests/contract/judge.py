"""What is wrong with an answer, by the specification."""

from __future__ import annotations

from typing import Any

import requests
from schemathesis import Case
from schemathesis.core.failures import FailureGroup
from schemathesis.openapi.checks import JsonSchemaError

from tests.contract.exceptions import NOT_BUILT, SPECIFICATION_ERRORS, STATUSES, STREAMS


def faults(case: Case, answer: requests.Response) -> list[str]:
    """One line for each; none: the answer is as the specification has it."""
    label, status = case.operation.label, answer.status_code
    listed = status in {int(code) for code in case.operation.definition.raw["responses"]} or (label, status) in STATUSES
    if status >= 400:
        return _faults_of_refusal(case, answer, listed=listed)
    if not listed:
        return [f"{status} is not among the answers of {label}"]
    parts = _lines(answer) if label in STREAMS else [answer]
    return [fault for part in parts for fault in _faults_of_shape(case, part)]


def _lines(answer: requests.Response) -> list[requests.Response]:
    """An answer for each line of a stream of values."""
    parts = []
    for line in answer.content.splitlines():
        part = requests.Response()
        part.__dict__.update({**answer.__dict__, "_content": line})
        parts.append(part)
    return parts


def _faults_of_refusal(case: Case, answer: requests.Response, *, listed: bool) -> list[str]:
    """A refusal says why; it is no 500, and of the statuses above only one that is listed."""
    label, status = case.operation.label, answer.status_code
    if case.method == "HEAD":
        message: str | None = "(HEAD)"
    else:
        message = _message(answer)
    if message is None:
        return [f"{label}: {status} without a message: {answer.text[:200]!r}"]
    allowed = {500: (label, 500) in STATUSES, 501: label in NOT_BUILT}.get(status, status < 500 or listed)
    return [] if allowed else [f"{label}: {status} {message[:300]}"]


def _message(answer: requests.Response) -> str | None:
    if answer.headers.get("Content-Type", "").partition(";")[0] != "application/json":
        return None
    try:
        found: Any = answer.json()
    except ValueError:
        return None
    message = found.get("message") if isinstance(found, dict) else None
    return message if isinstance(message, str) and message else None


def _faults_of_shape(case: Case, answer: requests.Response) -> list[str]:
    try:
        case.operation.validate_response(answer)
    except FailureGroup as group:
        failures = list(group.exceptions)
    except AssertionError as failure:
        failures = [failure]
    else:
        return []
    label = case.operation.label
    places = [(_place(failure), failure) for failure in failures]
    return [f"{label}: {place or failure}: {_said(failure)}" for place, failure in places
            if not any(known.covers(label, place) for known in SPECIFICATION_ERRORS)]


def _place(failure: BaseException) -> str:
    """Where in the answer: keys and, for an index, a star."""
    if not isinstance(failure, JsonSchemaError):
        return ""
    return "/".join("*" if isinstance(part, int) else part for part in failure.instance_path) or "(all)"


def _said(failure: BaseException) -> str:
    return failure.validation_message.strip() if isinstance(failure, JsonSchemaError) else ""
