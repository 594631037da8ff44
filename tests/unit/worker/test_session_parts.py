"""The pure parts of sessions, renewals and assignments."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.api.messages import Assignments
from shoal.api.objects import Task
from shoal.api.specs import TaskSpec
from shoal.api.states import Role
from shoal.worker.assignments import Desired, OutOfOrder, Sequence
from shoal.worker.credentials import CertificateFacts
from shoal.worker.enroll import with_port
from shoal.worker.renew import due_at
from shoal.worker.session import BACKOFF_S, SILENCE_S, attempt_s, backoff_s, silence_s


def test_a_missed_message_is_noticed() -> None:
    sequence = Sequence()
    with pytest.raises(OutOfOrder):
        sequence.check(Assignments(sequence=5))
    sequence.check(Assignments(sequence=5, complete=True))
    sequence.check(Assignments(sequence=6))
    with pytest.raises(OutOfOrder):
        sequence.check(Assignments(sequence=8))
    with pytest.raises(OutOfOrder):
        sequence.check(Assignments(sequence=6))


@pytest.mark.parametrize(("failures", "bound"), [(1, 0.05), (2, 0.1), (4, 0.4), (6, 1.0), (1000, 1.0)])
def test_backoff_doubles_up_to_its_bound(failures: int, bound: float) -> None:
    assert backoff_s(failures, 0.0) == 0
    assert backoff_s(failures, 0.999) == pytest.approx(bound * 0.999)
    assert bound <= BACKOFF_S[1]


@pytest.mark.parametrize(("failures", "timeout"), [(0, 1.5), (1, 2.25), (6, 12.0), (100_000, 12.0)])
def test_slow_managers_are_given_more_time_round_by_round(failures: int, timeout: float) -> None:
    assert attempt_s(failures) == timeout


@pytest.mark.parametrize(("lease", "silence"), [
    pytest.param(0.3, SILENCE_S, id="a short lease keeps the usual patience"),
    pytest.param(3.0, 1.0, id="as it is without settings"),
    pytest.param(30.0, 10.0, id="slow hosts get a third of their lease"),
])
def test_patience_with_a_silent_manager(lease: float, silence: float) -> None:
    assert silence_s(lease) == silence


def test_renewal_falls_between_half_and_four_fifths_of_a_life() -> None:
    facts = CertificateFacts("n", "c", Role.WORKER, 1000.0, 2000.0)
    assert due_at(facts, 0.0) == 1500.0
    assert due_at(facts, 1.0) == pytest.approx(1800.0)


@pytest.mark.parametrize(("given", "full"), [
    ("192.0.2.1", "192.0.2.1:2377"), ("192.0.2.1:99", "192.0.2.1:99"), ("2001:db8::1", "[2001:db8::1]:2377"),
    ("[2001:db8::1]", "[2001:db8::1]:2377"), ("[2001:db8::1]:99", "[2001:db8::1]:99"), ("m1", "m1:2377"),
])
def test_ports_are_added_where_they_lack(given: str, full: str) -> None:
    assert with_port(given) == full


async def test_assignments_outlive_the_daemon_but_not_the_node(tmp_path: Path) -> None:
    path = tmp_path / "assignments.msgpack"
    one, two = Task(id="t1", spec=TaskSpec()), Task(id="t2", spec=TaskSpec())
    desired = Desired(path, "n1")
    desired.apply(Assignments(sequence=1, complete=True, tasks=(one, two)))
    desired.apply(Assignments(sequence=2, removed_tasks=("t1",)))
    desired.close()
    assert Desired(path, "n1").load() == [two]
    assert Desired(path, "n2").load() == []
    path.write_bytes(b"\xc1 no msgpack")
    assert Desired(path, "n1").load() == []


async def test_nothing_is_written_after_leaving(tmp_path: Path) -> None:
    desired = Desired(tmp_path / "assignments.msgpack", "n1")
    desired.apply(Assignments(sequence=1, complete=True, tasks=(Task(id="t1", spec=TaskSpec()),)))
    assert desired.due
    desired.discard()
    assert not desired.due
    assert desired.load() == []
