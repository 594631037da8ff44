"""What happened on this host: a bounded ring for those who ask later, queues for those who listen."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from shoal.api.errors import Overloaded
from shoal.engine.containers.nouns import Event

RING_SIZE = 256
QUEUE_SIZE = 1024


class Subscription:
    """The events of one listener."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_SIZE)
        self._overrun = False

    def offer(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._overrun = True

    async def next(self) -> Event:
        """The next event. Raises Overloaded once events were lost because nobody read them in time."""
        if self._overrun and self._queue.empty():
            raise Overloaded(f"more than {QUEUE_SIZE} events were not read in time")
        return await self._queue.get()


class Events:
    """Publishes to all who listen at that moment. The daemon publishes images' and networks' events here too."""

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._ring: deque[Event] = deque(maxlen=RING_SIZE)
        self._listeners: set[Subscription] = set()
        self._clock_ns = clock_ns

    def publish(self, type_: str, action: str, actor_id: str, attributes: Mapping[str, str] | None = None,
                scope: str = "local") -> None:
        event = Event(type=type_, action=action, actor_id=actor_id, attributes=dict(attributes or {}),
                      time_ns=self._clock_ns(), scope=scope)
        self._ring.append(event)
        for listener in self._listeners:
            listener.offer(event)

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Listen from now on. Subscribe before `past` is read, and nothing is missed."""
        subscription = Subscription()
        self._listeners.add(subscription)
        try:
            yield subscription
        finally:
            self._listeners.discard(subscription)

    def past(self, since_ns: int, until_ns: int = 0) -> list[Event]:
        """What the ring still has of that time, the oldest first. `until_ns` 0: up to now."""
        return [event for event in self._ring
                if event.time_ns >= since_ns and (not until_ns or event.time_ns <= until_ns)]
