"""A fair queue for slow checks: one at a time, and the waiting ones are served by name, not by arrival.

A queue does one check at a time. Among those that wait, names take turns; under one name, askers (addresses)
do; the checks of one asker go in the order in which they came. So a thousand checks of one name delay those
of another by one check, without any rule about who is an attacker. What may come `later` waits until nothing
else does, in turns of its own.

Everything that waits is bounded: a check whose place is taken is turned away, and takes no place from others.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from functools import partial

# Checks that may wait of one asker under one name, under one name, and in all; as many again of what may come
# later.
WAITING_OF_ASKER = 4
WAITING_UNDER_NAME = 64
WAITING = 1024

Check = Callable[[], bool]
_Waiting = tuple[Check, "asyncio.Future[bool]"]


class QueueFull(Exception):
    """Too many checks wait already under that name, or in all."""


class FairQueue:
    """One check at a time, in threads of `executor`. Used on one loop."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._now, self._later = _Turns(), _Turns()
        self._busy = False

    def enter(self, name: str, asker: Hashable, check: Check, *, later: bool = False) -> asyncio.Future[bool]:
        """What `check` will have returned or raised. Cancelling it takes the check out of the queue, unless
        it runs.

        Raises QueueFull.
        """
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        (self._later if later else self._now).add(name, asker, (check, answer))
        if not self._busy:
            self._begin()
        return answer

    def close(self) -> None:
        """Cancel what waits. Nothing may enter any more."""
        while (waiting := self._next()) is not None:
            waiting[1].cancel()

    def _next(self) -> _Waiting | None:
        return self._now.take() or self._later.take()

    def _begin(self) -> None:
        """Start the next check that somebody still waits for."""
        while (waiting := self._next()) is not None:
            check, answer = waiting
            if not answer.done():
                self._busy = True
                running = asyncio.get_running_loop().run_in_executor(self._executor, check)
                running.add_done_callback(partial(self._ended, answer))
                return

    def _ended(self, answer: asyncio.Future[bool], done: asyncio.Future[bool]) -> None:
        self._busy = False
        if done.cancelled():  # the threads are being closed
            answer.cancel()
            return
        error = done.exception()
        if not answer.done():
            if error is None:
                answer.set_result(done.result())
            else:
                answer.set_exception(error)
        self._begin()


class _Turns:
    """What waits, by name and by asker. It forgets queues that are empty."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, OrderedDict[Hashable, deque[_Waiting]]] = OrderedDict()
        self._waiting = 0

    def add(self, name: str, asker: Hashable, waiting: _Waiting) -> None:
        """Raises QueueFull."""
        askers = self._names.get(name, OrderedDict())
        queue = askers.get(asker, deque())
        if (
            len(queue) >= WAITING_OF_ASKER
            or self._waiting >= WAITING
            or sum(map(len, askers.values())) >= WAITING_UNDER_NAME
        ):
            raise QueueFull
        self._waiting += 1
        queue.append(waiting)
        askers.setdefault(asker, queue)
        self._names.setdefault(name, askers)

    def take(self) -> _Waiting | None:
        """Take out what is next; its name and its asker go behind all others."""
        if not self._names:
            return None
        name, askers = self._names.popitem(last=False)
        asker, queue = askers.popitem(last=False)
        waiting = queue.popleft()
        self._waiting -= 1
        if queue:
            askers[asker] = queue
        if askers:
            self._names[name] = askers
        return waiting
