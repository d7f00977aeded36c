"""The event loop of the process, and the signals that end it.

Ctrl-C      cancels the work: it takes back or writes down what it began, and the report is still written
SIGHUP      the same, where nobody takes it for something else: the terminal went away. Where it is ignored
            (nohup), or means another thing (a schedule), it stays so
SIGTERM     the same, but what is under way may end first, for so many seconds: nothing new is started
Ctrl-Z      stops it, and leaves the terminal as a shell wants it
a second    ends the process at once; not a second SIGHUP, since a shell sends another one to its jobs
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar

import uvloop

from blobflow.cli.exit_codes import INTERRUPTED
from blobflow.cli.output.stdio import sanitize_log_output
from blobflow.waits import Waits

_T = TypeVar("_T")
# What a process may have open: many times the connections that a machine of this kind can answer, and as many
# blobs on their way to a slow target as most sets have.
MAX_OPEN_FILES = 65_536
_SHUTDOWN_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A progress display may have drawn below the cursor, and hidden it (DECTCEM).
_LEAVE_DISPLAY = "\r\x1b[J\x1b[?25h"


def run_loop(work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work` to its end on uvloop. Raises KeyboardInterrupt if a signal cancelled it."""
    sanitize_log_output()
    raise_open_file_limit()
    # Not what the task returns: Runner.run takes its signal handler away by functions of `signal` that format
    # the handler, its task and the task's result, whole, and throw that away (CPython 3.11, 3.12). Of a large
    # plan that is a hundred megabytes.
    results: list[_T] = []

    async def kept() -> None:
        results.append(await _interruptible(work))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(kept())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    return results[0]


def raise_open_file_limit() -> None:
    """Raise this process's limit of open files (sockets are such) to what the system lets it have, up to
    MOST_FILES. Where the system refuses (macOS, above a limit that it does not tell) it stays as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Shutdown:
    """How the work of this process ends on a signal.

    `requested`: a signal came; `began`: the loop has acted on it. On SIGTERM `wind_down` is called, which
    starts nothing new and returns whether anything is under way; the work then has `grace` seconds to end by
    itself before it is cancelled. That the work is ending is among the `waits`, if there are any.
    """

    def __init__(self) -> None:
        self.requested = False
        self.began = False
        self.winding_down = False
        self.wind_down: Callable[[], bool] = lambda: False
        self.grace = 0.0
        self.waits: Waits | None = None

    def begin(self, number: int, task: asyncio.Task[Any]) -> None:
        """The first signal came. On the loop's thread."""
        self.began = True
        if number == signal.SIGTERM and self.grace and self.wind_down():
            self.winding_down = True
            self._tell("finishing what is under way", self.grace)
            asyncio.get_running_loop().call_later(self.grace, task.cancel)
        else:
            self._tell("interrupted: leaving what is under way for a later run to go on with")
            task.cancel()

    def _tell(self, what: str, seconds: float | None = None) -> None:
        if self.waits is not None:
            self.waits.begin("end", "", what, seconds=seconds)


SHUTDOWN: ContextVar[Shutdown] = ContextVar("shutdown")


async def _interruptible(work: Coroutine[Any, Any, _T]) -> _T:
    task = asyncio.current_task()
    assert task is not None
    shutdown = Shutdown()
    SHUTDOWN.set(shutdown)
    with _signals_shut_down(task, shutdown):
        result = await work
    if shutdown.winding_down or (shutdown.requested and not shutdown.began):
        raise asyncio.CancelledError  # the work ended by itself, before its time or before it was told
    return result


def _leave_display() -> None:
    if sys.stderr.isatty():
        with suppress(OSError):
            os.write(sys.stderr.fileno(), _LEAVE_DISPLAY.encode())


@contextmanager
def _signals_shut_down(task: asyncio.Task[Any], shutdown: Shutdown) -> Iterator[None]:
    """While inside, the first signal begins the end and the second ends the process.

    Plain signal handlers, not the loop's: they run also while the loop is busy. Outside the main thread
    Python takes no handlers, and whoever runs us there has another way to stop.
    """
    loop = asyncio.get_running_loop()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if shutdown.requested and number == signal.SIGHUP:
            return
        if shutdown.requested:
            _leave_display()
            os._exit(INTERRUPTED)
        shutdown.requested = True
        loop.call_soon_threadsafe(shutdown.begin, number, task)

    def on_stop(number: int, frame: FrameType | None) -> None:
        _leave_display()
        os.kill(os.getpid(), signal.SIGSTOP)

    try:
        before = {
            number: signal.signal(number, on_signal)
            for number in _SHUTDOWN_SIGNALS
            if number != signal.SIGHUP or signal.getsignal(number) is signal.SIG_DFL
        }
        if sys.stderr.isatty() and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
            before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, on_stop)
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former if former is not None else signal.SIG_DFL)
