"""An event loop on which waiting takes no time: where nothing can be done, its clock jumps to the next timer.

So what takes a minute is tested in a moment, and with the real time-outs. All that is waited for has to be on
the loop itself (sockets, both ends of them): what threads do looks as if it took for ever.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# The kernel may be a moment late with what one socket has for another: so long nothing has to happen
# (seconds) before the clock jumps.
_SETTLED = 0.002


class _Jumping(selectors.DefaultSelector):
    """Waits for hardly any time, and says how much of it was saved."""

    def __init__(self) -> None:
        super().__init__()
        self.saved = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= _SETTLED:
            return super().select(timeout)
        found = super().select(_SETTLED)
        if not found:
            self.saved += timeout
        return found


class Timelapse(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return super().time() + self._jumping.saved


def lapse(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on such a loop."""
    with asyncio.Runner(loop_factory=Timelapse) as runner:
        return runner.run(work)
