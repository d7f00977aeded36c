"""Measurements as tables: plain for a terminal, with bars for a README."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.measurements import Median, Medians

# Title, figure, divisor and decimals of each column.
COLUMNS: tuple[tuple[str, str, float, int], ...] = (
    ("wall s", "wall", 1, 2),
    ("CPU s", "cpu", 1, 2),
    ("peak MB", "peak", 1e6, 0),
    ("scheduler MB", "scheduler_peak", 1e6, 0),
    ("ms a blob", "ms_per_blob", 1, 2),
    ("src CPU s", "source_cpu", 1, 2),
    ("dst CPU s", "target_cpu", 1, 2),
    ("path CPU s", "path_cpu", 1, 2),
    ("half CPU s", "half_cpu", 1, 2),
    ("src requests", "source_requests", 1, 0),
    ("dst requests", "target_requests", 1, 0),
    ("MB read", "bytes_read", 1e6, 1),
    ("MB written", "bytes_written", 1e6, 1),
    ("mounts", "mounts", 1, 0),
    ("requests/s", "requests_per_second", 1, 0),
)


def columns_of(found: Medians) -> list[tuple[str, str, float, int]]:
    """The columns that there are figures for."""
    names = {name for subjects in found.values() for each in subjects.values() for name in each.figures}
    return [column for column in COLUMNS if column[1] in names]


def rows_of(found: Medians) -> Iterator[list[str]]:
    """The heading, and a row for each run and subject; a failure is a row too."""
    columns = columns_of(found)
    yield ["run", "subject", "rounds", *(title for title, *_ in columns)]
    for run, subjects in found.items():
        for subject, measured in subjects.items():
            cells = [_cell(measured, name, unit, places) for _, name, unit, places in columns]
            name = subject + (" (failed)" if measured.failed else "")
            yield [run, name, str(measured.rounds), *cells]


def _cell(measured: Median, name: str, unit: float, places: int) -> str:
    value = measured.figures.get(name)
    return "" if value is None else f"{value / unit:.{places}f}"


def plain(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns for a terminal: two of words, the others of numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def barred(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows as a table of a README."""
    heading, *rest = rows
    yield f"| {' | '.join(heading)} |"
    yield f"|{'|'.join('---' for _ in heading)}|"
    for row in rest:
        cells = (cell.replace("|", "\\|") for cell in row)
        yield f"| {' | '.join(cells)} |"


def ratios(found: Medians) -> Iterator[str]:
    """How many times as long as the first subject of a run the others take."""
    for run, subjects in found.items():
        (ours, mine), *others = subjects.items()
        for subject, theirs in others:
            if (
                mine.failed
                or theirs.failed
                or not {"wall", "cpu"} <= mine.figures.keys() & theirs.figures.keys()
            ):
                continue
            wall = theirs.figures["wall"] / mine.figures["wall"]
            cpu = theirs.figures["cpu"] / mine.figures["cpu"]
            yield f"{run}: {subject} takes {wall:.2f} times the wall and {cpu:.2f} times the CPU of {ours}"


def walls(found: Medians) -> dict[str, dict[str, float]]:
    """The wall time of what did not always fail, by run and subject."""
    return {
        run: {name: row.figures["wall"] for name, row in subjects.items() if not row.failed}
        for run, subjects in found.items()
    }


def failures(found: Medians) -> Iterator[str]:
    for run, subjects in found.items():
        for subject, measured in subjects.items():
            if measured.failed:
                yield f"{run}: {subject} failed in {measured.failed}"
