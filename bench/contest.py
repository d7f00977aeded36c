"""One tool in one scenario, seen from outside: processes, their clocks, and what the registries were asked.

Source and targets are those of ends.py. Figures of a run:

    wall, cpu, peak         of the tool; peak is its largest process's
    source_cpu, target_cpu  of the registries, from /proc; target_cpu of all targets together
    path_cpu                of the relays that make a path long
    half_cpu                half of all these CPU seconds: as fast as 2 cores can be
    source_requests, …      as the registries' own logs have them; bytes are those of blobs
    requests_per_second     at both ends together
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bench.ends import End, ending, fill, new_folder
from bench.measurements import Measured
from bench.path_floor import floor_seconds
from bench.peers import BLOBS_AT_ONCE, RAW, Scene, Tool
from bench.scenarios import SCENARIOS, Scenario, following, layout_of
from tools.imageset import Layout
from tools.processes import empty, run

# A tool that has not ended by then has failed: seconds, far beyond what any of them takes.
PATIENCE = 1800.0
# Who takes longer than so many seconds is measured once: another round would say nothing new.
LONG_RUN = 60.0
# Connections to a registry at blobflow's defaults: what floors are reckoned with.
CONNECTIONS = 8


class Entry(msgspec.Struct, frozen=True):
    """Who takes part: a tool, by its name, at its defaults or tuned."""

    name: str
    tool: Tool
    tuned: bool = False

    @property
    def subject(self) -> str:
        """Its name in a record."""
        return f"{self.name}, tuned" if self.tuned else self.name


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
    with ending(scenario, scenario.source_path, new_folder(folder), seed=1) as source:
        fill(layout, source)
        yield Field(name, scenario, layout, source, folder)


def bout(field: Field, entry: Entry, then: Sequence[str], profile: Path | None = None) -> Iterator[Measured]:
    """One tool, once, from nothing; then the scenarios that follow on the state it leaves."""
    place = new_folder(field.folder)
    home = place / "home"
    home.mkdir()
    scenario = field.scenario
    with ExitStack() as stack:
        stack.callback(empty, home)
        targets = [
            stack.enter_context(
                ending(scenario, scenario.target_path, place / f"target-{number}", seed=number + 2)
            )
            for number in range(scenario.targets)
        ]
        scene = Scene(
            field.layout,
            field.source.host,
            tuple(target.host for target in targets),
            home,
            tuned=entry.tuned,
            at_once=scenario.at_once,
            faults=bool(scenario.faults),
            profile=profile,
        )
        entry.tool.forget()
        if scenario.filled:
            for target in targets:
                fill(field.layout, target, scene.prefix, entry.tool.lands)
            if entry.tool.remembers:
                run(entry.tool.work(scene).one(home), home, PATIENCE)
        for name in (field.name, *then):
            scene = msgspec.structs.replace(scene, prefix=SCENARIOS[name].prefix)
            yield measure(name, entry, scene, field.source, targets)


def measure(name: str, entry: Entry, scene: Scene, source: End, targets: Sequence[End]) -> Measured:
    """Run a tool once in the scenario of that name, and look at everything around it."""
    work = entry.tool.work(scene)
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
    asked = sum(each.requests for each in written)
    figures: dict[str, float] = {
        "wall": done.wall,
        "cpu": done.cpu,
        "peak": done.peak,
        "source_cpu": source_cpu,
        "target_cpu": target_cpu,
        "path_cpu": path_cpu,
        "half_cpu": (done.cpu + source_cpu + target_cpu + path_cpu) / 2,
        "source_requests": read.requests,
        "target_requests": asked,
        "requests_per_second": (read.requests + asked) / done.wall,
        "bytes_read": read.sent,
        "bytes_written": sum(each.taken for each in written),
        "mounts": sum(each.mounts for each in written),
    }
    failed = failed or lacking(entry.tool, scene, targets)
    return Measured(name, entry.subject, figures, work.told(), failed)


def lacking(tool: Tool, scene: Scene, targets: Sequence[End]) -> str:
    """What a tool did not bring, as a sentence; "" if all of it is there."""
    if not tool.mirrors:
        return ""
    for target in targets:
        for image in scene.layout.images.values():
            repository = f"{scene.prefix}/{tool.lands(image.repository)}"
            if target.digest_of(repository, image.tag) != image.digest:
                return f"left {repository}:{image.tag} without the digest of its source"
    return ""


class Contest(msgspec.Struct, frozen=True):
    """Which scenarios are run, by which tools (by name), how often.

    `tunings`: how blobflow and its other builds take part (False: at the defaults, True: tuned); `peers`: how
    the others do. `profile`: where blobflow's profile is written, the last run's over those before.
    """

    scenarios: Sequence[str]
    tools: Mapping[str, Tool]
    rounds: int
    tunings: Sequence[bool] = (False, True)
    peers: Sequence[bool] = (False, True)
    scale: float = 1.0
    profile: Path | None = None

    def entries(self, scenario: Scenario) -> list[Entry]:
        """Who takes part in a scenario. An earlier build does at its defaults."""
        entries = []
        for name, tool in self.tools.items():
            for tuned in self.tunings if name == "blobflow" else (False,) if tool.ours else self.peers:
                entries.append(Entry(name, tool, tuned))
        if self.profile is None:
            entries += [Entry(name, RAW[name]) for name in scenario.raw]
        return entries


def floors(field: Field, tunings: Sequence[bool]) -> Iterator[Measured]:
    """How fast a scenario could be at best where a slow line decides that: rows beside the tools' own."""
    ways = field.scenario.source_path, field.scenario.target_path
    if not any(way and way.rate for way in ways):
        return
    for tuned in tunings:
        connections = BLOBS_AT_ONCE if tuned else CONNECTIONS
        seconds = floor_seconds(field.layout, *ways, connections)
        yield Measured(field.name, f"floor of {connections} connections", {"wall": seconds})


def in_turns(entries: Sequence[Entry], rounds: int, finished: Collection[str]) -> Iterator[Entry]:
    """The entries, round by round, another one first each time, without the subjects that are `finished` by
    then."""
    for number in range(rounds):
        first = number % len(entries)
        for entry in [*entries[first:], *entries[:first]]:
            if entry.subject not in finished:
                yield entry


def hold(contest: Contest, debian: Layout | None, folder: Path) -> Iterator[Measured]:
    """Run every tool in every scenario, round by round; who takes very long, in the first round only."""
    for first, then in following(contest.scenarios):
        with fielded(first, debian, folder, contest.scale) as field:
            slow: set[str] = set()
            for entry in in_turns(contest.entries(field.scenario), contest.rounds, slow):
                for row in bout(field, entry, then, contest.profile):
                    if row.figures["wall"] > LONG_RUN and not entry.tool.ours:
                        slow.add(entry.subject)
                    if row.run in contest.scenarios:
                        yield row
            if first in contest.scenarios:
                yield from floors(field, contest.tunings)
