"""One named run, or several, by blobflow: measured, told, and compared with an earlier record.

    python -m bench.run --list
    python -m bench.run cold unchanged-floor --set SET [--rounds 5] [--json FILE] [--against FILE]
    python -m bench.run giant giant-tls memory --scale 0.1 [--profile]

SET is the folder of `tools/imageset.py make`; --scale shrinks what is generated. FILE is what `--json` here,
`tools/compare.py --json` or `bench.record` wrote.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench.goals import judge
from bench.machine import Machine, compile_all, describe
from bench.measurements import Measured, Medians, differences, medians
from bench.named_runs import RUNS, Options
from bench.peers import TOOLS
from bench.profiling import profile_of
from bench.tables import failures, plain, rows_of
from tools import imageset


class Recorded(msgspec.Struct, frozen=True):
    """What all three commands write, as far as a later run compares itself with it."""

    machine: Machine
    medians: Medians


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    if arguments.list:
        for name, each in RUNS.items():
            print(f"{name:16} {each.says}")
        return 0
    compile_all()
    layout = imageset.read_layout(arguments.set) if arguments.set else None
    rows: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.folder) as folder:
        options = Options(Path(folder), layout, arguments.scale)
        for row in measured(arguments.runs, options, arguments.rounds):
            rows.append(row)
            print(told(row), file=sys.stderr)
        found = medians(rows)
        record = Recorded(describe({"blobflow": TOOLS["blobflow"].version}), found)
        print(*record.machine.lines(), *plain(list(rows_of(found))), *failures(found), sep="\n")
        for verdict in judge(found):
            print(f"{verdict.goal.title}: {verdict.shown} ({verdict.demanded}) {verdict.word}")
        for name in arguments.runs if arguments.profile else ():
            print(f"profile of {name}:", *profile_of(name, options), sep="\n  ")
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    if arguments.against:
        earlier = msgspec.json.decode(arguments.against.read_bytes(), type=Recorded)
        print(f"against {arguments.against}:", *differences(found, earlier.medians), sep="\n  ")
    return int(any(row.failed for row in rows))


def measured(names: Sequence[str], options: Options, rounds: int) -> Iterator[Measured]:
    """Every run so many times, round by round, so that what disturbs the machine disturbs all of them."""
    for _ in range(rounds):
        for name in names:
            yield from RUNS[name].measure(options)


def told(row: Measured) -> str:
    wall = row.figures.get("wall", 0.0)
    return f"{row.run}: {row.subject} {row.failed or f'{wall:.2f} s'}"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.run", description="Named runs, measured.")
    parser.add_argument("runs", nargs="*", metavar="NAME", help="see --list")
    parser.add_argument("--list", action="store_true", help="tell the names, and end")
    parser.add_argument("--set", type=Path, help="the folder of `imageset.py make`, for runs that mirror it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the bytes of what is generated")
    parser.add_argument("--folder", type=Path, help="where storage goes (default: temporary)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine, versions and medians")
    parser.add_argument("--against", type=Path, metavar="FILE", help="tell what differs from that record")
    parser.add_argument("--profile", action="store_true", help="and tell where blobflow's time goes")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.runs) - set(RUNS):
        parser.error(f"unknown runs: {', '.join(sorted(unknown))}; there are {', '.join(RUNS)}")
    if not arguments.runs and not arguments.list:
        parser.error("name a run, or --list them")
    wanting = [name for name in arguments.runs if RUNS[name].needs_set]
    if wanting and arguments.set is None:
        parser.error(f"{', '.join(wanting)} need --set, the folder of an image set")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
