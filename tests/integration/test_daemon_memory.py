"""A sync that stays is as large after many runs as after a few: counted, in its own process.

tools/soak_sync.py looks at memory, from outside and for long.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from blobflow.oci.sample_images import SampleSet, sample_set
from tests.deadlines import HANGS_AFTER
from tests.scenarios.registries import fill, registries
from tools.checkout import TOP
from tools.processes import environment
from tools.registry.faulty import JournallingRegistry

RUNS = 12
WARM = 3  # runs after which all that is imported and remembered is there
FEW = 4  # objects that all runs together may leave; each would leave one, of a leak
IMAGES = 3

Counts = dict[str, int]


def images_of(seed: int) -> SampleSet:
    return sample_set(seed, images=IMAGES, architectures=("amd64",), layer_size=4096)


class Stayer:
    """The process, one run at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ran(self) -> Counts:
        """What there is after the run that is under way."""
        assert self._process.stdout is not None
        async with asyncio.timeout(HANGS_AFTER):
            line = await self._process.stdout.readline()
        assert line, "it ended"
        counts: Counts = json.loads(line)
        return counts

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def end(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(HANGS_AFTER):
            return await self._process.wait()


@asynccontextmanager
async def staying(*arguments: str, home: Path) -> AsyncIterator[Stayer]:
    (home / "tmp").mkdir(parents=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.scenarios.daemon_child", "sync", "--quiet", *arguments),
        cwd=TOP,
        env={**environment(home), "TMPDIR": str(home / "tmp")},
        stdin=PIPE,
        stdout=PIPE,
    )
    try:
        yield Stayer(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def counts_of(
    tmp_path: Path,
    *arguments: str,
    between: Callable[[JournallingRegistry, int], None] = lambda source, run: None,
    also: tuple[str, ...] = (),
) -> tuple[list[Counts], list[int]]:
    """Counts after each of RUNS runs, and the requests that the target had got by then. `also`: images that
    the source has not."""
    images = images_of(1)
    async with registries(tmp_path, ["source", "target"]) as (source, target):
        fill(source.store, images)
        (tmp_path / "images.txt").write_text("\n".join([*images.images, *also]))
        places = ["--from", source.host, "--to", f"{target.host}/m", "--images", str(tmp_path / "images.txt")]
        async with staying(*places, *arguments, home=tmp_path / "home") as stayer:
            counts, requests = [], []
            for run in range(1, RUNS + 1):
                counts.append(await stayer.ran())
                requests.append(len(target.journal))
                between(source, run)
                if run < RUNS:
                    stayer.go_on()
            assert await stayer.end() == 0
    return counts, requests


def assert_flat(counts: list[Counts]) -> None:
    first, last = counts[WARM], counts[-1]
    assert last["objects"] - first["objects"] <= FEW < RUNS - WARM - 1
    assert {**last, "objects": 0} == {**first, "objects": 0}


def changed(source: JournallingRegistry, run: int) -> None:
    """Other content under the same names, after each run."""
    fill(source.store, images_of(1 + run))


@pytest.mark.parametrize(
    ("arguments", "also"),
    [
        (("--every", "1s"), ()),
        (("--cron", "* * * * *"), ()),
        (("--every", "1s", "--cache", "off"), ()),
        (("--every", "1s", "--cache", "all"), ()),
        (("--every", "1s", "--log-format", "json"), ("no/such:image",)),
        (("--every", "1s", "--metrics-listen", "127.0.0.1:0", "--metrics-file", "FILE"), ()),
    ],
    ids=["every", "cron", "cache-off", "cache-all", "failing", "metrics"],
)
async def test_a_run_that_finds_nothing_new_leaves_nothing(
    tmp_path: Path, arguments: tuple[str, ...], also: tuple[str, ...]
) -> None:
    words = [word.replace("FILE", str(tmp_path / "b.prom")) for word in arguments]
    # No two runs are the same with the rolling audit: that has a test of its own.
    counts, requests = await counts_of(tmp_path, *words, "--audit", "none", also=also)
    assert requests[-1] > requests[1] > 0  # with --cron the first count is before the first run
    assert_flat(counts)
    assert counts[WARM]["folders"] == 0


async def test_runs_that_look_below_what_is_there_leave_nothing_either(tmp_path: Path) -> None:
    counts, _ = await counts_of(tmp_path, "--every", "1s", "--audit", "all")
    assert_flat(counts)


async def test_runs_that_move_something_leave_nothing_either(tmp_path: Path) -> None:
    counts, requests = await counts_of(tmp_path, "--every", "1s", between=changed)
    moved = [after - before for before, after in pairwise(requests)]
    assert min(moved) > 2 * IMAGES, "or nothing was moved"
    assert_flat(counts)
