"""`sync --every spec`: each entry at its own time, those that are due together as one run."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from blobflow.cli.inputs.entry_times import check_times, due_part, untimed_warnings
from blobflow.cli.inputs.spec_formats import read_spec
from blobflow.cli.runtime.cron import Interval, Schedule, parse_cron
from blobflow.cli.runtime.entry_schedules import EntrySchedules
from blobflow.cli.runtime.scheduler import WakeReason, run_on_schedule
from blobflow.errors import UsageError

HOUR = 3600.0
HOURLY, HALF_HOURLY, TWICE = Interval(HOUR, 0), parse_cron("30 * * * *"), Interval(2 * HOUR, 0)


class Daemon:
    """A daemon on a clock that only waiting and running moves; it begins 10 s after an hour."""

    def __init__(self, *schedules: Schedule, run_takes: float = 0.0) -> None:
        self.begun = self.now = 1000 * HOUR + 10
        self.own = EntrySchedules(schedules, self.now)
        self.log: list[tuple[float, set[Schedule]]] = []
        self.rereads: dict[float, tuple[Schedule, ...]] = {}
        self._run_takes = run_takes

    def go(self, seconds: float) -> list[tuple[float, set[Schedule]]]:
        def wait(left: float) -> WakeReason:
            due = [at for at in self.rereads if self.begun + at <= self.now + left]
            if due:
                self.now = max(self.now, self.begun + min(due))
                self._anew = self.rereads.pop(min(due))
                return WakeReason.REREAD
            self.now += left
            return WakeReason.STOP if self.now >= self.begun + seconds else WakeReason.DUE

        def run() -> None:
            self.log.append((self.now - self.begun, set(self.own.take_due(self.now))))
            self.now += self._run_takes

        run_on_schedule(
            self.own,
            run,
            lambda: self.own.replace(self._anew, self.now),
            wait=wait,
            clock=lambda: self.now,
            random=lambda: 0.0,
            announce=lambda start: None,
        )
        return self.log


def test_each_entry_has_its_own_time_and_what_is_due_together_is_one_run() -> None:
    assert Daemon(HOURLY, TWICE, HALF_HOURLY).go(2.2 * HOUR) == [
        (0, {HOURLY, TWICE}),
        (1790, {HALF_HOURLY}),
        (HOUR, {HOURLY}),
        (HOUR + 1790, {HALF_HOURLY}),
        (2 * HOUR, {HOURLY, TWICE}),
    ]


def test_what_is_due_while_a_run_takes_longer_is_run_right_after_it_once() -> None:
    assert Daemon(HOURLY, HALF_HOURLY, run_takes=2900).go(1.7 * HOUR) == [
        (0, {HOURLY}),
        (2900, {HALF_HOURLY}),
        (5800, {HOURLY, HALF_HOURLY}),
    ]


def test_cron_alone_waits_for_its_time() -> None:
    assert Daemon(HALF_HOURLY).go(HOUR) == [(1790, {HALF_HOURLY})]


def test_a_file_that_is_read_anew_changes_the_times_from_then_on() -> None:
    daemon = Daemon(TWICE)
    daemon.rereads = {600: (TWICE, HALF_HOURLY), 2000: (TWICE,), 3000: (TWICE, HOURLY)}
    assert daemon.go(2.5 * HOUR) == [
        (0, {TWICE}),
        (1790, {HALF_HOURLY}),
        (3000, {HOURLY}),
        (3000 + HOUR, {HOURLY}),
        (2 * HOUR, {TWICE}),
    ]


SPEC = """\
version: 1
defaults: {targets: ['t:1/m'], every: 6h}
images:
- a/b:1
- {image: a/c, every: 30m}
- {image: a/d, schedule: '0 3 * * *'}
- {image: a/e, every: ''}
"""
REGSYNC = """\
defaults: {interval: 60m}
sync:
- {source: r.example/a, target: 't:1/a', type: image}
- {source: r.example/b, target: 't:1/b', type: image, schedule: 'CRON_TZ=UTC 15 01 * * *'}
"""


def test_an_image_s_own_time_replaces_the_defaults() -> None:
    asked = read_spec(SPEC, "f")
    assert [image.schedule for image in asked.images] == [
        Interval(6 * HOUR, 0),
        Interval(HOUR / 2, 0),
        parse_cron("0 3 * * *"),
        None,
    ]
    assert len(check_times(asked, "f")) == 3
    assert untimed_warnings(asked) == (
        "not mirrored, since there is no time for them (`every` or `schedule`): f line 7",
    )


@pytest.mark.parametrize("text", [SPEC, REGSYNC])
def test_a_run_has_what_is_due_and_nothing_else(text: str) -> None:
    asked = read_spec(text, "f")
    for schedule in check_times(asked, "f"):
        (image,) = due_part(asked, {schedule}).images
        assert image.schedule == schedule
    assert due_part(asked, ()).images == ()


REFUSED = {
    "no times": ("version: 1\ndefaults: {targets: ['t:1']}\nimages: [a]\n", "", "says of no entry when"),
    "two ways to say it": (
        SPEC.replace("'0 3 * * *'", "'0 3 * * *', every: 1h"),
        "",
        "line 6: `every` and `schedule` are two ways to say when; keep one",
    ),
    "no span of time": (SPEC.replace("30m", "soon"), "", "line 5: 'soon' is no span of time"),
    "no span of time for all": (SPEC.replace("6h", "soon"), "", "line 2: defaults: 'soon' is no span"),
    "no cron expression": (SPEC.replace("0 3", "0 30"), "", "line 6: '30' is no hour of a cron"),
    "regsync's, unreadable": (REGSYNC.replace("60m", "60 minutes"), "", "line 3: '60 minutes' is no span"),
    "with what needs the whole": (SPEC, "--delete-extra-tags", "--delete-extra-tags needs the whole set"),
    "with another schedule": (SPEC, "--cron=@daily", "two ways to say when"),
    "for one plan": (SPEC, "--dry-run", "leave --every and --cron out"),
}


@pytest.mark.parametrize(("text", "option", "sentence"), REFUSED.values(), ids=REFUSED)
def test_times_that_can_not_be_kept_are_told(text: str, option: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(text)
    words = ["sync", str(tmp_path / "f"), "--every", "spec", *([option] if option else [])]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_list_has_no_times(tmp_path: Path) -> None:
    (tmp_path / "l").write_text("a:1\n")
    words = ["sync", "--from", "r:1", "--to", "t:1", "--images", str(tmp_path / "l"), "--every", "spec"]
    done = CliRunner().invoke(cli, words)
    assert (done.exit_code, "--every spec keeps the times in a spec" in done.stderr) == (2, True)


def test_a_regsync_file_that_can_not_be_read_in_time_still_runs_once() -> None:
    asked = read_spec(REGSYNC.replace("60m", "60 minutes"), "f")
    assert "some can't be read: '60 minutes' is no span of time (line 3)" in asked.schedule_hint
    with pytest.raises(UsageError, match="f line 3: '60 minutes' is no span of time"):
        check_times(asked, "f")
