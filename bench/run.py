"""Named runs: each by blobflow, by the build before it, and by every other tool that is on PATH, in turns.

    python -m bench.run --list
    python -m bench.run giant-layer many-tags [--scale 0.1] [--against DIR]
    python -m bench.run cold far-source --set SET --rounds 5 [--json FILE] [--svg FILE] [--earlier FILE]
    python -m bench.run giant giant-tls memory --tools blobflow [--profile]
    python -m bench.run load --archive images-amd64.tar.gz

SET is the folder of `tools/imageset.py make`; without it those runs have a generated set of about its size.
--scale shrinks what is generated, and takes as many of SET's images. DIR is a checkout of an earlier build
with an environment of its own in .venv, as tools/test makes it. Each round runs each tool (skopeo, crane,
regctl, regsync, oras, docker), another one first each time: blobflow at its defaults, the others with the
concurrency that suits them best (`--tuning` says otherwise; bench/peers.py says how). FILE is what `--json`
here or `bench.record` wrote.

Whole processes are measured, from outside: wall time, CPU time and peak memory, the registries' CPU time, and
from their logs requests and bytes of blobs; medians over the rounds. A run that fails, or leaves a tag that
is not right, is told as such; if it is blobflow's, the exit code is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.chart import plot
from bench.contest import Contest, hold
from bench.goals import judge
from bench.machine import Machine, compile_all, describe
from bench.measurements import Measured, Medians, differences, medians, ratios_by_round
from bench.named_runs import RUNS
from bench.peers import EARLIER, TOOLS, present, tools_of
from bench.profiling import profile_of
from bench.programs import Options
from bench.scenarios import SCENARIOS
from bench.tables import failures, plain, ratios, rows_of, walls
from tools import imageset

# How blobflow takes part in scenarios, and how the others do; False: at the defaults, True: tuned.
TUNINGS = {
    "fair": ((False,), (True,)),
    "default": ((False,), (False,)),
    "tuned": ((True,), (True,)),
    "both": ((False, True), (False, True)),
}


class Recorded(msgspec.Struct, frozen=True):
    """What both commands write, as far as a later run compares itself with it."""

    machine: Machine
    medians: Medians


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    if arguments.list:
        for name, each in RUNS.items():
            print(f"{name:16} {each.says}")
        return 0
    try:
        layout = imageset.read_layout(arguments.set) if arguments.set else None
    except imageset.ImageSetError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    compile_all(arguments.against)
    machine = describe(versions_of(arguments.tools, arguments.against))
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.folder) as folder:
        options = Options(
            Path(folder),
            layout,
            arguments.scale,
            tools=arguments.tools,
            against=arguments.against,
            archive=arguments.archive and arguments.archive.resolve(),
        )
        for row in measured(arguments.runs, options, arguments.rounds, arguments.tuning):
            rows.append(row)
            print(told(row), file=sys.stderr)
        tell(machine, rows)
        for name in arguments.runs if arguments.profile else ():
            print(f"profile of {name}:", *profile_of(name, options), sep="\n  ")
    record = Recorded(machine, medians(rows))
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    if arguments.svg:
        arguments.svg.write_text(plot("Wall time by run and subject", "s", walls(record.medians)))
    if arguments.earlier:
        earlier = msgspec.json.decode(arguments.earlier.read_bytes(), type=Recorded)
        print(f"since {arguments.earlier}:", *differences(record.medians, earlier.medians), sep="\n  ")
    return int(any(row.failed for row in rows if row.subject.startswith("blobflow")))


def measured(names: Sequence[str], options: Options, rounds: int, tuning: str) -> Iterator[Measured]:
    """The scenarios among the runs of these names, tool by tool in turns; then the other runs.

    All of it goes round by round, so that what disturbs the machine disturbs all of them.
    """
    ours, peers = TUNINGS[tuning]
    scenarios = [name for name in names if name in SCENARIOS]
    tools = tools_of(options.tools, options.against)
    contest = Contest(scenarios, tools, rounds, ours, peers, options.scale)
    yield from hold(contest, options.debian, options.folder)
    for turn in range(rounds):
        for name in names:
            if name not in SCENARIOS:
                yield from RUNS[name].measure(msgspec.structs.replace(options, turn=turn))


def versions_of(tools: Sequence[str], against: Path | None) -> dict[str, Sequence[str]]:
    """The commands that tell the versions of what takes part."""
    versions = {name: tool.version for name, tool in tools_of(tools, against).items()}
    return {"docker-registry": ["docker-registry", "--version"], **versions}


def told(row: Measured) -> str:
    wall = row.figures.get("wall", 0.0)
    return f"{row.run}: {row.subject} {row.failed or f'{wall:.2f} s'}"


def tell(machine: Machine, rows: Sequence[Measured]) -> None:
    """Print what ran where, by which commands, the medians, and what became of the goals."""
    found = medians(rows)
    print(*machine.lines(), sep="\n")
    for run, subjects in found.items():
        for subject, each in subjects.items():
            if each.command:
                print(f"{run}, {subject}: {each.command}")
    print(*plain(list(rows_of(found))), *ratios(found), *failures(found), sep="\n")
    print(*ratios_by_round(rows, "blobflow", EARLIER), sep="\n")
    for verdict in judge(found):
        against = f" {verdict.against}" if verdict.against else ""
        print(f"{verdict.goal.title}: {verdict.shown}{against} ({verdict.demanded}) {verdict.word}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.run", description="Named runs, measured.")
    parser.add_argument("runs", nargs="*", metavar="NAME", help="see --list")
    parser.add_argument("--list", action="store_true", help="tell the names, and end")
    parser.add_argument("--set", type=Path, help="the folder of `imageset.py make`, for runs that mirror it")
    parser.add_argument("--archive", type=Path, help="what `load` loads: an archive of docker's or podman's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of what is generated, and of the images of SET"
    )
    parser.add_argument("--against", type=Path, metavar="DIR", help="the checkout of an earlier build")
    parser.add_argument("--tools", help="names, separated by commas (default: those on PATH)")
    parser.add_argument("--tuning", choices=[*TUNINGS], default="fair")
    parser.add_argument("--folder", type=Path, help="where storage goes (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions and medians")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="plot the medians of the wall time")
    parser.add_argument("--earlier", type=Path, metavar="FILE", help="tell what differs from that record")
    parser.add_argument("--profile", action="store_true", help="and tell where blobflow's time goes")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.runs) - set(RUNS):
        parser.error(f"unknown runs: {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
    if not arguments.runs and not arguments.list:
        parser.error("name a run, or --list them")
    here = present()
    arguments.tools = arguments.tools.split(",") if arguments.tools else here
    if unknown := set(arguments.tools) - set(TOOLS):
        parser.error(f"unknown tools: {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
    if missing := set(arguments.tools) - set(here):
        parser.error(f"not on PATH: {', '.join(sorted(missing))}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
