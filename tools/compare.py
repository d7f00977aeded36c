"""The same mirror made by blobflow and by other tools, in turn, on this machine, in one run.

    python -m tools.compare SET [--rounds N] [--scenario NAME]… [--tools NAMES] [--json FILE] [--svg FILE]

SET is the folder of `imageset.py make`. Source and target are docker-registry processes on loopback with
their storage on the disk of --folder. Each round runs each tool that is on PATH (skopeo, crane, regctl,
regsync, oras), another one first each time, at its defaults and with tuned concurrency. `--list` tells the
scenarios; by default it is these:

    cold        the target's storage is empty and the tool remembers nothing
    unchanged   the same again, at once: everything is there

What is measured is whole processes, from outside: wall time, CPU time (user and system) and peak memory of
the tool, CPU time of the registries, and from the registries' logs requests and bytes of blobs. Figures are
medians over the rounds. A run that fails, or leaves a tag that is not right, is told as such; if it is
blobflow's, the exit code is 1.

A tool is a row of bench/peers.py, a scenario one of bench/scenarios.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.chart import plot
from bench.contest import Contest, hold
from bench.machine import Machine, compile_all, describe
from bench.measurements import Measured, Median, Medians, medians
from bench.path_floor import floor_seconds
from bench.peers import BLOBS_AT_ONCE, TOOLS, present
from bench.scenarios import SCENARIOS
from bench.tables import failures, plain, ratios, rows_of
from tools import imageset
from tools.imageset import Layout

# Blobs at once of blobflow's defaults: what the floor of the long path is reckoned with.
CONNECTIONS = 8
TUNINGS = {"default": (False,), "tuned": (True,), "both": (False, True)}


class Comparison(msgspec.Struct, frozen=True):
    """What `--json` writes."""

    machine: Machine
    set: str
    medians: Medians
    runs: list[Measured]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    if arguments.list:
        for name, scenario in SCENARIOS.items():
            print(f"{name:14} {scenario.says}")
        return 0
    contest = Contest(
        scenarios=arguments.scenario or ["cold", "unchanged"],
        tools=arguments.tools,
        rounds=arguments.rounds,
        tunings=TUNINGS[arguments.tuning],
        scale=arguments.scale,
    )
    rows: list[Measured] = []
    try:
        layout = imageset.read_layout(arguments.set)
        compile_all()
        machine = describe(versions_of(arguments.tools))
        with tempfile.TemporaryDirectory(prefix="compare-", dir=arguments.folder) as folder:
            for row in hold(contest, layout, Path(folder)):
                rows.append(row)
                print(f"{row.run}: {row.subject} {_told(row)}", file=sys.stderr)
    except imageset.ImageSetError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    tell(machine, layout, rows + floors(contest, layout), arguments.json, arguments.svg)
    return int(any(row.failed for row in rows if row.subject.startswith("blobflow")))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare", description="Time the same mirror by several tools.")
    parser.add_argument("set", type=Path, nargs="?", help="the folder of `imageset.py make`")
    parser.add_argument("--list", action="store_true", help="tell the scenarios, and end")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scenario", action="append", choices=[*SCENARIOS], help="repeatable")
    parser.add_argument("--tools", help="names, separated by commas (default: those on PATH)")
    parser.add_argument("--tuning", choices=[*TUNINGS], default="both")
    parser.add_argument("--scale", type=float, default=1.0, help="of the layers of generated sets")
    parser.add_argument("--folder", type=Path, help="where the storage goes (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run and the medians")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="plot the medians of the wall time")
    arguments = parser.parse_args(argv)
    arguments.tools = arguments.tools.split(",") if arguments.tools else present()
    if unknown := set(arguments.tools) - set(TOOLS):
        parser.error(f"unknown tools: {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
    if missing := set(arguments.tools) - set(present()):
        parser.error(f"not on PATH: {', '.join(sorted(missing))}")
    if arguments.set is None and not arguments.list:
        parser.error("give the folder of an image set")
    return arguments


def versions_of(tools: Sequence[str]) -> dict[str, Sequence[str]]:
    """The commands that tell the versions of what takes part."""
    return {"docker-registry": ["docker-registry", "--version"]} | {
        name: TOOLS[name].version for name in tools
    }


def floors(contest: Contest, layout: Layout) -> list[Measured]:
    """How fast the long path could be at best, as rows beside those of the tools."""
    path = SCENARIOS["long-path"].path
    if "long-path" not in contest.scenarios or path is None:
        return []
    at_once = {False: CONNECTIONS, True: BLOBS_AT_ONCE}
    return [
        Measured(
            "long-path",
            f"floor of {at_once[tuned]} connections",
            {"wall": floor_seconds(layout, path, at_once[tuned])},
        )
        for tuned in contest.tunings
    ]


def tell(
    machine: Machine, layout: Layout, rows: Sequence[Measured], file: Path | None, svg: Path | None
) -> None:
    """Print what ran where, the commands and the medians; write it all into the files."""
    found = medians(rows)
    told = f"{len(layout.images)} images, {len(layout.blobs)} blobs, {layout.unique_bytes / 1e6:.1f} MB"
    rounds = max(each.rounds for _, _, each in _all(found))
    print(*machine.lines(), f"set: {told}; medians of {rounds}", sep="\n")
    print(
        *(f"{run}, {subject}: {each.command}" for run, subject, each in _all(found) if each.command), sep="\n"
    )
    print(*plain(list(rows_of(found))), *ratios(found), *failures(found), sep="\n")
    if file:
        content = Comparison(machine, told, found, list(rows))
        file.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
    if svg:
        svg.write_text(plot("The same mirror by several tools: wall time", "s", walls(found)))


def walls(found: Medians) -> dict[str, dict[str, float]]:
    """The wall time of what did not fail, by scenario and subject."""
    return {
        run: {name: row.figures["wall"] for name, row in subjects.items() if not row.failed}
        for run, subjects in found.items()
    }


def _all(found: Medians) -> list[tuple[str, str, Median]]:
    return [(run, subject, each) for run, subjects in found.items() for subject, each in subjects.items()]


def _told(row: Measured) -> str:
    return row.failed or f"{row.figures['wall']:.2f} s"


if __name__ == "__main__":
    sys.exit(main())
