"""Snapshots of slow results: each is built once for all requests, and kept for a while.

Rules
- A thread of its own builds them, one after another. So no request that reads or writes content ever waits
  for a page, and pages take at most one core from such requests.
- Whoever asks for a snapshot that is being built waits for that one. A snapshot holds for some seconds, and
  for ten times as long as it took to build: the thread spends a tenth of the time at most on any one of them,
  however often clients ask.
- What nobody waits for any more is not built; what is being built hears of that, and ends.
- Everything is bounded: what is kept, in bytes, and who waits, in snapshots that they wait for.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from blobflow.server.errors import ApiError
from blobflow.single_flight import result_of

# Seconds for which a snapshot holds at least: whoever reloads a page by hand sees what changed.
KEEP_SECONDS = 5.0
# As many times the seconds that it took.
_TIMES = 10
# Bytes that are kept in all, as their makers weigh them.
MAX_BYTES = 4 * 1024 * 1024
# Different snapshots that are being built or waited for at once.
_WAITING = 16

T = TypeVar("T")
ShouldStop = Callable[[], bool]


class Snapshot(Generic[T]):
    """`value`, and since when it holds, and until when (of the clock)."""

    __slots__ = ("at", "until", "value")

    def __init__(self, value: T, at: float, until: float) -> None:
        self.value = value
        self.at = at
        self.until = until


class Abandoned(Exception):
    """The building of a snapshot was stopped, as nobody waits for it."""


class _UnderWay:
    """`askers`: for each who waits, whether it is gone by now; `stopped`: the thread has heard that all are.
    The thread reads both, too."""

    __slots__ = ("askers", "future", "stopped")

    def __init__(self, first: Callable[[], bool]) -> None:
        self.askers = [first]
        self.stopped = False
        self.future: asyncio.Future[Snapshot[Any]]


class SnapshotCache:
    """Used on one loop; `close` it with what it belongs to. `kept` in seconds: see KEPT."""

    def __init__(
        self,
        *,
        kept: float = KEEP_SECONDS,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.done = 0
        self._kept_for = kept
        self._left = max_bytes
        self._clock = clock
        self._closing = False
        self._worker: ThreadPoolExecutor | None = None
        self._kept: OrderedDict[Hashable, tuple[Snapshot[Any], int]] = OrderedDict()
        self._under_way: dict[Hashable, _UnderWay] = {}

    async def get(
        self,
        key: Hashable,
        build: Callable[[ShouldStop], T],
        *,
        gone: Callable[[], bool],
        weigh: Callable[[T], int],
    ) -> Snapshot[T]:
        """What `build` returns, now or some seconds ago; equal keys are the same thing.

        `build` runs in the thread and often calls its argument: once that is true, it raises whatever it
        likes. `gone`: whether the one who asks has gone; called in the thread, too. `weigh` tells the bytes
        that the result takes. Raises what `build` raises, to all who wait; ApiError (503) when too many do,
        or the registry ends; ConnectionError to whoever is gone. Being cancelled takes nothing from others.
        """
        while not self._closing:
            kept = self._kept.get(key)
            if kept is not None and self._clock() < kept[0].until:
                self._kept.move_to_end(key)
                return kept[0]
            under_way = self._under_way.get(key)
            if under_way is None:
                if len(self._under_way) >= _WAITING:
                    break
                under_way = self._begin(key, build, gone, weigh)
            elif under_way.future.done():
                await asyncio.sleep(0)  # what is to happen when it ends, happens first
                continue
            else:
                under_way.askers.append(gone)
            try:
                found: Snapshot[T] = await result_of(under_way.future)
            except Abandoned:
                if gone():
                    raise ConnectionAbortedError("the client did not wait") from None
                continue  # those who had asked first are gone
            finally:
                under_way.askers.remove(gone)
            return found
        raise ApiError(
            "UNKNOWN",
            "others are being told already; ask again in a moment",
            status=503,
            headers={"Retry-After": str(round(KEEP_SECONDS))},
        )

    def age(self, gathered: Snapshot[Any]) -> float:
        """Seconds since it was built."""
        return max(self._clock() - gathered.at, 0.0)

    def forget(self) -> None:
        """No snapshot holds any longer."""
        self._left += sum(weight for _, weight in self._kept.values())
        self._kept.clear()

    def stop(self) -> None:
        """Give up what is being built, and build nothing more."""
        self._closing = True

    async def close(self) -> None:
        """Stop, and wait for what was being built to end, some milliseconds. May be called twice."""
        self.stop()
        futures = [each.future for each in self._under_way.values()]
        if futures:
            await asyncio.wait(futures)
        if self._worker is not None:
            self._worker.shutdown(wait=False)

    def _begin(
        self,
        key: Hashable,
        build: Callable[[ShouldStop], T],
        gone: Callable[[], bool],
        weigh: Callable[[T], int],
    ) -> _UnderWay:
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="blobflow-gathering")
        under_way = _UnderWay(gone)
        self._under_way[key] = under_way
        loop = asyncio.get_running_loop()
        under_way.future = loop.run_in_executor(self._worker, self._gathered, build, under_way)
        under_way.future.add_done_callback(lambda done: self._end(key, done, weigh))
        return under_way

    def _gathered(self, build: Callable[[ShouldStop], T], under_way: _UnderWay) -> Snapshot[T]:
        """In the thread."""

        def stopped() -> bool:
            if not under_way.stopped:  # who comes later can't take back what has ended for it
                under_way.stopped = self._closing or all(gone() for gone in tuple(under_way.askers))
            return under_way.stopped

        begun = self._clock()
        try:
            if stopped():
                raise Abandoned
            value = build(stopped)
        except Exception as error:
            if stopped():
                raise Abandoned from error
            raise
        took = self._clock() - begun
        return Snapshot(value, begun, begun + took + max(self._kept_for, _TIMES * took))

    def _end(self, key: Hashable, done: asyncio.Future[Snapshot[Any]], weigh: Callable[[Any], int]) -> None:
        del self._under_way[key]
        if done.cancelled() or done.exception() is not None:
            return
        self.done += 1
        gathered = done.result()
        self._keep(key, gathered, weigh(gathered.value))

    def _keep(self, key: Hashable, gathered: Snapshot[Any], weight: int) -> None:
        self._left += self._kept.pop(key, (None, 0))[1] - weight
        self._kept[key] = gathered, weight
        while self._left < 0:
            self._left += self._kept.popitem(last=False)[1][1]
