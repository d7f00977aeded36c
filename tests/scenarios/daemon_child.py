"""A `blobflow sync` that stays, in a process of its own that counts what there is between its runs.

    python -m tests.scenarios.daemon_child ARGUMENT…

Runs the command line as it stands, but for the time between two runs. After each it prints as JSON what there
is: event loops, tasks, objects that the collector looks at or has frozen, open files, threads, entries of the
folder for temporary files. It goes on when it is given a line, and ends with its input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import yarl

from blobflow.cli import cli
from blobflow.cli.runtime import scheduler
from blobflow.cli.runtime.scheduler import WakeReason


def counted() -> dict[str, int]:
    # yarl remembers the last 128 URLs that it was given, each with what it found out of it.
    every = gc.get_objects()
    remembered = {id(part) for each in every if isinstance(each, yarl.URL) for part in (each, each._cache)}
    alive = [each for each in every if id(each) not in remembered]
    return {
        "loops": sum(isinstance(each, asyncio.AbstractEventLoop) for each in alive),
        "tasks": sum(isinstance(each, asyncio.Task) for each in alive),
        "objects": len(alive) + gc.get_freeze_count(),
        "files": len([*Path("/proc/self/fd").iterdir()]),
        "threads": threading.active_count(),
        "folders": len([*Path(tempfile.gettempdir()).iterdir()]),
    }


class HurriedScheduler:
    """A clock on which waiting takes no time, and that stands otherwise."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ended = False

    def clock(self) -> float:
        return self._now

    def wait(self, seconds: float) -> WakeReason:
        self._now += seconds
        return WakeReason.STOP if self._ended else WakeReason.DUE

    def announce(self, start: float) -> None:
        print(json.dumps(counted()), flush=True)
        self._ended = not sys.stdin.readline()


def main(arguments: list[str]) -> None:
    hurry = HurriedScheduler()
    given = {"wait": hurry.wait, "clock": hurry.clock, "announce": hurry.announce}
    vars(scheduler)["run_on_schedule"] = partial(_in_a_hurry, scheduler.run_on_schedule, given)
    cli(arguments, prog_name="blobflow", standalone_mode=False)


def _in_a_hurry(
    real: Callable[..., None], ours: Mapping[str, object], *words: object, **given: object
) -> None:
    real(*words, **{**given, **ours})


if __name__ == "__main__":
    main(sys.argv[1:])
