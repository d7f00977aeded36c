"""What one run took, as a value; medians over rounds; and what has changed since an earlier record.

A measurement names its run (a scenario, or another named run), its subject (the tool, or the floor that it is
held against) and its figures by name. Names say the unit:

    wall, cpu, *_cpu, seconds   seconds; CPU is user and system together
    peak, *_peak                bytes of resident memory, of the largest process
    ms_per_*                    milliseconds
    bytes_*                     bytes of blobs
    *_per_second                what it says
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

import msgspec

# A difference to an earlier record that is worth a line; runs on a busy machine differ by some hundredths.
NOTICEABLE = 0.05


class Measured(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run. `command` made it; `failed`: what it ended with, if it did."""

    run: str
    subject: str
    figures: dict[str, float]
    command: str = ""
    failed: str = ""


class Median(msgspec.Struct, frozen=True, omit_defaults=True):
    """Several runs of a subject: each figure's median, and how many failed in which way."""

    figures: dict[str, float]
    command: str = ""
    failed: str = ""
    rounds: int = 1


# By run and subject.
Medians = dict[str, dict[str, Median]]


def medians(rows: Iterable[Measured]) -> Medians:
    """Of every figure by itself, by run and subject; of failed runs only that they failed."""
    together: dict[tuple[str, str], list[Measured]] = {}
    for row in rows:
        together.setdefault((row.run, row.subject), []).append(row)
    found: Medians = {}
    for (run, subject), all_of_them in together.items():
        good = [row for row in all_of_them if not row.failed]
        figures = {name: statistics.median(_column(good, name)) for name in good[0].figures} if good else {}
        failures = [row.failed for row in all_of_them if row.failed]
        failed = f"{len(failures)} of {len(all_of_them)}: {failures[0]}" if failures else ""
        command = all_of_them[0].command
        found.setdefault(run, {})[subject] = Median(figures, command, failed, len(all_of_them))
    return found


def _column(rows: Sequence[Measured], name: str) -> list[float]:
    return [row.figures[name] for row in rows if name in row.figures]


def ratios_by_round(rows: Sequence[Measured], ours: str, theirs: str) -> Iterator[str]:
    """A line a run and figure: our seconds by theirs of the same round, as the median and its spread. Where
    what disturbs the machine disturbs both, this says more than a ratio of medians."""
    for run in dict.fromkeys(row.run for row in rows):
        mine, others = (
            [row for row in rows if (row.run, row.subject) == (run, subject)] for subject in (ours, theirs)
        )
        pairs = [pair for pair in zip(mine, others, strict=False) if not (pair[0].failed or pair[1].failed)]
        for figure in ("wall", "cpu") if pairs else ():
            found = [one.figures[figure] / other.figures[figure] for one, other in pairs]
            spread = f"rounds {min(found):.3f} to {max(found):.3f}"
            yield f"{run}, {figure}: {statistics.median(found):.3f} x {theirs} ({spread})"


def differences(now: Medians, earlier: Medians) -> Iterator[str]:
    """A line for each figure that is in both and differs noticeably."""
    same = 0
    for run, subjects in now.items():
        for subject, measured in subjects.items():
            before = earlier.get(run, {}).get(subject)
            if before is None:
                continue
            for name, value in measured.figures.items():
                was = before.figures.get(name)
                if not was or abs(value / was - 1) < NOTICEABLE:
                    same += was is not None
                    continue
                change = f"{value / was:.2f} times what it was, {was:.4g} to {value:.4g}"
                yield f"{run}, {subject}: {name} {change}"
    yield f"{same} figures as they were, within {NOTICEABLE:.0%}"
