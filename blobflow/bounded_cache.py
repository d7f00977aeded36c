"""A bounded cache, for keys and values that strangers choose: limited in bytes, entries and time.

Whatever is remembered between requests, and for as many keys as somebody likes to ask for, is remembered in
one of these. It forgets the least recently used first, so that who asks for a million things takes from the
others at most what can be found out again.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class _Entry(NamedTuple, Generic[Value]):
    value: Value
    weight: int
    until: float


class BoundedCache(Generic[Key, Value]):
    """Values by key, at most `entries` of them, of at most `room` bytes together, each for `seconds`.

    `weigh` gives the bytes of a value with its key (default: 1, where only the number counts). A value that
    weighs more than `largest` (default: `room`) is not held at all, so that one cannot displace all others.
    `clock` gives seconds. Not for several threads.
    """

    def __init__(
        self,
        *,
        entries: int,
        room: int = 2**62,
        seconds: float = math.inf,
        largest: int | None = None,
        weigh: Callable[[Key, Value], int] = lambda key, value: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = entries
        self._room = room
        self._seconds = seconds
        self._largest = room if largest is None else min(room, largest)
        self._weigh = weigh
        self._clock = clock
        self._held: OrderedDict[Key, _Entry[Value]] = OrderedDict()
        self._sweep_at = -math.inf
        self.weight = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Key) -> Value | None:
        """The value, which is now the most recently used; None if it is not held, or its time is over."""
        now = self._clock()
        self._sweep(now)
        entry = self._held.get(key)
        if entry is None:
            return None
        if now >= entry.until:
            self.pop(key)
            return None
        self._held.move_to_end(key)
        return entry.value

    def put(self, key: Key, value: Value, *, seconds: float | None = None) -> None:
        """Hold the value in place of an earlier one, from now for `seconds` (default: the cache's)."""
        self.pop(key)
        now = self._clock()
        self._sweep(now)
        weight = self._weigh(key, value)
        lasting = self._seconds if seconds is None else seconds
        if weight > self._largest or lasting <= 0:
            return
        self._held[key] = _Entry(value, weight, now + lasting)
        self.weight += weight
        while len(self._held) > self._entries or self.weight > self._room:
            self.weight -= self._held.popitem(last=False)[1].weight

    def pop(self, key: Key) -> Value | None:
        """Forget the key; what was held, also if its time is over."""
        entry = self._held.pop(key, None)
        if entry is None:
            return None
        self.weight -= entry.weight
        return entry.value

    def values(self) -> list[Value]:
        """All that is held, the least recently used first."""
        return [entry.value for entry in self._held.values()]

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self.weight = 0

    def _sweep(self, now: float) -> None:
        """Drop all whose time is over: seldom, as it looks at each, but whoever is asked for."""
        if now < self._sweep_at or not self._held:
            return
        for key in [key for key, entry in self._held.items() if now >= entry.until]:
            self.pop(key)
        self._sweep_at = now + min(self._seconds, 60.0) / 2
