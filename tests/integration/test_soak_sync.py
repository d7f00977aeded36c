"""tools/soak_sync: a real sync that stays, looked at from outside. Only the long form looks at memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.soak_sync import START, Asked, Report, Sample, soak, told

BOUND = 1.1  # RSS at the end, by RSS at run 30
RUNS = 300


def test_a_process_that_stays_is_looked_at_after_each_run(tmp_path: Path) -> None:
    seen: list[Sample] = []
    report = soak(Asked(runs=4, change_every=2, images=2, registry="blobflow"), tmp_path, seen.append)
    assert seen == report.samples
    assert [sample.run for sample in seen] == [1, 2, 3, 4]
    assert all(sample.resident > 0 and sample.files > 2 and sample.threads for sample in seen)
    assert [sample.folders for sample in seen] == [0] * 4


def test_what_grows_is_told() -> None:
    flat = [Sample(run, 50_000_000, 7, 5, 0) for run in range(1, 61)]
    assert Report(flat).left == []
    assert "1.000 x, 0.0 KiB a run (bound 1.1: kept)" in told(Report(flat), BOUND)
    assert Report(flat).start.run == START
    grown = [*flat[:-1], Sample(60, 60_000_000, 9, 5, 1)]
    assert Report(grown).left == ["files: 7 at run 30, 9 at the end", "temporary: 0 at run 30, 1 at the end"]
    assert "1.200 x, 325.5 KiB a run (bound 1.1: exceeded)" in told(Report(grown), BOUND)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("change_every", [0, 5], ids=["unchanged", "changing"])
def test_three_hundred_runs_leave_memory_as_it_was(tmp_path: Path, change_every: int) -> None:
    report = soak(Asked(runs=RUNS, change_every=change_every, registry="blobflow"), tmp_path)
    assert report.growth <= BOUND, told(report, BOUND)
    assert report.left == []
