"""What is drawn: on a terminal, elsewhere, for programs; and that names can not drive the terminal."""

from __future__ import annotations

import asyncio
import io
import json
import re

import msgspec
import pytest
from rich.console import Console

from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.progress import ProgressBars, ProgressLines, event_line, progress_line, show_progress
from blobflow.cli.output.report_text import failure_lines, summary_lines
from blobflow.cli.output.units import one_line, seconds_text, short_digest, size_text, table
from blobflow.engine.results.report import ImageRecord, Report, Status, Totals
from blobflow.events import (
    Event,
    ImageDone,
    Meter,
    PhaseStarted,
    PlanMade,
    Retrying,
    StepDone,
    StepStarted,
    Traced,
    Warned,
)

D = "sha256:" + "0123456789abcdef" * 4
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
EVIL = "a\x1b[31mb\nc\x9bd\u202ee"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A stream whose reader went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def image(
    source: str = "docker.io/rancher/pause:3.1",
    target: str = "r:1/mirror/rancher/pause:3.1",
    status: str = "done",
    error: str = "",
) -> ImageDone:
    return ImageDone(source=source, target=target, digest=D, status=status, error=error, done=3, images=8)


def started(step: int, digest: str = D, target: str = "r:1/mirror/x") -> StepStarted:
    return StepStarted(step=step, kind="copy", digest=digest, target=target, size=1000)


async def drawn(output: OutputOptions, *events: Event, hosts: int = 1) -> str:
    stream = io.StringIO()
    async with show_progress(output, Meter(), stream=stream, hosts=hosts) as show:
        for event in events:
            show(event)
    return stream.getvalue()


async def test_an_image_is_one_plain_line_where_there_is_no_terminal() -> None:
    events = (PhaseStarted("resolve", 8), started(0), image())
    assert await drawn(OutputOptions(), *events) == "Progress: 3/8 rancher/pause:3.1 done\n"


async def test_with_several_targets_the_line_says_which() -> None:
    assert await drawn(OutputOptions(), image(status="failed"), hosts=2) == (
        "Progress: 3/8 rancher/pause:3.1 at r:1 failed\n"
    )


async def test_quiet_shows_no_progress_and_no_warning() -> None:
    assert await drawn(OutputOptions(quiet=True), image(), Warned("w"), PhaseStarted("resolve", 1)) == ""


REMARKS = [
    (Warned("mind\nthis"), OutputOptions(), "warning: mind\\nthis"),
    (Warned("mind this"), OutputOptions(quiet=True), None),
    (
        Traced("GET", "http://r:1/v2/", 200, 0.0123),
        OutputOptions(verbose=True),
        "GET http://r:1/v2/ 200 0.01 s",
    ),
    (Traced("GET", "http://r:1/v2/", 200, 0.0123), OutputOptions(), None),
    (
        Retrying("blob x", "target: lost", 2, 1.5),
        OutputOptions(verbose=True),
        "retry 2 of blob x in 1.50 s: target: lost",
    ),
    (Retrying("blob x", "lost", 2, 1.5), OutputOptions(), None),
    (PhaseStarted("resolve", 1), OutputOptions(verbose=True), None),
]


@pytest.mark.parametrize(("event", "output", "line"), REMARKS)
def test_what_is_told_in_words(event: Event, output: OutputOptions, line: str | None) -> None:
    assert event_line(event, output) == line


async def test_events_become_json_lines_in_ascii() -> None:
    text = await drawn(OutputOptions(log_format="json"), image(source=EVIL), PhaseStarted("survey", 2))
    first, second = (json.loads(line) for line in text.splitlines())
    assert first["event"] == "image"
    assert first["source"] == EVIL
    assert RFC_3339.fullmatch(second.pop("time"))
    assert second == {"event": "phase", "phase": "survey", "images": 2}
    assert text.isascii()
    assert "\x1b" not in text


def test_names_can_not_drive_the_terminal() -> None:
    line = progress_line(image(source=f"r:1/{EVIL}"))
    assert line == "Progress: 3/8 a\\x1b[31mb\\nc\\x9bd\\u202ee done"


def test_a_reader_that_went_away_does_not_end_the_run() -> None:
    ProgressLines(OutputOptions(), Gone())(image())


async def live_text(*events: Event, meter: Meter | None = None) -> str:
    """What the live display shows after the events, without ticking."""
    console = Console(
        file=Terminal(), force_terminal=True, width=120, height=30, highlight=False, markup=False
    )
    live = ProgressBars(OutputOptions(), meter or Meter(), console)
    for event in events:
        live(event)
    live.draw()
    plain = Console(file=io.StringIO(), width=120)
    plain.print(live.bars)
    assert isinstance(plain.file, io.StringIO)
    return plain.file.getvalue()


PLANNED = PlanMade(images=8, copies=9, mounts=1, puts=3, bytes_to_read=4000, bytes_to_write=4000)


async def test_the_bars_show_images_bytes_and_blobs_under_way() -> None:
    meter = Meter()
    meter.hosts["r:1"].bytes_written = 1500
    meter.active[0] = 250
    text = await live_text(PhaseStarted("transfer", 8), PLANNED, image(), started(0), meter=meter)
    assert "transfer" in text
    assert "3/8 images" in text
    assert "1.5 kB of 4.0 kB" in text
    assert "sha256:0123456789ab" in text
    assert "250 B of 1.0 kB to r:1" in text


async def test_a_blob_that_arrived_leaves_its_row() -> None:
    done = StepDone(step=0, kind="copy", digest=D, target="r:1/x", size=1000)
    assert "sha256:" not in await live_text(PLANNED, started(0), done)


async def test_no_more_rows_than_a_screen_bears() -> None:
    text = await live_text(PLANNED, *(started(step) for step in range(50)))
    assert text.count("sha256:") == 8


async def test_more_bytes_than_planned_move_the_goal() -> None:
    meter = Meter()
    meter.hosts["r:1"].bytes_written = 9000
    assert "9.0 kB of 9.0 kB" in await live_text(PLANNED, meter=meter)


async def test_the_bars_can_not_be_driven_by_names() -> None:
    text = await live_text(PhaseStarted(EVIL, 8), PLANNED, started(0, "[red]x:" + EVIL, f"[bold]{EVIL}/x"))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "[bold]" in text


async def test_on_a_terminal_the_display_ticks_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    async with show_progress(OutputOptions(), Meter(), stream=stream) as show:
        assert isinstance(show, ProgressBars)
        show(PhaseStarted("transfer", 8))
        show(Warned("mind this"))
        await asyncio.sleep(0)
    text = stream.getvalue()
    assert "warning: mind this" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert len(asyncio.all_tasks()) == 1


async def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    async with show_progress(OutputOptions(), Meter(), stream=Terminal()) as show:
        assert isinstance(show, ProgressLines)


def record(status: Status, error: str = "") -> ImageRecord:
    return ImageRecord("r:1/a:1", f"t:1/a:1{error}", D, D, (), status, error)


def test_the_summary_counts_what_was_done() -> None:
    report = Report(
        Totals(
            images=3,
            failed=1,
            blobs_copied=1,
            blobs_mounted=2,
            blobs_present=3,
            manifests_put=4,
            bytes_read=1_500_000,
            bytes_written=999,
            requests=21,
            seconds=0.5,
        ),
        (record("done"), record("present"), record("failed", "source: gone\x1b")),
    )
    assert summary_lines(report) == [
        "3 images: 1 done, 1 present, 1 failed",
        "1 blob copied, 2 mounted, 3 present; 4 manifests put",
        "1.5 MB read, 999 B written, 21 requests, 0.50 s",
    ]
    assert failure_lines(report) == ["failed: r:1/a:1 -> t:1/a:1source: gone\\x1b: source: gone\\x1b"]


def test_the_summary_says_which_tags_moved_meanwhile_once_a_source() -> None:
    moved = msgspec.structs.replace(record("done"), moved=D)
    assert len(summary_lines(Report(Totals(), (record("done"),)))) == 3
    assert summary_lines(Report(Totals(), (moved, moved)))[3:] == [
        "1 tag moved at the source meanwhile: run again to take that up"
    ]


def test_the_summary_says_what_was_audited_if_anything_was() -> None:
    lines = summary_lines(Report(Totals(audited=41, incomplete=1), (record("done"),), notes=("why",)))
    assert lines[3:] == ["41 roots of earlier runs audited, 1 image incomplete", "note: why"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (99_940, "99.9 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (2 * 10**9, "2.0 GB"),
        (10**18, "1000 PB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00 s"), (9.994, "9.99 s"), (12.34, "12.3 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_small_figures() -> None:
    assert short_digest(D) == "sha256:0123456789ab"
    assert one_line("plain ünïcode 漢字") == "plain ünïcode 漢字"
    assert one_line("\ud800") == "\\ud800"
    assert table([("a", "bb"), ("ccc", "d")], indent="> ") == ["> a    bb", "> ccc  d"]
