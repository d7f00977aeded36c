"""An event loop on which waiting takes no time: where nothing can be done, its clock jumps to the next timer.

So what takes a minute is tested in a moment, and with the real time-outs. What is waited for is on the loop
itself (sockets, both ends of them), in its executors, or in a store's threads (`with_stores`): only then does
the clock stand. What other threads and processes do looks as if it took for ever.

Computing takes the time that it takes, or none (`weightless`): then what comes of rates and round trips is
the same on a machine that has much else to do.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar, TypeVarTuple

import pytest

from blobflow.transports.store.state.group_commit import GroupCommit

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# The kernel may be a moment late with what one socket has for another: so long nothing has to happen
# (seconds) before the clock jumps.
_SETTLED = 0.002


class _Jumping(selectors.DefaultSelector):
    """Waits for hardly any time, and says how much of it was saved; `least` seconds are waited. `in_threads`:
    what threads are at."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.saved = 0.0
        self.in_threads = 0
        self._least = least

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= self._least or self.in_threads:
            return super().select(timeout)
        found = super().select(min(timeout, _SETTLED))
        if not found:
            self.saved += timeout
        return found


class Timelapse(asyncio.SelectorEventLoop):
    def __init__(self, *, weightless: bool = False) -> None:
        self.jumping = _Jumping(0.0 if weightless else _SETTLED)
        self._weightless = weightless
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.saved if self._weightless else super().time() + self.jumping.saved

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        self.jumping.in_threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _: asyncio.Future[Any]) -> None:
        self.jumping.in_threads -= 1


def with_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock stand while a store writes for who waits for it."""
    real = GroupCommit.commit

    async def commit(self: GroupCommit, job: Any) -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Timelapse)
        loop.jumping.in_threads += 1
        try:
            return await real(self, job)
        finally:
            loop.jumping.in_threads -= 1

    monkeypatch.setattr(GroupCommit, "commit", commit)


def lapse(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on such a loop."""
    with asyncio.Runner(loop_factory=Timelapse) as runner:
        return runner.run(work)


def weightless(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The test, run on such a loop, on which computing takes no time."""

    @functools.wraps(test)
    def run(*arguments: P.args, **options: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=lambda: Timelapse(weightless=True)) as runner:
            runner.run(test(*arguments, **options))

    return run


def lapsing(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The test, run on such a loop."""

    @functools.wraps(test)
    def run(*arguments: P.args, **options: P.kwargs) -> None:
        lapse(test(*arguments, **options))

    return run
