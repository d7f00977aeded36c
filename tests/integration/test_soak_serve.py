"""Short forms of the load tools, on a real serve: that they ask what they say, and what serve answers.

Nothing here looks at how long it took, and only the long form at memory.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.checkout import TOP
from tools.loads import gc_beside
from tools.loads.mix.client import Tally
from tools.loads.served import ServeEnded, resident_bytes, served
from tools.soak_serve import Asked, Sample, soak, told

BOUND = 1.15  # RSS at the end, by RSS after a tenth
# What a short soak must have met at least, by kind and right status.
MET = (
    ("upload: one POST", 201),
    ("upload: PUT", 201),
    ("upload: PATCH, chunk", 202),
    ("upload: PATCH, stream", 202),
    ("upload: PATCH, cut", -1),
    ("upload: DELETE", 204),
    ("upload: PUT of a wrong digest", 400),
    ("mount", 201),
    ("put a manifest", 201),
    ("put a manifest without blobs", 400),
    ("referrers", 200),
    ("GET of a tag", 200),
    ("GET of a blob", 200),
    ("GET of no blob", 404),
    ("GET of what is known", 304),
    ("tag list", 200),
    ("catalog", 200),
    ("page", 200),
    ("metrics", 200),
    ("delete a blob", 202),
    ("delete a manifest", 202),
    ("wrong path", 404),
    ("wrong name", 400),
    ("no request", -1),
    ("look again", 200),
)


def test_thousands_of_mixed_requests_are_all_answered_as_they_deserve_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    samples: list[Sample] = []
    report = soak(
        Asked(requests=4000, repositories=16, clients=8, seed=14, sweeps=2), tmp_path, samples.append
    )
    assert (report.wrong, report.failed, report.shown) == (0, 0, [])
    assert [met for met in MET if not report.statuses.get(met)] == []
    assert sum(report.statuses.values()) >= 4000
    assert [each.failure for each in report.sweeps if each.failure] == []
    assert sum(each.removed for each in report.sweeps) > 0
    assert [each.requests for each in report.samples] == [200 * part for part in range(1, 21)]
    assert samples == report.samples
    assert report.right
    assert "answers: wrong 0; of these 5xx or none 0" in told(report, 1.15)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_million_mixed_requests_leave_memory_as_it_was(tmp_path: Path) -> None:
    report = soak(Asked(requests=1_000_000), tmp_path)
    assert report.right, told(report, BOUND)
    assert report.growth <= BOUND, told(report, BOUND)


def test_pulls_and_pushes_are_timed_while_gc_removes_what_is_old(tmp_path: Path) -> None:
    asked = gc_beside.Asked(blobs=100, seconds=0.5, rounds=1, pulls=200, pushes=40)
    report = gc_beside.measure(TOP, tmp_path, asked)
    (one,) = report.rounds
    assert one.sweeps
    assert all(each.removed >= asked.blobs and not each.failure for each in one.sweeps)
    stretches = (one.alone, one.core, one.beside)
    assert all(times.pulls and times.pushes for times in stretches)
    pulled = sum(len(times.pulls) for times in stretches)
    pushed = sum(len(times.pushes) for times in stretches)
    assert report.statuses == {("pull", 200): pulled, ("push", 201): pushed, ("look again", 200): pushed}
    assert report.lost == []
    assert not report.wrong


def test_a_request_that_is_cut_counts_and_is_not_wrong() -> None:
    seen: list[int] = []
    tally = Tally(seen.append)
    tally.add_cut("cut within the headers")
    assert (tally.requests, tally.wrong, tally.failed, seen) == (1, 0, 0, [1])


def test_a_serve_that_ends_in_the_middle_is_told_with_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(ServeEnded, match="serve ended with status"),
        served(tmp_path, ()) as registry,
    ):
        registry.process.kill()
        registry.process.wait()
        registry.ask("GET", "/v2/")


def test_what_a_tool_gets_wrong_itself_is_not_blamed_on_serve(tmp_path: Path) -> None:
    with pytest.raises(KeyError), served(tmp_path, ()) as registry:
        assert resident_bytes(registry.process.pid) > 1_000_000
        raise KeyError("of the tool's own")
