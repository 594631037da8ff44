"""Random faults from a seed, then healing: nothing acknowledged is lost, nobody diverges, nobody stays stuck.

Network, compaction, crashes that lose what was not synced, membership churn; see
`fuzz.PROFILES`. FUZZ_RUNS sets how many seeds are run (200 by default), SEED runs
one alone. A seed plays the same everywhere.
"""

import os

import pytest

from tests.property.raft import fuzz

RUNS = int(os.environ.get("FUZZ_RUNS", "200"))
SEED = os.environ.get("SEED")
GROUP = 50  # runs in one test


def seeds_of(group):
    return [int(SEED)] if SEED else range(group * GROUP, min(RUNS, (group + 1) * GROUP))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("group", [0] if SEED else range(-(-RUNS // GROUP)))
def test_fuzz(group):
    written = 0
    for seed in seeds_of(group):
        result = fuzz.play(seed)
        again = f"SEED={seed} pytest tests/property/raft/test_fuzz.py::test_fuzz"
        assert not result.violations, f"{result.profile}: {result.violations[:3]}\nThis runs it again: {again}"
        written += result.events["write: done"]
    assert written > 50 * len(seeds_of(group)), "hardly anything was committed"


@pytest.mark.parametrize("seed", range(len(fuzz.PROFILES)))
def test_equal_seeds_play_alike(seed):
    first, second = fuzz.play(seed), fuzz.play(seed)
    assert first == second
    assert first.profile == fuzz.PROFILES[seed].name
