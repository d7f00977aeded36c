"""What is drawn: on a terminal, elsewhere, for programs; and that names can not drive the terminal."""

from __future__ import annotations

import asyncio
import io
import json
import re
from itertools import pairwise

import msgspec
import pytest

from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.event_text import event_line, progress_line
from blobflow.cli.output.progress import JsonLines, ProgressLines, show_progress
from blobflow.cli.output.progress_bars import ProgressBars
from blobflow.cli.output.report_text import failure_lines, summary_lines
from blobflow.cli.output.terminal_area import TerminalArea
from blobflow.cli.output.units import one_line, seconds_text, short_digest, size_text, table
from blobflow.engine.results.report import ImageRecord, Report, Status, Totals
from blobflow.errors import Throttled, Unavailable
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
    WorkersChanged,
)
from blobflow.waits import WaitKind

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
    return StepStarted(step, "copy", digest, target, 1000, "docker.io/rancher/pause:3.1")


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
    (WorkersChanged(1, ("vm-\x1b1",)), OutputOptions(verbose=True), "1 worker; vm-\\x1b1 joined"),
    (WorkersChanged(2, ("d",), ("a", "b")), OutputOptions(verbose=True), "2 workers; d joined; a, b left"),
    (WorkersChanged(1), OutputOptions(), None),
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


class Screen:
    """The live display on a terminal of its own, drawn when it is looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int = 120, *, hosts: int = 1) -> None:
        self._environment = monkeypatch
        self._last: list[str] = []
        self.now = 0.0
        self.meter = Meter()
        self.meter.waits.clock = lambda: self.now
        self.stream = Terminal()
        self.resize(columns)
        area = TerminalArea(self.stream, colors=False)
        self.live = ProgressBars(OutputOptions(), self.meter, area, hosts=hosts, clock=lambda: self.now)

    def resize(self, columns: int) -> None:
        self._environment.setenv("COLUMNS", str(columns))
        self._environment.setenv("LINES", "30")

    def show(self, *events: Event) -> None:
        for event in events:
            self.live(event)

    def pass_on(self, seconds: float) -> None:
        """Let time pass, and draw as often as the ticker does."""
        until = self.now + seconds
        while self.now < until - 1e-6:
            self.now += 0.25
            self.live.draw()

    @property
    def lines(self) -> list[str]:
        self.live.draw()
        if text := self.stream.getvalue():  # else it is as it was
            plain = re.sub(r"\x1b\[[\d?]*[A-Za-z]", "", text.rpartition("\r\x1b[K")[2])
            self._last = plain.replace("\r", "").split("\n")[1:]
        self.stream.seek(0)
        self.stream.truncate()
        return self._last

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    return Screen(monkeypatch)


PLANNED = PlanMade(images=8, copies=9, mounts=1, puts=3, bytes_to_read=4000, bytes_to_write=4000)


def test_the_bars_show_images_bytes_and_blobs_under_way(screen: Screen) -> None:
    screen.meter.hosts["r:1"].bytes_written = 1500
    screen.meter.active[0] = 250
    screen.show(PhaseStarted("transfer", 8), PLANNED, image(), started(0))
    first, row = screen.lines
    assert first.startswith("transfer 3/8 images  ━")
    assert "1.5 kB of 4.0 kB" in first
    assert row.startswith("  rancher/pause:3.1  0123456  ━")
    assert "250 B of 1.0 kB" in row


def test_the_bars_say_how_many_workers_there_are(screen: Screen) -> None:
    screen.show(PhaseStarted("transfer", 8), PLANNED, WorkersChanged(4, ("a", "b", "c", "d")))
    assert screen.lines[0].endswith("  4 workers")
    screen.show(WorkersChanged(0, left=("a", "b", "c", "d")))
    assert screen.lines[0].endswith("  0 workers")


def test_images_that_the_end_of_the_run_leaves_are_not_counted_as_done(screen: Screen) -> None:
    left = [ImageDone("a", f"b:{n}", "", "skipped", "interrupted", done=n, images=8) for n in (4, 5)]
    chosen = ImageDone("a", "b:6", "", "skipped", "", done=6, images=8, reason="has no linux/arm64")
    screen.show(PhaseStarted("transfer", 8), PLANNED, image(), *left, chosen)
    assert screen.lines[0].startswith("transfer 4/8 images  ")


@pytest.mark.parametrize("columns", range(1, 12))
def test_the_narrowest_terminal_ends_no_display(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    screen = Screen(monkeypatch, columns=columns)
    screen.show(PhaseStarted("transfer", 8), PLANNED, started(0))
    with screen.meter.waits.begin("retry", "far.example", seconds=20, attempt=2, attempts=5):
        assert max(map(len, screen.lines)) < columns
        screen.resize(100)
        assert "far.example" in screen.text


def test_with_several_targets_a_row_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, hosts=2)
    screen.show(PhaseStarted("transfer", 8), PLANNED, started(0))
    assert screen.lines[1].endswith("to r:1")


def test_a_blob_of_no_image_that_is_known_is_named_by_its_digest(screen: Screen) -> None:
    screen.show(PhaseStarted("transfer", 8), PLANNED, msgspec.structs.replace(started(0), image=""))
    assert screen.lines[1].startswith("  sha256:0123456789ab ")


def test_planning_shows_how_much_of_it_is_done(screen: Screen) -> None:
    screen.show(PhaseStarted("resolve", 200))
    resolve, survey = screen.meter.counts["resolve"], screen.meter.counts["survey"]
    resolve.total, resolve.done = 200, 120
    assert screen.lines[0].startswith("resolve 120/200  ━")
    screen.show(PhaseStarted("survey", 200))  # of a target that is faster than others
    survey.total, survey.done = 90, 40
    assert screen.lines[0].startswith("resolve 120/200  ━") and "survey 40/90" in screen.lines[0]
    resolve.done = 200
    screen.meter.counts["manifests"].total = 7
    assert screen.lines[0].startswith("survey 40/90  ━") and "manifests read 0/7" in screen.lines[0]


def test_an_audit_is_a_part_of_the_survey(screen: Screen) -> None:
    screen.meter.counts["survey"].total = 9
    screen.show(PhaseStarted("survey", 9), PhaseStarted("audit", 2))
    assert screen.lines[0].startswith("survey 0/9")


def test_what_else_is_counted_is_counted_by_its_own_things(screen: Screen) -> None:
    screen.show(PhaseStarted("warm", 3))
    screen.meter.counts["warm"].total, screen.meter.counts["warm"].done = 60, 12
    assert screen.lines[0].startswith("warm 12/60  ━")


def test_a_blob_that_arrived_leaves_its_row(screen: Screen) -> None:
    done = StepDone(step=0, kind="copy", digest=D, target="r:1/x", size=1000)
    screen.show(PLANNED, started(0), done)
    assert "pause" not in screen.text


def test_no_more_rows_than_a_screen_bears(screen: Screen) -> None:
    screen.show(PLANNED, *(started(step) for step in range(50)))
    assert screen.text.count("pause:3.1") == 8
    assert screen.lines[-1] == "  and 42 more blobs"


def test_more_bytes_than_planned_move_the_goal(screen: Screen) -> None:
    screen.meter.hosts["r:1"].bytes_written = 9000
    screen.show(PhaseStarted("transfer", 8), PLANNED)
    assert "9.0 kB of 9.0 kB" in screen.text


def test_a_blob_that_stands_still_shows_0_bytes_a_second_and_since_when(screen: Screen) -> None:
    screen.show(PhaseStarted("transfer", 8), PLANNED, started(0), started(1))
    for _ in range(40):
        screen.meter.active[0] = screen.meter.hosts["r:1"].bytes_written = int(10 * screen.now)
        screen.pass_on(0.25)
    assert "0 B/s for 10 s" in screen.lines[2]
    assert screen.lines[1].endswith("9 B/s")
    screen.pass_on(14)
    assert "0 B/s for 14 s" in screen.lines[1] and "0 B/s for 14 s" in screen.lines[0]
    screen.meter.active[0] += 1
    screen.pass_on(0.25)
    assert "for" not in screen.lines[1]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pull", "0 B/s for 5 s: docker.io sends nothing of rancher/pause:3.1 (0 B of 1.0 kB)"),
        ("send", "0 B/s for 5 s: r:1 takes nothing of rancher/pause:3.1 (0 B of 1.0 kB)"),
        (None, "0 B/s for 5 s: docker.io sends nothing of rancher/pause:3.1 (0 B of 1.0 kB)"),
        ("answer", f"r:1 has not answered for 5 s: upload of blob {D} to mirror/x"),
    ],
)
def test_of_a_blob_that_stands_still_it_is_said_who_keeps_it(
    monkeypatch: pytest.MonkeyPatch, kind: WaitKind | None, words: str
) -> None:
    screen = Screen(monkeypatch, 160)
    screen.show(PhaseStarted("transfer", 8), PLANNED, started(0))
    if kind is not None:
        screen.meter.waits.begin(kind, "r:1", f"upload of blob {D} to mirror/x")
    screen.pass_on(5)
    assert screen.lines[2:] == [f"  {words}"]


def test_of_a_blob_on_its_way_to_a_file_it_is_not_known_who_keeps_it(
    screen: Screen,
) -> None:
    screen.show(PhaseStarted("transfer", 8), PLANNED, started(0, target="oci:/layout"))
    screen.pass_on(5)
    assert screen.lines[2:] == ["  0 B/s for 5 s: rancher/pause:3.1 (0 B of 1.0 kB) to oci:/layout"]


def test_a_blob_that_was_sent_whole_waits_for_its_target_and_does_not_stand_still(screen: Screen) -> None:
    screen.meter.active[0] = 1000
    screen.show(PhaseStarted("transfer", 8), PLANNED, started(0))
    screen.pass_on(30)
    assert screen.lines[1].endswith("1.0 kB of 1.0 kB  not confirmed yet")


def test_waits_are_shown_below_and_leave_when_they_are_over(screen: Screen) -> None:
    screen.show(PhaseStarted("transfer", 8))
    error = Unavailable("no", status=503)
    wait = screen.meter.waits.begin("rest", "target.example", seconds=20, error=error, attempt=2, attempts=5)
    assert screen.lines[-1] == "  target.example answers 503, trying again in 20 s (2 of 5)"
    screen.pass_on(8)
    assert screen.lines[-1] == "  target.example answers 503, trying again in 12 s (2 of 5)"
    wait.end()
    assert len(screen.lines) == 1


def test_a_wait_without_a_known_end_is_shown_within_a_second_where_nothing_moves(screen: Screen) -> None:
    screen.show(PhaseStarted("transfer", 8))
    screen.pass_on(2)
    screen.meter.waits.begin("answer", "r:1", "manifest a:1")
    screen.pass_on(0.5)
    assert len(screen.lines) == 1
    screen.pass_on(0.5)
    assert screen.lines[-1] == "  r:1 has not answered for 1 s: manifest a:1"


def test_while_bytes_move_a_wait_has_to_be_longer_to_be_shown(screen: Screen) -> None:
    screen.show(PhaseStarted("transfer", 8))
    screen.meter.waits.begin("answer", "r:1", "manifest a:1")
    for second in range(1, 13):
        screen.meter.hosts["r:1"].bytes_written = second
        screen.pass_on(0.25)
        assert len(screen.lines) == (2 if second >= 12 else 1), second


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    screen = Screen(monkeypatch, columns, hosts=3)
    screen.meter.hosts["r:1"].bytes_written = 1500
    steps = (started(step, target=f"registry-{step}.example/x") for step in range(30))
    screen.show(PhaseStarted("transfer", 20_000), PLANNED, image(), *steps)
    screen.meter.waits.begin("read", "/a/very/long/path/" + "x" * 80, seconds=10)
    screen.pass_on(12)
    assert max(map(len, screen.lines)) < columns
    assert screen.lines[0].startswith("transfer 3/8")


def test_names_are_shortened_from_their_start_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch, 60)
    long = msgspec.structs.replace(started(0), image="r:1/group/subgroup/project/service:2026.11.28")
    screen.show(PhaseStarted("transfer", 8), PLANNED, long)
    assert "…" in screen.lines[1] and "vice:2026.11.28" in screen.lines[1]


def test_an_end_is_shown_once_it_can_be_known_and_does_not_jump(screen: Screen) -> None:
    screen.show(PhaseStarted("transfer", 8), msgspec.structs.replace(PLANNED, bytes_to_write=100_000))
    shown = []
    for tick in range(160):
        noise = 1500 if tick % 8 < 4 else 500  # fast and slow by turns, 1000 a second on average
        screen.meter.hosts["r:1"].bytes_written += noise // 4
        screen.pass_on(0.25)
        shown.append(re.search(r"(\d+ min(?: \d+ s)?|\d+ s) left", screen.lines[0]))
    assert not any(shown[:15])
    seconds = [in_seconds(found[1]) for found in shown if found]
    assert len(seconds) > 100
    assert all(later <= earlier for earlier, later in pairwise(seconds))
    assert 50 <= seconds[-1] <= 70


def in_seconds(text: str) -> int:
    minutes, _, rest = text.rpartition(" min")
    return 60 * int(minutes or 0) + int((rest or "0 s").split()[0])


def test_the_bars_can_not_be_driven_by_names(screen: Screen) -> None:
    evil = msgspec.structs.replace(started(0, "[red]x:" + EVIL, f"[bold]{EVIL}/x"), image=f"r/{EVIL}")
    screen.show(PhaseStarted(EVIL, 8), PLANNED, evil)
    screen.meter.waits.begin("answer", EVIL, EVIL)
    screen.pass_on(5)
    text = screen.text
    assert "\x1b" not in text
    assert "\x9b" not in text


async def test_on_a_terminal_the_display_ticks_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("blobflow.cli.output.progress_bars._REFRESH_SECONDS", 0.0)
    stream = Terminal()
    async with show_progress(OutputOptions(), Meter(), stream=stream) as show:
        assert isinstance(show, ProgressBars)
        show(PhaseStarted("transfer", 8))
        for _ in range(5):
            await asyncio.sleep(0)
        assert "transfer 0/8 images" in stream.getvalue()
        show(Warned("mind this"))
    text = stream.getvalue()
    assert "warning: mind this" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert text.endswith("\r\x1b[J\x1b[?25h")
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
async def test_colours_are_for_who_wants_them(
    monkeypatch: pytest.MonkeyPatch, no_color: str, *, colored: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal()
    async with show_progress(OutputOptions(), Meter(), stream=stream) as show:
        assert isinstance(show, ProgressBars)
        show(PhaseStarted("transfer", 8))
        show(image())
        show.draw()
    assert ("\x1b[32m" in stream.getvalue()) is colored


async def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    async with show_progress(OutputOptions(), Meter(), stream=Terminal()) as show:
        assert isinstance(show, ProgressLines)


def log(output: OutputOptions | None = None) -> tuple[ProgressLines, Meter, list[float], io.StringIO]:
    """A plain log, its meter, its clock, and what was written to it."""
    now, meter, stream = [0.0], Meter(), io.StringIO()
    meter.waits.clock = lambda: now[0]
    return ProgressLines(output or OutputOptions(), stream, meter, clock=lambda: now[0]), meter, now, stream


def test_a_log_is_told_of_a_long_wait_at_once_and_then_rarely() -> None:
    lines, meter, now, stream = log()
    lines(PhaseStarted("transfer", 8))
    error = Unavailable("no", status=503)
    meter.waits.begin("rest", "target.example", seconds=120, error=error, attempt=2, attempts=5)
    while now[0] < 119:
        lines.look()
        now[0] += 0.5
    words = "target.example answers 503, trying again in {} (2 of 5)"
    assert stream.getvalue().splitlines() == [
        words.format("2 min"),
        words.format("90 s"),
        "Progress: transfer 0/8 images",
        words.format("30 s"),
    ]


def test_a_quiet_log_is_told_of_no_wait() -> None:
    lines, meter, now, stream = log(OutputOptions(quiet=True))
    meter.waits.begin("quota", "docker.io", seconds=300)
    now[0] = 200.0
    lines.look()
    assert stream.getvalue() == ""


def test_a_log_in_which_nothing_happens_says_now_and_then_how_far_the_run_is() -> None:
    lines, meter, now, stream = log()
    lines(PhaseStarted("transfer", 8))
    lines(PLANNED)
    lines(started(0))
    while now[0] < 100:
        meter.active[0] = meter.hosts["r:1"].bytes_written = int(now[0] * 9)
        lines.look()
        now[0] += 0.5
    assert stream.getvalue().splitlines() == [
        "Progress: transfer 0/8 images, 270 B of 4.0 kB, 9 B/s, 6 min 50 s left",
        "Progress: transfer 0/8 images, 810 B of 4.0 kB, 9 B/s, 5 min 50 s left",
    ]


def test_a_log_is_told_of_a_blob_that_stands_still_unless_its_host_rests() -> None:
    lines, meter, now, stream = log()
    lines(PhaseStarted("transfer", 8))
    lines(started(0))
    connecting = meter.waits.begin("connect", "r:1")
    for _ in range(14):
        now[0] += 0.5
        lines.look()
    assert stream.getvalue() == "connecting to r:1, for 5 s now\n"
    connecting.end()
    lines.look()
    assert stream.getvalue().splitlines()[1:] == [
        "0 B/s for 7 s: docker.io sends nothing of rancher/pause:3.1 (0 B of 1.0 kB)"
    ]


def test_of_one_image_that_failed_only_its_error_is_told() -> None:
    lines, _, _, stream = log()
    lines(msgspec.structs.replace(image(status="failed"), done=1, images=1))
    assert stream.getvalue() == ""


def test_programs_are_told_of_waits_as_events() -> None:
    now, meter, stream = [0.0], Meter(), io.StringIO()
    meter.waits.clock = lambda: now[0]
    show = JsonLines(stream, meter, lambda: now[0])
    error = Throttled("no", retry_after=60.0)
    meter.waits.begin("retry", "r:1", "manifest a:1", seconds=60, error=error, attempt=3, attempts=10)
    show.look()
    show.look()
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert all(event.pop("time") for event in told)
    assert told == [
        {
            "event": "wait",
            "kind": "retry",
            "host": "r:1",
            "what": "manifest a:1",
            "message": "r:1 answers 429, trying again in 60 s (3 of 10)",
            "seconds": 0.0,
            "left": 60.0,
            "attempt": 3,
            "attempts": 10,
            "waiting": 1,
        }
    ]


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
