"""One event loop a process, and the signals that end it.

The first Ctrl-C, and SIGTERM, cancel the work: it takes back or writes down what it began, and the report is
still written. A second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import uvloop

from blobflow.cli import INTERRUPTED

_T = TypeVar("_T")
_ENDING = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = "\x1b[?25h"  # a progress display may have hidden it (DECTCEM)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work` to its end on uvloop. Raises KeyboardInterrupt if a signal cancelled it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_interruptible(work))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _interruptible(work: Coroutine[Any, Any, _T]) -> _T:
    task = asyncio.current_task()
    assert task is not None
    with _signals_cancel(task):
        return await work


@contextmanager
def _signals_cancel(task: asyncio.Task[Any]) -> Iterator[None]:
    """While inside, the first signal cancels `task` and the second ends the process.

    Plain signal handlers, not the loop's: they run also while the loop is busy. Outside the main thread
    Python takes no handlers, and whoever runs us there has another way to stop.
    """
    loop = asyncio.get_running_loop()
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
            os._exit(INTERRUPTED)
        asked = True
        loop.call_soon_threadsafe(task.cancel)

    try:
        before = {number: signal.signal(number, on_signal) for number in _ENDING}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former if former is not None else signal.SIG_DFL)
