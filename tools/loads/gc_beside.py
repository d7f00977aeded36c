"""What clients feel of `cache gc`: the times of small pulls and pushes without it, and while it runs.

Every request has a moment at which it is due, and its time counts from then if its connection was not free:
so a server that stands still for a second has as many slow requests as were due in that second, and not one
a client. What only the client was late with doesn't count. Requests that were due before gc ended are made
to the end.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import msgspec
import uvloop

from tools.loads.conversation import Answer, Script, Step, Timed, converse_each
from tools.loads.gc_process import Sweep, sweep
from tools.loads.old_blobs import add_old_blobs
from tools.loads.requests import MANIFEST, expect, fresh, image_of, request, upload
from tools.loads.served import served
from tools.processes import Registry

CLIENTS = 16  # half of them pull, the others push
GOAL = 5.0  # times the p99 of pulls without gc
REPOSITORY = "bench/app"
_BLOB = 4096  # bytes of one that is old, and of one that is pushed
_IMAGES = 50
_LAYERS = 3
_LAYER = 1024

T = TypeVar("T")


class Asked(msgspec.Struct, frozen=True):
    """`blobs`: old ones, that gc is to remove. `seconds` of measuring, without gc and with it, a round.
    `pulls` and `pushes` a second, of all clients; 0: as fast as they can. `serve`: its arguments; `under`:
    words put before gc's command."""

    blobs: int
    seconds: float
    rounds: int
    pulls: float
    pushes: float
    serve: tuple[str, ...] = ()
    under: tuple[str, ...] = ()


class Times(msgspec.Struct, frozen=True):
    """Seconds that each took."""

    pulls: list[float]
    pushes: list[float]


class Round(msgspec.Struct, frozen=True):
    """`alone`; while a process computed (`core`); `beside` gc. `sweeps`: the runs of gc that were
    measured."""

    alone: Times
    core: Times
    beside: Times
    sweeps: list[Sweep]


class Report(msgspec.Struct, frozen=True):
    """`statuses`: how many, by what was asked ("pull", "push", "look again") and status; 0: no answer came.
    `lost`: digests whose upload was answered 201, and that were not there afterwards."""

    rounds: list[Round]
    statuses: dict[tuple[str, int], int]
    lost: list[str]

    @property
    def failures(self) -> list[str]:
        """What gc said when it failed."""
        return [each.failure for one in self.rounds for each in one.sweeps if each.failure]

    @property
    def wrong(self) -> bool:
        """Whether anything went wrong, time aside."""
        return bool(self.lost or self.failures) or any(
            status not in (200, 201) for _, status in self.statuses
        )


def measure(checkout: Path, folder: Path, asked: Asked) -> Report:
    """Start serve of a checkout with its store under `folder`, and measure. Raises ServeEnded, and
    RuntimeError when even filling it fails."""
    with (
        served(folder, asked.serve, checkout) as registry,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_measure(registry, checkout, folder, asked))


async def _measure(registry: Registry, checkout: Path, folder: Path, asked: Asked) -> Report:
    images = [[fresh(_LAYER) for _ in range(_LAYERS + 1)] for _ in range(_IMAGES)]
    paths = [f"/v2/{REPOSITORY}/manifests/{tag}" for tag in range(_IMAGES)]
    paths += [f"/v2/{REPOSITORY}/blobs/{blob.digest}" for image in images for blob in image]

    def filling() -> Script:
        for tag, image in enumerate(images):
            for content in image:
                answer, _ = yield from upload(registry.host, REPOSITORY, content)
                expect(answer, 201)
            path = f"/v2/{REPOSITORY}/manifests/{tag}"
            expect((yield request(registry.host, "PUT", path, image_of(*image), kind=MANIFEST)), 201)

    await converse_each(registry.host, [filling()])
    clients = _Clients(registry.host, paths, asked)
    rounds = []
    for _ in range(asked.rounds):
        add_old_blobs(registry.root, asked.blobs, _BLOB)
        alone, _nothing = await clients.busy(asyncio.sleep(asked.seconds))
        core, _nothing = await clients.busy(_computing(asked.seconds))
        beside, sweeps = Times([], []), list[Sweep]()
        while sum(each.seconds for each in sweeps) < asked.seconds:
            if sweeps:
                add_old_blobs(registry.root, asked.blobs, _BLOB)
            times, swept = await clients.busy(
                sweep(registry.root, folder, checkout=checkout, under=asked.under)
            )
            beside.pulls.extend(times.pulls)
            beside.pushes.extend(times.pushes)
            sweeps.append(swept)
            if swept.failure:
                break
        rounds.append(Round(alone, core, beside, sweeps))
        await clients.look_again()
    return Report(rounds, dict(clients.statuses), clients.lost)


async def _computing(seconds: float) -> None:
    """A process that does nothing but compute, for so long."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
    try:
        await asyncio.sleep(seconds)
    finally:
        process.kill()
        await process.wait()


class _Clients:
    """The clients: what they were answered, and what they were promised (`lost`: and did not find again)."""

    def __init__(self, host: str, paths: Sequence[str], asked: Asked) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.lost: list[str] = []
        self._pushed: list[str] = []
        self._host = host
        self._pulls = cycle([request(host, "GET", path, headers=f"Accept: {MANIFEST}\r\n") for path in paths])
        self._asked = asked
        self._ended: float | None = None  # until when requests are due; None: that is not known yet

    async def busy(self, during: Awaitable[T]) -> tuple[Times, T]:
        """Pull and push until `during` is over; what each took, and what `during` returned."""
        self._ended = None
        times = Times([], [])
        each = CLIENTS // 2
        scripts = [
            *self._paced(self._pull, times.pulls, self._asked.pulls, each),
            *self._paced(self._push, times.pushes, self._asked.pushes, each),
        ]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(converse_each(self._host, scripts))
            returned = await during
            self._ended = time.monotonic()
        return times, returned

    def _paced(
        self,
        ask: Callable[[float], Generator[Step, Answer, float]],
        times: list[float],
        rate: float,
        clients: int,
    ) -> Iterator[Script]:
        """Scripts for so many clients that make `rate` requests a second together, evenly spread."""
        every = clients / rate if rate else 0.0
        begun = time.monotonic()
        for number in range(clients):
            yield self._one(ask, times, every, begun + every * number / clients)

    def _one(
        self,
        ask: Callable[[float], Generator[Step, Answer, float]],
        times: list[float],
        every: float,
        due: float,
    ) -> Script:
        free = 0.0
        while self._ended is None or due < self._ended:
            sent = yield from ask(due)
            now = time.monotonic()
            times.append(now - (due if free > due else sent))
            free = now
            due = due + every if every else now

    def _pull(self, due: float) -> Generator[Step, Answer, float]:
        answer = yield Timed(next(self._pulls), due)
        self.statuses["pull", answer.status] += 1
        return answer.sent

    def _push(self, due: float) -> Generator[Step, Answer, float]:
        content = fresh(_BLOB)
        answer, sent = yield from upload(self._host, REPOSITORY, content, due)
        self.statuses["push", answer.status] += 1
        if answer.status == 201:
            self._pushed.append(content.digest)
        return sent

    async def look_again(self) -> None:
        """HEAD what was pushed since the last time."""
        pushed, self._pushed = self._pushed, []

        def looking(digests: Sequence[str]) -> Script:
            for digest in digests:
                answer = yield request(self._host, "HEAD", f"/v2/{REPOSITORY}/blobs/{digest}")
                self.statuses["look again", answer.status] += 1
                if answer.status != 200:
                    self.lost.append(digest)

        await converse_each(self._host, [looking(pushed[part::CLIENTS]) for part in range(CLIENTS)])


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that `part` of all values don't exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else math.nan


def told(report: Report) -> str:
    """A few lines: medians over the rounds (of `max` the largest), in milliseconds, ratios, and counts."""
    alone = [each.alone for each in report.rounds]
    core = [each.core for each in report.rounds]
    beside = [each.beside for each in report.rounds]
    pulls, pushes = _ratios(beside, alone, "pulls"), _ratios(beside, alone, "pushes")
    ratio, computing = statistics.median(pulls), statistics.median(_ratios(core, alone, "pulls"))
    counts = ", ".join(
        f"{what} {status or 'without an answer'}: {count:,}"
        for (what, status), count in sorted(report.statuses.items())
    )
    failed = sum(count for (_, status), count in report.statuses.items() if status >= 500 or not status)
    sweeps = [each for one in report.rounds for each in one.sweeps]
    lines = [
        f"{'ms':15}{'pulls: p50':>13}{'p99':>9}{'max':>9}{'pushes: p50':>13}{'p99':>9}{'max':>9}",
        f"{'without gc':15}{_row(alone, 'pulls')}{_row(alone, 'pushes')}",
        f"{'one core busy':15}{_row(core, 'pulls')}{_row(core, 'pushes')}",
        f"{'while gc runs':15}{_row(beside, 'pulls')}{_row(beside, 'pushes')}",
        f"p99 of pulls beside gc by p99 without: {ratio:.2f} x (goal <= {GOAL:g}: "
        f"{'met' if ratio <= GOAL else 'missed'}; rounds: {min(pulls):.2f} to {max(pulls):.2f})",
        f"p99 of pulls beside a process that only computes by p99 without: {computing:.2f} x",
        f"p99 of pushes beside gc by p99 without: {statistics.median(pushes):.2f} x",
        f"{counts}; 5xx or no answer: {failed}; answered 201 and lost: {len(report.lost)}",
        f"gc: runs {len(sweeps)}, blobs removed {sum(each.removed for each in sweeps):,}, "
        f"seconds a run {statistics.median(each.seconds for each in sweeps):.2f} (median)",
    ]
    return "\n".join(lines + report.failures)


def _row(found: Sequence[Times], kind: str) -> str:
    """p50, p99 and the largest, of pulls or pushes."""
    values: list[list[float]] = [getattr(times, kind) for times in found]
    middle = statistics.median(quantile(each, 0.5) for each in values)
    high = statistics.median(quantile(each, 0.99) for each in values)
    largest = max(max(each, default=math.nan) for each in values)
    return f"{1e3 * middle:13.2f}{1e3 * high:9.2f}{1e3 * largest:9.2f}"


def _ratios(found: Sequence[Times], alone: Sequence[Times], kind: str) -> list[float]:
    """p99 by p99 without gc, of each round."""
    return [
        quantile(getattr(one, kind), 0.99) / quantile(getattr(other, kind), 0.99)
        for one, other in zip(found, alone, strict=True)
    ]
