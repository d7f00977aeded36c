"""A `blobflow sync` that stays, in a process of its own that counts what there is between its runs.

    python -m tests.flow.lasting RUNS ARGUMENT…

Runs the command line as it stands with the arguments of `sync`, but for the time between two runs, which is
none, and its end, which comes after so many; then prints as JSON what there was after each: event loops, tasks,
objects that the collector looks at or has frozen, open files, threads, entries of the folder for temporary
files.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
import threading

from blobflow.cli import door, rounds, timetable


def counted() -> dict[str, int]:
    alive = gc.get_objects()
    return {
        "loops": sum(isinstance(each, asyncio.AbstractEventLoop) for each in alive),
        "tasks": sum(isinstance(each, asyncio.Task) for each in alive),
        "objects": len(alive) + gc.get_freeze_count(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "folders": len(os.listdir(tempfile.gettempdir())),
    }


def main(runs: int, arguments: list[str]) -> None:
    counts: list[dict[str, int]] = []

    def wait(self: rounds.Signals, seconds: float) -> rounds.Wake:
        counts.append(counted())
        return rounds.Wake.STOP if len(counts) == runs else rounds.Wake.DUE

    vars(timetable)["parse_span"] = lambda text: 0.001
    type.__setattr__(rounds.Signals, "wait", wait)
    door([*arguments, "--every", "1s"], prog_name="blobflow", standalone_mode=False)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
