"""Which figure is held against which, and how much it may be. Pure.

A goal is a ratio of two subjects' figures in one run, or a figure by itself. `theirs` may name several
subjects: the best of those that took part counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from bench.measurements import Medians

PEERS = tuple(
    f"{name}{tuning}"
    for name in ("skopeo", "crane", "regctl", "regsync", "oras", "docker")
    for tuning in ("", ", tuned")
)
BEFORE = ("earlier build",)


class Goal(msgspec.Struct, frozen=True):
    """`bound`: what the value may be at most, or with `at` "least" has to be; None: it is only told.

    `unit` divides a figure that is held against nothing; `suffix` is its name.
    """

    title: str
    run: str
    figure: str
    ours: str = "blobflow"
    theirs: tuple[str, ...] = ()
    bound: float | None = None
    at: Literal["most", "least"] = "most"
    other_figure: str = ""
    unit: float = 1.0
    suffix: str = ""


def _floor(title: str, run: str, bound: float = 1.3) -> Goal:
    return Goal(title, run, "cpu", theirs=("pump",), bound=bound)


# What people wait for: giant layers, far sources, many tags.
WAITS: Sequence[Goal] = (
    Goal("giant layer, far source, wall, against before", "giant-layer", "wall", theirs=BEFORE, bound=0.2),
    Goal(
        "giant layer, far source, wall, against its floor",
        "giant-layer",
        "wall",
        theirs=("8 raw connections",),
        bound=1.6,
    ),
    Goal(
        "giant layer, far source, wall, against what 8 connections carry",
        "giant-layer",
        "wall",
        theirs=("floor of 8 connections",),
        bound=1.6,
    ),
    Goal("giant layer, far source, peak memory", "giant-layer", "peak", bound=150.0, unit=1e6, suffix=" MB"),
    Goal("giant layer, far source, wall, against the fastest peer", "giant-layer", "wall", theirs=PEERS),
    Goal("far source, wall, against before", "far-source", "wall", theirs=BEFORE, bound=0.65),
    Goal(
        "four images of 300 MiB, wall, against the fastest peer", "few-huge", "wall", theirs=PEERS, bound=0.9
    ),
    Goal("four images of 300 MiB, CPU, against before", "few-huge", "cpu", theirs=BEFORE, bound=0.5),
    Goal("8 streams of one process, wall, against the pump", "giant-8", "wall", theirs=("pump",), bound=1.1),
    Goal(
        "2,000 tags unchanged, 20 ms, wall, against the fastest peer",
        "many-tags",
        "wall",
        theirs=PEERS,
        bound=0.8,
    ),
    Goal("2,000 tags unchanged, 20 ms, wall, against before", "many-tags", "wall", theirs=BEFORE),
    Goal(
        "under a second prefix, bytes sent",
        "second-prefix",
        "bytes_written",
        bound=0.0,
        unit=1e6,
        suffix=" MB",
    ),
    Goal("under a second prefix, wall, against the fastest peer", "second-prefix", "wall", theirs=PEERS),
    Goal("cold, wall, against the fastest peer", "cold", "wall", theirs=PEERS, bound=0.6),
    Goal("long path both ends, wall, against before", "long-path", "wall", theirs=BEFORE, bound=0.85),
    _floor("from the store, our CPU, against sendfile", "store-out", 1.1),
    Goal("load of a gzip'ed archive, wall, against before", "load", "wall", theirs=BEFORE, bound=0.8),
)


# What N workers take of the time of one, each behind a line of its own: an N-th, and so much over it.
SHARING_OUT = 1.15
CLUSTERS: Sequence[Goal] = (
    Goal("one worker, wall, against no engine", "workers", "wall", "blobflow, 1 worker", ("blobflow",), 1.05),
    *(
        Goal(
            f"{n} workers, wall, against one",
            "workers",
            "wall",
            f"blobflow, {n} workers",
            ("blobflow, 1 worker",),
            SHARING_OUT / n,
        )
        for n in (2, 4, 8)
    ),
    Goal(
        "10,000 images by workers, scheduler's peak memory",
        "cluster-10000",
        "scheduler_peak",
        ours="blobflow, 2 workers",
        bound=1000.0,
        unit=1e6,
        suffix=" MB",
    ),
    Goal(
        "10,000 images by workers, coordinator's peak memory",
        "cluster-10000",
        "peak",
        ours="blobflow, 2 workers",
        bound=1000.0,
        unit=1e6,
        suffix=" MB",
    ),
    Goal(
        "10,000 images by workers, overhead a blob",
        "cluster-10000",
        "ms_per_blob",
        ours="blobflow, 2 workers",
        bound=4.0,
        suffix=" ms",
    ),
    Goal(
        "2 processes on this machine, wall, against one",
        "giant-8",
        "wall",
        ours="blobflow, local:2",
        theirs=("blobflow",),
    ),
)

GOALS: Sequence[Goal] = (
    *WAITS,
    *CLUSTERS,
    Goal("cold, wall, against skopeo", "cold", "wall", theirs=("skopeo",), bound=0.45),
    Goal(
        "cold, wall, against half of all CPU seconds, registries included",
        "cold",
        "wall",
        theirs=("blobflow",),
        other_figure="half_cpu",
    ),
    Goal("cold, our CPU, against skopeo's", "cold", "cpu", theirs=("skopeo",), bound=0.40),
    Goal("long path, wall, against skopeo", "long-path", "wall", theirs=("skopeo",), bound=0.06),
    Goal(
        "long path, wall, against its floor",
        "long-path",
        "wall",
        theirs=("floor of 8 connections",),
        bound=1.3,
    ),
    Goal(
        "nothing changed, wall, against imports and HEADs",
        "unchanged-floor",
        "wall",
        theirs=("imports and HEADs",),
        bound=1.3,
    ),
    _floor("one 2 GiB blob, our CPU, against the pump, 1 stream", "giant"),
    _floor("the same, 8 streams", "giant-8"),
    _floor("the same over TLS, 1 stream", "giant-tls"),
    _floor("the same over TLS, 8 streams", "giant-tls-8"),
    _floor("into the store, our CPU, against the pump with a file", "store-in"),
    Goal("peak memory, 16 blobs of 1 GiB", "memory", "peak", bound=120.0, unit=1e6, suffix=" MB"),
    Goal(
        "plan 10,000 images, time, against 1,000",
        "plan-scale",
        "seconds",
        ours="10,000 images",
        theirs=("1,000 images",),
        bound=11.0,
    ),
    Goal(
        "plan 10,000 images, peak memory",
        "plan-scale",
        "peak",
        ours="10,000 images",
        bound=600.0,
        unit=1e6,
        suffix=" MB",
    ),
    Goal(
        "2,000 tags unchanged, 20 ms, requests a second",
        "many-tags",
        "requests_per_second",
        bound=1000.0,
        at="least",
        suffix="/s",
    ),
    Goal(
        "200 signed images under a policy, far path, wall, against the same unsigned",
        "signed",
        "wall",
        ours="blobflow, signed, --policy",
        theirs=("blobflow, unsigned",),
        bound=1.2,
    ),
    Goal(
        "blobflow --help, wall, against python -c pass",
        "help",
        "wall",
        ours="blobflow --help",
        theirs=("python -c pass",),
        bound=6.0,
    ),
)


class Verdict(msgspec.Struct, frozen=True):
    """What became of a goal. `met`: None where nothing is demanded; `against`: whom it was held against, and
    `seconds`: ours and theirs."""

    goal: Goal
    value: float
    against: str
    seconds: tuple[float, float] | None
    met: bool | None
    commands: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The value, for people; of a ratio what it was made of too."""
        if self.seconds is None:
            digits = ".3g" if self.value < 10 else ".0f"
            return f"{self.value:{digits}}{self.goal.suffix}"
        ratio = f"{self.value:.3f} x" if self.value < 0.1 else f"{self.value:.2f} x"
        ours, theirs = self.seconds
        return f"{ratio} ({ours:.3g} / {theirs:.3g} s)"

    @property
    def demanded(self) -> str:
        goal = self.goal
        if goal.bound is None:
            return "told"
        sign = "≤" if goal.at == "most" else "≥"
        return f"{sign} {goal.bound:g}{' x' if goal.theirs else goal.suffix}"

    @property
    def word(self) -> str:
        """Whether it was met, and if not, by how much not."""
        if self.met is None or self.goal.bound is None:
            return ""
        if self.met:
            return "met"
        if not self.goal.bound:
            return "missed"
        missed = self.value / self.goal.bound if self.goal.at == "most" else self.goal.bound / self.value
        return f"missed, by {(missed - 1) * 100:.0f} %"


def judge(found: Medians, goals: Sequence[Goal] = GOALS) -> Iterator[Verdict]:
    """The goals that there are figures for, in their order."""
    for goal in goals:
        subjects = found.get(goal.run, {})
        mine = subjects.get(goal.ours)
        if mine is None or goal.figure not in mine.figures:
            continue
        value, against, commands = mine.figures[goal.figure] / goal.unit, "", [mine.command]
        seconds = None
        if goal.theirs:
            figure = goal.other_figure or goal.figure
            others = {
                name: subjects[name]
                for name in goal.theirs
                if name in subjects and subjects[name].figures.get(figure)
            }
            if not others:
                continue
            against = min(others, key=lambda name: others[name].figures[figure])
            seconds = (mine.figures[goal.figure], others[against].figures[figure])
            value = seconds[0] / seconds[1]
            commands.append(others[against].command)
        met = None
        if goal.bound is not None:
            met = value <= goal.bound if goal.at == "most" else value >= goal.bound
        told = tuple(dict.fromkeys(command for command in commands if command))
        yield Verdict(goal, value, against, seconds, met, told)
