"""The ends of a mirror: registries, what they were asked, and the way there.

Debian's docker-registry on loopback, the faulty registry where requests are to fail, or `blobflow serve`
where a registry that is slower than its clients would hide them; on a long path a relay stands before it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import msgspec

from bench.scenarios import Scenario
from tools import imageset
from tools.checkout import TOP
from tools.imageset import Layout
from tools.network_path import Shape
from tools.processes import (
    Registry,
    blobflow_serve,
    cpu_seconds_of,
    docker_registry,
    empty,
    faulty_registry,
)

# How often a faulty registry is asked for a tag before its answer is believed.
ASKED = 5
# A push of a set goes on until something fails, some hundred requests later; so often it is tried again.
FILLINGS = 100


class Tally(msgspec.Struct, frozen=True):
    """What a registry was asked: requests, mounts done, and bytes of blobs in and out."""

    requests: int
    mounts: int
    taken: int
    sent: int


class Logged(msgspec.Struct, frozen=True):
    """A line of the faulty registry's journal, as far as it is counted."""

    method: str
    path: str
    query: dict[str, str]
    status: int
    received: int
    sent: int


class Way(msgspec.Struct, frozen=True):
    """A relay: where it is, and its process."""

    host: str
    pid: int

    def cpu_seconds(self) -> float:
        return cpu_seconds_of(self.pid)


class End:
    """One end of a mirror: a registry, and the host at which tools find it, maybe beyond a long path."""

    def __init__(self, registry: Registry, way: Way | None, journal: Path | None) -> None:
        self.registry = registry
        self.host = way.host if way else registry.host
        self._way = way
        self._journal = journal
        self._seen = 0
        self._cpu = self._way_cpu = 0.0

    @property
    def fails(self) -> bool:
        """Whether requests are made to fail here."""
        return self._journal is not None

    def forget(self) -> None:
        """Begin a new count."""
        if self._journal is None:
            self.registry.forget()
        else:
            self._seen = self._journal.stat().st_size if self._journal.exists() else 0
        self._cpu = self.registry.cpu_seconds()
        self._way_cpu = self._way.cpu_seconds() if self._way else 0.0

    @property
    def cpu(self) -> float:
        """Seconds of the registry since `forget`."""
        return self.registry.cpu_seconds() - self._cpu

    @property
    def way_cpu(self) -> float:
        """Seconds of what makes the way long, since `forget`."""
        return self._way.cpu_seconds() - self._way_cpu if self._way else 0.0

    def tally(self, sizes: dict[str, int]) -> Tally:
        """What was asked since `forget`; `sizes` in bytes of all blobs of the set by digest."""
        return self._from_log(sizes) if self._journal is None else self._from_journal(self._journal)

    def digest_of(self, repository: str, tag: str) -> str | None:
        """What the tag names; one that fails at random is asked again."""
        for _ in range(1 if self._journal is None else ASKED):
            try:
                if found := self.registry.digest_of(repository, tag):
                    return found
            except OSError:
                continue
        return None

    def _from_log(self, sizes: dict[str, int]) -> Tally:
        asked = self.registry.requests()
        taken = sum(sizes.get(digest, 0) * count for digest, count in asked.uploads().items())
        return Tally(len(asked), len(asked.mounts_201()), taken, asked.bytes_of_blobs_read())

    def _from_journal(self, journal: Path) -> Tally:
        with journal.open("rb") as lines:
            lines.seek(self._seen)
            asked = [msgspec.json.decode(line, type=Logged) for line in lines]
        mounts = sum("mount" in each.query and each.status == 201 for each in asked)
        blobs = [each for each in asked if "/blobs/" in each.path]
        taken = sum(each.received for each in blobs)
        return Tally(len(asked), mounts, taken, sum(each.sent for each in blobs if each.method == "GET"))


@contextmanager
def ending(scenario: Scenario, path: Shape | None, folder: Path, seed: int) -> Iterator[End]:
    """A new, empty registry for a scenario, at the end of `path`; its files go with `folder`. `seed`: of its
    faults, if any."""
    with ExitStack() as stack:
        journal = None
        if scenario.faults:
            journal = folder / "journal.jsonl"
            fault = f"* /v2/ times=0 sometimes percent={scenario.faults} seed={seed}"
            registry = stack.enter_context(faulty_registry(folder, journal, fault, leave=empty))
        elif scenario.served:
            log = ["--access-log", "combined", "--access-log-file", str(folder / "access.log")]
            registry = stack.enter_context(blobflow_serve(folder, *log))
        else:
            registry = stack.enter_context(docker_registry(folder, leave=empty))
        way = None if path is None else stack.enter_context(relay(registry.host, path))
        yield End(registry, way, journal)


def new_folder(beside: Path) -> Path:
    """A folder that no run had before. What runs leave is emptied, and only removed when all have ended."""
    place = next(path for path in (beside / str(number) for number in count(1)) if not path.exists())
    place.mkdir()
    return place


@contextmanager
def relay(to: str, shape: Shape) -> Iterator[Way]:
    """A process that makes the way to `to` long, to be talked to instead."""
    words = [sys.executable, "-m", "tools.network_path", "--to", to, "--rtt", str(shape.rtt)]
    words += ["--rate", str(int(shape.rate))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=TOP) as process:
        try:
            assert process.stdout is not None
            yield Way(process.stdout.readline().split()[-1], process.pid)
        finally:
            process.terminate()
            process.communicate()  # it says what passed, and must be heard out


def fill(layout: Layout, end: End, prefix: str = "", lands: Callable[[str], str] = str) -> None:
    """Push the set, past whatever way there is to the end; a faulty registry keeps what it has taken, and is
    tried again. `prefix`, `lands`: what its repositories are named there. Raises ImageSetError."""
    for left in reversed(range(FILLINGS if end.fails else 1)):
        try:
            imageset.push(layout.path, end.registry.host, prefix, lands)
            return
        except imageset.ImageSetError:
            if not left:
                raise
