"""A simulated cluster holds its invariants whatever its seed brings, and heals.

50 hosts, three managers; crashes, cuts, lost messages and dying leaders. After
every commit: no address given twice, no slot with two tasks that should run, no
node above its capacity, no acknowledged change gone. In the end: converged.

SIMULATIONS sets how many seeds are run (200 by default), SEED runs one alone.
"""

import os

import pytest

from tests.property.simulation.world import simulate

GROUPS = 20
SEEDS = int(os.environ.get("SIMULATIONS", "200"))
FIRST = int(os.environ.get("SEED", "0"))


@pytest.mark.parametrize("group", range(GROUPS) if "SEED" not in os.environ else [0])
def test_a_cluster_keeps_its_promises(group):
    seeds = [FIRST] if "SEED" in os.environ else range(group, SEEDS, GROUPS)
    for seed in seeds:
        try:
            world = simulate(seed)
        except BaseException as error:
            error.add_note(f"SEED={seed} runs this again")
            raise
        assert world.managers.log.invariants.checked > 50, "nothing happened"


def test_equal_seeds_give_equal_runs():
    first, second = (simulate(7).managers.log.entries for _ in range(2))
    assert first == second
