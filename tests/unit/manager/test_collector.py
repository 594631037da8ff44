"""What survived a full collection is not walked again, but for one every hour."""

import gc
import weakref

import pytest

from shoal.manager.collector import WALK_ALL_S, Collector


class Cycle:
    def __init__(self):
        self.me = self


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    clock = Clock()
    collector = Collector(clock)
    collector.install()
    yield clock
    collector.remove()


def walked(thing):
    return any(each is thing for each in gc.get_objects())


def test_survivors_are_frozen(clock):
    kept = [Cycle() for _ in range(10)]
    assert walked(kept)
    gc.collect()
    assert not walked(kept)


def test_young_garbage_is_collected(clock):
    gone = weakref.ref(Cycle())
    gc.collect()
    assert gone() is None


def test_every_so_often_all_is_walked(clock):
    cycle = Cycle()
    gone = weakref.ref(cycle)
    gc.collect()
    del cycle
    gc.collect()
    assert gone() is not None, "it was frozen"
    clock.now += WALK_ALL_S
    gc.collect()  # thaws
    gc.collect()
    assert gone() is None
