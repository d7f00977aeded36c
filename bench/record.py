"""Everything that can be measured here, in one go: the goals, the comparison with other tools, the plot.

    python -m bench.record SET --against DIR [--rounds 5] [--scale 1] [--into DIR] [--earlier FILE]
    python -m bench.record SET --add --only cold            # further rounds of some, to those in the record

SET is the folder of `tools/imageset.py make`, --against the checkout of an earlier build that takes its turns
with this one (bench.run says more). Writes into DIR (default: this folder) record.json, record.svg
and, between its marks, the tables of README.md; in the commands told there SET is that folder, DIR one for
what is made on the way. Every round by itself goes to rounds.json there, which `--add` reads, and nobody
else. Where a goal is missed the run is made once more under a profile, and its dearest functions are told.
Takes about an hour with 5 rounds; the machine should be quiet.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.chart import plot
from bench.goals import Verdict, judge
from bench.machine import Machine, compile_all, describe
from bench.measurements import Measured, Medians, differences, medians
from bench.named_runs import RUNS
from bench.path_floor import SOURCE_TRIPS, TARGET_TRIPS
from bench.peers import present
from bench.profiling import profile_of
from bench.programs import Options
from bench.run import Recorded, measured, told, versions_of
from bench.scenarios import SCENARIOS
from bench.tables import barred, failures, rows_of, walls
from tools import imageset
from tools.imageset import Layout

BEGIN, END = "<!-- record: begin -->", "<!-- record: end -->"
# Scenarios in which everybody is run at the defaults and tuned; in the others, as bench.run does.
TUNED = ("cold", "unchanged", "second-prefix", "long-path")


class Record(msgspec.Struct, frozen=True):
    """What record.json holds. `made`: a day; `missed`: profiles of runs whose goals were missed."""

    made: str
    command: str
    machine: Machine
    set: str
    rounds: int
    scale: float
    medians: Medians
    missed: Mapping[str, list[str]]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parse(argv)
    layout = imageset.read_layout(arguments.set)
    earlier = arguments.earlier.read_bytes() if arguments.earlier else b""  # it may be what is written over
    compile_all(arguments.against)
    machine = describe(versions_of(present(), arguments.against))
    before = read_record(arguments.into) if arguments.add else None
    rows = read_rounds(arguments.into) if arguments.add else []
    with tempfile.TemporaryDirectory(prefix="record-", dir=arguments.folder) as folder:
        options = Options(Path(folder), layout, arguments.scale, tools=present(), against=arguments.against)
        places = {str(layout.path): "SET", folder: "DIR"}
        if arguments.against:
            places[str(arguments.against.resolve())] = "EARLIER"
        for row in everything(options, arguments.rounds, arguments.only or list(RUNS)):
            rows.append(anonymous(row, places))
            print(told(row), file=sys.stderr)
        record = recorded(machine, layout, arguments, rows, before)
        verdicts = list(judge(record.medians))
        write_rounds(rows, arguments.into)
        write(record, verdicts, arguments.into)  # should a profile fail, an hour is not lost
        known = before.missed if before else {}
        record = msgspec.structs.replace(record, missed=profiles(verdicts, options, known))
    if earlier:
        then = msgspec.json.decode(earlier, type=Recorded).medians
        print(f"since {arguments.earlier}:", *differences(record.medians, then), sep="\n  ")
    write(record, verdicts, arguments.into)
    return 0


def recorded(
    machine: Machine,
    layout: Layout,
    arguments: argparse.Namespace,
    rows: list[Measured],
    before: Record | None,
) -> Record:
    """What was measured, now and `before`, and not yet profiled."""
    only = "".join(f" --only {name}" for name in arguments.only)
    against = " --against EARLIER" if arguments.against else ""
    rounds = f"--rounds {arguments.rounds} --scale {arguments.scale:g}"
    command = f"python -m bench.record SET {rounds}{against}{only}"
    return Record(
        made=datetime.now(UTC).date().isoformat(),
        command=f"{before.command}` and `{command} --add" if before else command,
        machine=before.machine if before else machine,
        set=f"{len(layout.images)} images, {len(layout.blobs)} blobs, {layout.unique_bytes / 1e6:.1f} MB",
        rounds=before.rounds if before else arguments.rounds,
        scale=arguments.scale,
        medians=medians(rows),
        missed={},
    )


def anonymous(row: Measured, places: Mapping[str, str]) -> Measured:
    """The row without this machine's folders, for which words stand."""
    command, failed = row.command, row.failed
    for place, word in places.items():
        command, failed = command.replace(place, word), failed.replace(place, word)
    return msgspec.structs.replace(row, command=command, failed=failed)


def everything(options: Options, rounds: int, names: Sequence[str]) -> Iterator[Measured]:
    """The runs of these names, in their order."""
    yield from measured([name for name in RUNS if name in names and name in TUNED], options, rounds, "both")
    yield from measured(
        [name for name in RUNS if name in names and name not in TUNED], options, rounds, "fair"
    )


def read_record(folder: Path) -> Record:
    """The record that was written into a folder."""
    return msgspec.json.decode((folder / "record.json").read_bytes(), type=Record)


def read_rounds(folder: Path) -> list[Measured]:
    """All rounds of the record in a folder. Raises FileNotFoundError where they were not kept."""
    return msgspec.json.decode((folder / "rounds.json").read_bytes(), type=list[Measured])


def write_rounds(rows: list[Measured], into: Path) -> None:
    (into / "rounds.json").write_bytes(msgspec.json.encode(rows))


def profiles(
    verdicts: Sequence[Verdict], options: Options, known: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """Where the time goes in the runs whose goals were missed, as far as that is not `known`."""
    missed = dict.fromkeys(verdict.goal.run for verdict in verdicts if verdict.met is False)
    return {name: known.get(name) or profile_of(name, options) for name in missed}


def write(record: Record, verdicts: Sequence[Verdict], into: Path) -> None:
    """record.json, record.svg, and the part of README.md that is between the marks."""
    record = msgspec.structs.replace(record, medians=rounded(record.medians))
    (into / "record.json").write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    bars = {name: bars for name, bars in walls(record.medians).items() if name in SCENARIOS}
    (into / "record.svg").write_text(plot("Wall time of a mirror, by scenario and tool", "s", bars))
    readme = into / "README.md"
    text = readme.read_text() if readme.exists() else f"{BEGIN}\n{END}\n"
    readme.write_text(between_marks(text, "\n".join(chapter(record, verdicts))))


def rounded(found: Medians) -> Medians:
    """The figures with as many digits as say something."""
    return {
        run: {
            subject: msgspec.structs.replace(
                each, figures={name: float(f"{value:.5g}") for name, value in each.figures.items()}
            )
            for subject, each in subjects.items()
        }
        for run, subjects in found.items()
    }


def between_marks(text: str, inside: str) -> str:
    """The text with `inside` between its marks, whatever was there. Raises ValueError if it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END} to write the record between")
    return f"{before}{begin}\n\n{inside}\n\n{end}{after}"


def chapter(record: Record, verdicts: Sequence[Verdict]) -> Iterator[str]:
    """The record as a part of a README."""
    scale = "" if record.scale == 1 else f", what is generated at {record.scale:g} of its size"
    yield f"Recorded on {record.made} by `{record.command}`: medians{scale}."
    yield from ("", *(f"{line}  " for line in record.machine.lines()), f"Set: {record.set}")
    yield from ("", "### Goals", "")
    heading = ["what", "goal", "measured", "against", "", "commands"]
    yield from barred([heading, *map(_row, verdicts)])
    yield ""
    yield "A ratio is ours by theirs. The floor of a slow line is the larger of all bytes by all connections"
    yield "and, where the target is far, the largest blob by one; and these round trips, one after another:"
    yield f"{'; '.join(SOURCE_TRIPS)}; and where the target is far {'; '.join(TARGET_TRIPS)}."
    yield from ("", "### Scenario by tool", "", "![wall time by scenario and tool](record.svg)", "")
    yield from barred(list(rows_of(record.medians)))
    yield from ("", *failures(record.medians))
    for name, lines in record.missed.items():
        yield from ("", f"### Where the time goes: {name}", "", "```", *lines, "```")


def _row(verdict: Verdict) -> list[str]:
    commands = "<br>".join(f"`{command}`" for command in verdict.commands)
    title = verdict.goal.title
    return [title, verdict.demanded, verdict.shown, verdict.against, verdict.word, commands]


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.record", description="Measure everything, and write it down."
    )
    parser.add_argument("set", type=Path, help="the folder of `imageset.py make`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the bytes of what is generated")
    parser.add_argument("--only", action="append", choices=[*RUNS], default=[])
    parser.add_argument("--against", type=Path, metavar="DIR", help="the checkout of an earlier build")
    parser.add_argument("--add", action="store_true", help="add the rounds to those of the record in DIR")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--folder", type=Path, help="where storage goes (default: temporary)")
    parser.add_argument("--earlier", type=Path, metavar="FILE", help="tell what differs from that record")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
