"""One tool in one scenario, seen from outside: processes, their clocks, and what the registries were asked.

Source and targets are Debian's docker-registry on loopback, or the faulty registry where requests are to
fail; on a long path a relay stands before each. Figures of a run:

    wall, cpu, peak         of the tool; peak is its largest process's
    source_cpu, target_cpu  of the registries, from /proc; target_cpu of all targets together
    path_cpu                of the relays that make a path long
    half_cpu                half of all these CPU seconds: as fast as 2 cores can be
    source_requests, …      as the registries' own logs have them; bytes are those of blobs
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import msgspec

from bench.measurements import Measured
from bench.peers import PREFIX, TOOLS, Scene, Tool
from bench.scenarios import SCENARIOS, Scenario, following, layout_of
from tools import imageset
from tools.checkout import TOP
from tools.imageset import Layout
from tools.network_path import Shape
from tools.processes import Registry, cpu_seconds_of, docker_registry, empty, faulty_registry, run

# A tool that has not ended by then has failed: seconds, far beyond what any of them takes.
PATIENCE = 1800.0
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
        sent = sum(sizes.get(digest, 0) * count for digest, count in asked.reads_of_blobs().items())
        taken = sum(sizes.get(digest, 0) * count for digest, count in asked.uploads().items())
        return Tally(len(asked), len(asked.mounts_201()), taken, sent)

    def _from_journal(self, journal: Path) -> Tally:
        with journal.open("rb") as lines:
            lines.seek(self._seen)
            asked = [msgspec.json.decode(line, type=Logged) for line in lines]
        mounts = sum("mount" in each.query and each.status == 201 for each in asked)
        blobs = [each for each in asked if "/blobs/" in each.path]
        taken = sum(each.received for each in blobs)
        return Tally(len(asked), mounts, taken, sum(each.sent for each in blobs if each.method == "GET"))


@contextmanager
def ending(scenario: Scenario, folder: Path, seed: int) -> Iterator[End]:
    """A new, empty registry for a scenario; its files go with `folder`. `seed`: of its faults, if any."""
    with ExitStack() as stack:
        journal = None
        if scenario.faults:
            journal = folder / "journal.jsonl"
            fault = f"* /v2/ times=0 sometimes percent={scenario.faults} seed={seed}"
            registry = stack.enter_context(faulty_registry(folder, journal, fault, leave=empty))
        else:
            registry = stack.enter_context(docker_registry(folder, leave=empty))
        way = None
        if scenario.path is not None:
            way = stack.enter_context(relay(registry.host, scenario.path))
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


class Field(msgspec.Struct, frozen=True):
    """A scenario that is set up. `source` holds the set."""

    name: str
    scenario: Scenario
    layout: Layout
    source: End
    folder: Path


@contextmanager
def fielded(name: str, debian: Layout | None, folder: Path, scale: float) -> Iterator[Field]:
    """Set a scenario up under `folder`: its set, in a source registry."""
    scenario = SCENARIOS[name]
    layout = layout_of(scenario, debian, folder, scale)
    with ending(scenario, new_folder(folder), seed=1) as source:
        fill(layout, source.registry, patience=FILLINGS if scenario.faults else 1)
        yield Field(name, scenario, layout, source, folder)


def fill(layout: Layout, registry: Registry, patience: int) -> None:
    """Push the set, trying so often: a faulty registry keeps what it has taken. Raises ImageSetError."""
    program = str(TOP / "tools" / "imageset.py")
    for _ in range(patience):
        push = [sys.executable, program, "push", str(layout.path), registry.host]
        done = subprocess.run(push, capture_output=True, text=True, check=False)
        if not done.returncode:
            return
    raise imageset.ImageSetError(f"{registry.host} could not be filled: {done.stderr.strip()[-300:]}")


def bout(
    field: Field, name: str, tuned: bool, then: Sequence[str], profile: Path | None = None
) -> Iterator[Measured]:
    """One tool, once, from nothing; then the scenarios that follow on the state it leaves."""
    place = new_folder(field.folder)
    home = place / "home"
    home.mkdir()
    with ExitStack() as stack:
        stack.callback(empty, home)
        targets = [
            stack.enter_context(ending(field.scenario, place / f"target-{number}", seed=number + 2))
            for number in range(field.scenario.targets)
        ]
        hosts = tuple(target.host for target in targets)
        faults = bool(field.scenario.faults)
        scene = Scene(field.layout, field.source.host, hosts, home, tuned, faults, profile)
        TOOLS[name].forget()
        for scenario in (field.name, *then):
            yield measure(scenario, name, scene, field.source, targets)


def measure(scenario: str, name: str, scene: Scene, source: End, targets: Sequence[End]) -> Measured:
    """Run a tool once and look at everything around it."""
    tool = TOOLS[name]
    work = tool.work(scene)
    command = work.one(scene.home)
    os.sync()  # else this run waits for what the one before wrote
    for end in (source, *targets):
        end.forget()
    done = run(command, scene.home, PATIENCE)
    source_cpu, target_cpu = source.cpu, sum(target.cpu for target in targets)
    path_cpu = sum(end.way_cpu for end in (source, *targets))
    sizes = scene.layout.blobs
    read, written = source.tally(sizes), [target.tally(sizes) for target in targets]
    failed = ""
    if done.code:
        words = (done.err or done.out).strip().splitlines()
        failed = f"ended with {done.code}: {words[-1][-300:] if words else 'no word'}"
    figures: dict[str, float] = {
        "wall": done.wall,
        "cpu": done.cpu,
        "peak": done.peak,
        "source_cpu": source_cpu,
        "target_cpu": target_cpu,
        "path_cpu": path_cpu,
        "half_cpu": (done.cpu + source_cpu + target_cpu + path_cpu) / 2,
        "source_requests": read.requests,
        "target_requests": sum(each.requests for each in written),
        "bytes_read": read.sent,
        "bytes_written": sum(each.taken for each in written),
        "mounts": sum(each.mounts for each in written),
    }
    failed = failed or lacking(tool, scene, targets)
    return Measured(scenario, subject_of(name, scene.tuned), figures, work.told(), failed)


def subject_of(name: str, tuned: bool) -> str:
    return f"{name}, tuned" if tuned else name


def lacking(tool: Tool, scene: Scene, targets: Sequence[End]) -> str:
    """What a tool did not bring, as a sentence; "" if all of it is there."""
    for target in targets:
        for image in scene.layout.images.values():
            repository = f"{PREFIX}/{tool.lands(image.repository)}"
            if target.digest_of(repository, image.tag) != image.digest:
                return f"left {repository}:{image.tag} without the digest of its source"
    return ""


class Contest(msgspec.Struct, frozen=True):
    """Which scenarios are run, by which tools, how often. `tunings`: at the defaults, tuned, or both.

    `profile`: where blobflow's profile is written, the last run's over those before.
    """

    scenarios: Sequence[str]
    tools: Sequence[str]
    rounds: int
    tunings: Sequence[bool] = (False, True)
    scale: float = 1.0
    profile: Path | None = None

    def turn(self, number: int) -> list[tuple[str, bool]]:
        """Who runs in a round, another one first each time."""
        entries = [(tool, tuned) for tool in self.tools for tuned in self.tunings]
        first = number % len(entries)
        return entries[first:] + entries[:first]


def hold(contest: Contest, debian: Layout | None, folder: Path) -> Iterator[Measured]:
    """Run every tool in every scenario, round by round."""
    for first, then in following(contest.scenarios):
        with fielded(first, debian, folder, contest.scale) as field:
            for number in range(contest.rounds):
                for tool, tuned in contest.turn(number):
                    for row in bout(field, tool, tuned, then, contest.profile):
                        if row.run in contest.scenarios:
                            yield row
