"""A mirror in a process of its own that tells how much memory it holds: the measured part of the soak.

    python -m tests.scenarios.soak_child SOURCE TARGET CACHE FIRST < names

Mirrors the first FIRST images of the names, one a line, then the rest, in one process, and prints as JSON
what became of them and the resident memory after each part. Back-off takes no time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from functools import partial
from pathlib import Path

import uvloop

from blobflow import composition
from blobflow.engine.execution import Run
from blobflow.engine.pairs import Pair
from blobflow.engine.services import Services
from blobflow.oci import Reference
from blobflow.settings import Settings
from blobflow.transports.registry import Registries
from tests.library import mirror


def resident() -> int:
    """The bytes of memory that this process holds now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


class HurriedClock:
    """A clock that goes as clocks do, but for sleeps: these are over at once, and have been."""

    def __init__(self) -> None:
        self._slept = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._slept

    async def sleep(self, seconds: float) -> None:
        self._slept += seconds
        await asyncio.sleep(0)


async def _mirrored(names: list[str], source: str, target: str, cache: Path) -> dict[str, object]:
    pairs = []
    for name in names:
        repository, _, tag = name.rpartition(":")
        pairs.append(Pair(Reference(source, repository, tag), Reference(target, repository, tag)))
    runs: list[Run] = []
    report = await mirror(pairs, Settings(cache_dir=cache), on_start=runs.append)
    return {
        "arrived": sum(image.status in ("done", "present") for image in report.images),
        "errors": [str(error) for error in runs[0].errors.values()],
        "requests": report.totals.requests,
        "seconds": round(report.totals.seconds, 2),
        "resident": resident(),
    }


async def _main(source: str, target: str, cache: str, first: str) -> None:
    names = sys.stdin.read().split()
    clock = HurriedClock()
    patched = vars(composition)
    patched["Registries"] = partial(Registries, sleep=clock.sleep, clock=clock)
    patched["World"] = partial(Services, sleep=clock.sleep)
    parts = [names[: int(first)], names[int(first) :]]
    print(json.dumps([await _mirrored(part, source, target, Path(cache)) for part in parts]))


if __name__ == "__main__":
    uvloop.run(_main(*sys.argv[1:]))
