"""A cluster for the tests of one file: a scheduler, workers behind gates, a source that all of them read."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.deadlines import HANGS_AFTER
from tests.e2e.cluster.gate import Gate, Gates, gates
from tests.scenarios.child_process import Child, child
from tools import imageset
from tools.cluster import Cluster, Part, cluster
from tools.imageset import Layout
from tools.processes import Registry, docker_registry

PREFIX = "m"
# A layer of a test's set, in bytes: far more than a gate lets pass, so that who stands there is in mid-blob.
LAYER = 300_000
# What a gate lets pass before it holds: less than the smallest of the blobs that are carried first.
SOME = 60_000
SEEDS = itertools.count(100)


class Source:
    """A docker-registry that each test fills with a set of its own, and ways to it."""

    def __init__(self, folder: Path, registry: Registry, ways: Gates) -> None:
        self.registry = registry
        self._folder = folder
        self.ways = ways

    def way(self) -> Gate:
        """A new gate before it."""
        return self.ways.to(self.registry.host)

    def make_known(self, target: Registry) -> None:
        """Put an older, small image into each repository that a set goes to: docker-registry 2.8.2 knows no
        repository without a manifest, and blobs that lie in one are uploaded again."""
        path = self._folder / "older"
        imageset.push(imageset.synthetic(path, seed=1, images=3, layer_size=4096).path, target.host, PREFIX)
        target.forget()

    def fill(self, images: int = 3) -> Layout:
        """A new set, whose requests are counted from now on."""
        seed = next(SEEDS)
        layout = imageset.synthetic(self._folder / f"set-{seed}", seed=seed, images=images, layer_size=LAYER)
        imageset.push(layout.path, self.registry.host)
        self.registry.forget()
        return layout


class Field:
    """The cluster of a file's tests, and what it carries: from the source, to whatever target a test has."""

    def __init__(self, made: Cluster, filled: Source) -> None:
        self.cluster = made
        self.filled = filled
        self.source = filled.registry
        self.workers: dict[str, Part] = {}
        self.gates: dict[str, Gate] = {}
        self.scheduler = made.start_scheduler()
        self._names = (f"worker-{number}" for number in itertools.count(1))

    def have(self, number: int) -> list[str]:
        """A scheduler, and exactly so many workers that live, all gates open: their names."""
        for gate in self.gates.values():
            gate.release()
        if self.scheduler.process.poll() is not None:
            self.scheduler = self.cluster.start_scheduler()
            self.cluster.stop(*self.workers.values())
            self.workers.clear()
        for name, part in list(self.workers.items()):
            if part.process.poll() is not None or len(self.workers) > number:
                self.kill(name)
        self.add(number - len(self.workers))
        return list(self.workers)

    def add(self, number: int, *, hold: int | None = None) -> list[str]:
        """So many workers more, that carry one blob at a time; at their gates they stand after `hold` bytes,
        if that is said."""
        names = [next(self._names) for _ in range(number)]
        for name in names:
            gate = self.gates[name] = self.filled.way()
            if hold is not None:
                gate.hold_after(hold)
            proxies = {self.source.host: gate.host}
            self.workers[name] = self.cluster.start_worker(
                name, "--connections", "1", proxies=proxies, wait=False
            )
        self.cluster.wait_for(*(self.workers[name] for name in names))
        return names

    def kill(self, name: str) -> Part:
        """By SIGKILL; once the scheduler knows."""
        part = self.workers.pop(name)
        self.cluster.stop(part)
        self.cluster.wait_without(part)
        return part

    def hold_after(self, names: Iterable[str], more: int) -> None:
        """Have these workers stand still once so many bytes more have come to each."""
        for name in names:
            self.gates[name].hold_after(more)

    async def until_held(self, names: Iterable[str]) -> None:
        """Wait until all of these workers stand in mid-blob."""
        for name in names:
            await self.gates[name].until_held()

    @asynccontextmanager
    async def syncing(
        self,
        layout: Layout,
        targets: Sequence[Registry],
        home: Path,
        *arguments: str,
    ) -> AsyncIterator[Child]:
        """`blobflow sync --engine` of the set to the targets."""
        words = ["--engine", self.cluster.engine, *arguments]
        places = [f"{target.host}/{PREFIX}" for target in targets]
        async with child(
            *words, home=home, images=[*layout.images], source=self.source.host, targets=places
        ) as run:
            yield run


@pytest.fixture(scope="module")
def source(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    folder = tmp_path_factory.mktemp("source")
    with docker_registry(folder / "registry") as registry, gates() as ways:
        yield Source(folder, registry, ways)


@pytest.fixture(scope="module")
def field(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with cluster(tmp_path_factory.mktemp("cluster"), warm=True) as made:
        yield Field(made, source)


def assert_whole(registry: Registry, layout: Layout, images: Sequence[str] | None = None) -> None:
    """Every image, or those, is at the registry under its tag."""
    for name in layout.images if images is None else images:
        image = layout.images[name]
        assert registry.digest_of(f"{PREFIX}/{image.repository}", image.tag) == image.digest


def assert_uploaded_once(registry: Registry, layout: Layout) -> None:
    assert registry.requests().uploads() == Counter(layout.blobs.keys())


def read_again(source: Registry, layout: Layout) -> Counter[str]:
    """What was read more often than once, and how often more. Every blob was read."""
    read = source.requests().reads_of_blobs()
    assert read.keys() == layout.blobs.keys()
    return read - Counter(layout.blobs.keys())


def open_sessions(registry: Registry) -> int:
    """How many uploads were begun since `forget`, and neither ended nor given up.

    By the log: docker-registry 2.8.2 keeps the folder of an upload that was deleted, too. 404 is for one that
    its registry has given up, since what came was not what its digest says, or that has just ended.
    """
    asked = registry.requests()
    over = {
        request.path
        for request in asked
        if "/blobs/uploads/" in request.path
        and (request.method, request.status) in {("PUT", 201), ("DELETE", 204), ("DELETE", 404)}
    }
    return asked.opened_uploads() - len(over)


async def until_closed(registry: Registry) -> None:
    """Wait until every upload has ended or was given up, also those of a run that is gone."""
    deadline = time.monotonic() + HANGS_AFTER
    while left := await asyncio.to_thread(open_sessions, registry):
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.05)


def told(run: Child) -> str:
    """Everything that the run said, for a message of a failed test and for searching in."""
    return "\n".join(str(event) for event in run.events)


def statuses(run: Child) -> Mapping[str, Any]:
    """What became of each image, by `repository:tag`, in the report."""
    prefix = f"/{PREFIX}/"
    return {row["target"].partition(prefix)[2]: row["status"] for row in run.report()["images"]}


def largest_of_one(layout: Layout) -> tuple[str, str]:
    """The largest blob that one image alone has, and that image."""
    owners = {
        digest: [name for name, image in layout.images.items() if digest in image.blobs]
        for digest in layout.blobs
    }
    digest = max((each for each in owners if len(owners[each]) == 1), key=lambda each: layout.blobs[each])
    return digest, owners[digest][0]


def poison(root: Path, digest: str) -> None:
    """Turn a byte of a blob around in a registry's storage."""
    encoded = digest.removeprefix("sha256:")
    file = root / "docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def processes_below(pid: int) -> list[int]:
    """The processes that a process has started and that still live, and those that they have."""
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):  # of each of its threads
        with suppress(OSError):  # it has ended
            found += [int(each) for each in children.read_text().split()]
    return [each for child_pid in found for each in (child_pid, *processes_below(child_pid))]
