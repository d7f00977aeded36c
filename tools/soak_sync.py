"""Whether a `blobflow sync --every` stays as it is through hundreds of runs: memory, files, threads, folders.

    python -m tools.soak_sync [--runs 300] [--change-every 0] [--registry docker] [--against CHECKOUT] …

A real `blobflow sync --every 1s` mirrors a small set from a `blobflow serve` into a docker-registry (or into
another serve: `--registry blobflow`). It is looked at from outside after each run, by what Linux tells of the
process. With `--change-every N` the source has another image after each N runs, so that there is something to
move. `--against` takes another checkout's blobflow, to compare with.

Exit status 1: RSS at the end is more than --bound times what it was at run 30; or there are more open files,
threads or temporary folders than then; or sync ended. A run takes as long as the span, so 300 are some five
minutes.
"""

from __future__ import annotations

import argparse
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from tools import imageset
from tools.checkout import TOP
from tools.loads.served import resident_bytes
from tools.processes import Registry, blobflow_of, blobflow_serve, docker_registry, environment

START = 30  # the run from which on everything has to be flat
_BOUND_SECONDS = 120.0  # for one run, on whatever machine
_MIB = 1024 * 1024
_RUN_ENDS = re.compile(r"next run at")


class SyncEnded(Exception):
    """The process that was to stay did not."""


class Asked(msgspec.Struct, frozen=True):
    """`change_every`: runs after which the source has another image, 0 for never. `checkout`: whose blobflow.
    `arguments`: further ones of sync's."""

    runs: int
    change_every: int = 0
    images: int = 8
    registry: str = "docker"
    checkout: Path = TOP
    span: str = "1s"
    arguments: tuple[str, ...] = ()


class Sample(msgspec.Struct, frozen=True):
    """The process after a run: bytes of resident memory, open files, threads, entries of its TMPDIR."""

    run: int
    resident: int
    files: int
    threads: int
    folders: int


class Report(msgspec.Struct, frozen=True):
    samples: list[Sample]

    @property
    def start(self) -> Sample:
        return self.samples[min(START, len(self.samples)) - 1]

    @property
    def growth(self) -> float:
        """RSS at the end, by RSS at run 30."""
        return self.samples[-1].resident / self.start.resident

    @property
    def left(self) -> list[str]:
        """What there is more of at the end than at run 30, but for memory."""
        first, last = (
            {"files": each.files, "threads": each.threads, "temporary": each.folders}
            for each in (self.start, self.samples[-1])
        )
        return [
            f"{name}: {first[name]} at run {self.start.run}, {last[name]} at the end"
            for name in first
            if last[name] > first[name]
        ]


def soak(asked: Asked, folder: Path, observe: Callable[[Sample], None] = lambda _: None) -> Report:
    """Let sync make its runs, with all that is kept under `folder`; `observe` is told each sample.

    Raises SyncEnded.
    """
    with ExitStack() as stack:
        source = stack.enter_context(blobflow_serve(folder / "source"))
        opened = docker_registry if asked.registry == "docker" else blobflow_serve
        target = stack.enter_context(opened(folder / "target"))
        layout = imageset.synthetic(folder / "set", 1, images=asked.images, layer_size=16 * 1024)
        imageset.push(layout.path, source.host)
        images = folder / "images.txt"
        images.write_text("\n".join(layout.images))
        stayer = stack.enter_context(_staying(asked, folder, source, target, images))
        samples = []
        for run in range(1, asked.runs + 1):
            stayer.wait_for_a_run()
            samples.append(stayer.sample(run))
            observe(samples[-1])
            if asked.change_every and not run % asked.change_every:
                other = imageset.synthetic(folder / f"change-{run}", run, images=1, layer_size=16 * 1024)
                imageset.push(other.path, source.host)
        return Report(samples)


class _Stayer:
    """The process that stays, and a thread that reads what it says."""

    def __init__(self, process: subprocess.Popen[str], temporary: Path) -> None:
        self._process = process
        self._temporary = temporary
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for_a_run(self) -> None:
        """Until a run has ended. Raises SyncEnded with its last words."""
        said: list[str] = []
        while not said or not _RUN_ENDS.search(said[-1]):
            line = self._lines.get(timeout=_BOUND_SECONDS)
            if line is None:
                raise SyncEnded(f"sync ended with status {self._process.wait()}: {''.join(said[-20:])}")
            said.append(line)

    def sample(self, run: int) -> Sample:
        process = Path("/proc") / str(self._process.pid)
        return Sample(
            run,
            resident_bytes(self._process.pid),
            _entries(process / "fd"),
            _entries(process / "task"),
            _entries(self._temporary),
        )


def _entries(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


@contextmanager
def _staying(
    asked: Asked, folder: Path, source: Registry, target: Registry, images: Path
) -> Iterator[_Stayer]:
    temporary = folder / "tmp"
    temporary.mkdir()
    places = ["--from", source.host, "--to", f"{target.host}/m", "--images", str(images)]
    with subprocess.Popen(
        [*blobflow_of(asked.checkout), "sync", *places, "--every", asked.span, *asked.arguments],
        cwd=asked.checkout,
        env={**environment(folder / "home"), "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        stayer = _Stayer(process, temporary)
        try:
            yield stayer
        finally:
            process.kill()
            process.wait()
            stayer.reader.join()


def told(report: Report, bound: float) -> str:
    last = report.samples[-1]
    runs = max(last.run - report.start.run, 1)
    return "\n".join(
        [
            *report.left,
            f"RSS at run {last.run} by RSS at run {report.start.run}: {report.growth:.3f} x, "
            f"{(last.resident - report.start.resident) / 1024 / runs:.1f} KiB a run "
            f"(bound {bound:g}: {'kept' if report.growth <= bound else 'exceeded'})",
        ]
    )


def _line(sample: Sample) -> str:
    return (
        f"{sample.run:5} runs: {sample.resident / _MIB:6.1f} MiB, {sample.files} files, "
        f"{sample.threads} threads, {sample.folders} temporary"
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--change-every", type=int, default=0, metavar="RUNS")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--registry", choices=["docker", "blobflow"], default="docker")
    parser.add_argument("--against", type=Path, default=TOP, metavar="CHECKOUT")
    parser.add_argument("--span", default="1s")
    parser.add_argument("--bound", type=float, default=1.1)
    parser.add_argument("arguments", nargs="*", metavar="SYNC_ARGUMENT", help="after --, for sync")
    given = parser.parse_args(argv)
    asked = Asked(
        given.runs,
        given.change_every,
        given.images,
        given.registry,
        given.against.resolve(),
        given.span,
        tuple(given.arguments),
    )

    def observe(sample: Sample) -> None:
        if sample.run in (1, 2, 10) or not sample.run % START:
            print(_line(sample), flush=True)

    with tempfile.TemporaryDirectory(prefix="soak-sync-") as folder:
        try:
            report = soak(asked, Path(folder), observe)
        except SyncEnded as error:
            print(error, file=sys.stderr)
            return 1
    print(told(report, given.bound))
    return 1 if report.growth > given.bound or report.left else 0


if __name__ == "__main__":
    sys.exit(main())
