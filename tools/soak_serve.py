"""Whether `blobflow serve` stays as it is through a million requests: its memory, its answers, its promises.

    python -m tools.soak_serve [--requests 1000000] [--repositories 200] [--seed 1] [--bound 1.15] …

Clients (16) push, mount, tag, pull, list, delete, cancel, break off and ask nonsense, at random from a
seed, each in repositories of its own; so it is known which status each request deserves. tools/loads/mix
has the requests and how often they come. From time to time `blobflow cache gc --max-size 0` runs beside it
in a process of its own; what no repository holds any more is made old for it, so that the store does not
grow.

The memory of serve (RSS) is told at each twentieth of the requests. At the end all that was acknowledged
and not deleted is looked for once more, after a last gc. Exit status 1: RSS at the end is more than --bound
times what it was after a tenth; an answer was wrong (a 5xx or none always is); something acknowledged was
lost; gc failed, or serve ended. Arguments that make no sense: 2.

Read the ratio of long runs only: caches have a size up to which they fill, and a short run ends before
(after some 60,000 requests serve's 32 MiB of small blobs are full). A million requests take some 10 to 20
minutes of a machine with two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import uvloop

from tools.checkout import TOP
from tools.loads.conversation import converse_each
from tools.loads.gc_process import Sweep, sweep
from tools.loads.mix.actions import living
from tools.loads.mix.client import MixedClient, Tally
from tools.loads.old_blobs import age_orphans
from tools.loads.served import ServeEnded, resident_bytes, served
from tools.processes import Registry, blobflow_of

_PARTS = 20  # of the requests, at each of which memory is looked at
_MIB = 1024 * 1024
# Seconds after which a blob belongs to a repository, or to none: until then it may be on its way into one.
_SETTLED_SECONDS = 5.0


class Asked(msgspec.Struct, frozen=True):
    """`sweeps`: runs of gc while the clients are at it, evenly spread. `serve`: its arguments; `checkout`:
    whose."""

    requests: int
    repositories: int = 200
    clients: int = 16
    seed: int = 1
    sweeps: int = 20
    serve: tuple[str, ...] = ()
    checkout: Path = TOP


class Sample(msgspec.Struct, frozen=True):
    """How serve stood after so many requests: seconds since the beginning, its CPU seconds, its RSS in
    bytes."""

    requests: int
    seconds: float
    cpu: float
    resident: int


class Report(msgspec.Struct, frozen=True):
    """`statuses` by kind and status (0: no answer; -1: none was waited for). `wrong`: answers of another
    status than they deserve, the first of which are `shown`; `failed`: those with 5xx, or none."""

    samples: list[Sample]
    statuses: dict[tuple[str, int], int]
    wrong: int
    failed: int
    shown: list[str]
    sweeps: list[Sweep]

    @property
    def growth(self) -> float:
        """RSS at the end, by RSS at a tenth."""
        tenth = next(each for each in self.samples if 10 * each.requests >= self.samples[-1].requests)
        return self.samples[-1].resident / tenth.resident

    @property
    def right(self) -> bool:
        """Whether every answer was right, and every gc ended well. It says nothing of memory."""
        return not self.wrong and not any(each.failure for each in self.sweeps)


def soak(asked: Asked, folder: Path, observe: Callable[[Sample], None] = lambda _: None) -> Report:
    """Start serve with its store under `folder`, and do all that; `observe` is told each sample.

    Raises ServeEnded.
    """
    with (
        served(folder, asked.serve, asked.checkout) as registry,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_Soak(asked, folder, registry, observe).run())


class _Soak:
    """One soak. `_due`: set when gc is to run."""

    def __init__(
        self, asked: Asked, folder: Path, registry: Registry, observe: Callable[[Sample], None]
    ) -> None:
        self._asked = asked
        self._folder = folder
        self._registry = registry
        self._observe = observe
        self._begun = time.monotonic()
        self._samples: list[Sample] = []
        self._sweeps: list[Sweep] = []
        self._due = asyncio.Event()
        self._over = False
        self._tally = Tally(self._counted)

    def _counted(self, requests: int) -> None:
        if self._ends_part(requests, _PARTS):
            self._sample(requests)
        if self._ends_part(requests, self._asked.sweeps):
            self._due.set()

    def _ends_part(self, requests: int, parts: int) -> bool:
        """Whether one of so many equal parts of all requests ends with this one."""
        total = self._asked.requests
        return requests <= total and requests * parts // total > (requests - 1) * parts // total

    def _sample(self, requests: int) -> None:
        pid = self._registry.process.pid
        seconds = time.monotonic() - self._begun
        self._samples.append(Sample(requests, seconds, self._registry.cpu_seconds(), resident_bytes(pid)))
        self._observe(self._samples[-1])

    async def run(self) -> Report:
        host = self._registry.host
        clients = [
            MixedClient(
                host,
                [f"soak/{number}" for number in range(part, self._asked.repositories, self._asked.clients)],
                Random(f"{self._asked.seed}/{part}"),
                self._tally,
            )
            for part in range(min(self._asked.clients, self._asked.repositories))
        ]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sweep_when_due())
            await converse_each(host, [living(client, self._going) for client in clients])
            self._over = True
            self._due.set()
        await self._sweep(0.0)
        await converse_each(host, [client.look_again() for client in clients])
        tally = self._tally
        return Report(
            self._samples, dict(tally.statuses), tally.wrong, tally.failed, tally.shown, self._sweeps
        )

    def _going(self) -> bool:
        return self._tally.requests < self._asked.requests

    async def _sweep_when_due(self) -> None:
        while not self._over:
            await self._due.wait()
            self._due.clear()
            if not self._over:
                await self._sweep(_SETTLED_SECONDS)

    async def _sweep(self, settled: float) -> None:
        await asyncio.to_thread(age_orphans, self._registry.root, settled)
        self._sweeps.append(await sweep(self._registry.root, self._folder, checkout=self._asked.checkout))


def told(report: Report, bound: float) -> str:
    """What was answered, by kind, and what came of it."""
    kinds: dict[str, Counter[int]] = {}
    for (kind, status), count in report.statuses.items():
        kinds.setdefault(kind, Counter())[status] = count
    lines = [
        f"{kind:34} " + ", ".join(f"{_status(status)} {count:,}" for status, count in sorted(found.items()))
        for kind, found in sorted(kinds.items())
    ]
    failures = [each.failure for each in report.sweeps if each.failure]
    seconds = sum(each.seconds for each in report.sweeps)
    lines += [
        f"gc: runs {len(report.sweeps)}, failed {len(failures)}, blobs removed "
        f"{sum(each.removed for each in report.sweeps):,}, {seconds:.0f} s in all",
        f"answers: wrong {report.wrong:,}; of these 5xx or none {report.failed:,}",
        *report.shown,
        *failures,
        f"RSS at the end by RSS at a tenth: {report.growth:.3f} x (bound {bound:g}: "
        f"{'kept' if report.growth <= bound else 'exceeded'})",
    ]
    return "\n".join(lines)


def _status(status: int) -> str:
    return {0: "no answer", -1: "cut"}.get(status, str(status))


def _line(total: int, sample: Sample) -> str:
    return (
        f"{100 * sample.requests / total:4.0f} % {sample.requests:>10,} requests {sample.seconds:7.0f} s "
        f"{sample.requests / sample.seconds:7,.0f}/s   serve: RSS {sample.resident / _MIB:6.1f} MiB, "
        f"CPU {sample.cpu:7.1f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000, help="of all kinds, at least 20 [1000000]")
    parser.add_argument("--repositories", type=int, default=200, help="[200]")
    parser.add_argument("--clients", type=int, default=16, help="connections at once [16]")
    parser.add_argument("--seed", type=int, default=1, help="of all that is drawn [1]")
    parser.add_argument("--sweeps", type=int, default=20, help="runs of gc meanwhile [20]")
    parser.add_argument(
        "--bound", type=float, default=1.15, help="of RSS at the end, by RSS at a tenth [1.15]"
    )
    parser.add_argument("--serve", default="", metavar="ARGUMENTS", help="of `blobflow serve`")
    parser.add_argument(
        "--checkout", type=Path, default=TOP, metavar="DIR", help="soak the blobflow of another checkout"
    )
    wish = parser.parse_args()
    if wish.requests < _PARTS or min(wish.repositories, wish.clients) < 1 or wish.sweeps < 0:
        parser.error(
            f"at least {_PARTS} requests, one repository and one client, and no fewer sweeps than none"
        )
    try:
        blobflow_of(wish.checkout)
    except FileNotFoundError as error:
        parser.error(str(error))
    asked = Asked(
        requests=wish.requests,
        repositories=wish.repositories,
        clients=wish.clients,
        seed=wish.seed,
        sweeps=wish.sweeps,
        serve=tuple(shlex.split(wish.serve)),
        checkout=wish.checkout,
    )
    with tempfile.TemporaryDirectory(prefix="soak-serve-") as folder:
        try:
            report = soak(asked, Path(folder), lambda each: print(_line(wish.requests, each), flush=True))
        except ServeEnded as error:
            print(f"soak_serve: {error}", file=sys.stderr)
            return 1
    print(told(report, wish.bound))
    return int(not report.right or report.growth > wish.bound)


if __name__ == "__main__":
    sys.exit(main())
