"""The ledger, read back by Prometheus' own parser: from the file, and from the endpoint."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from blobflow.cli.runtime.metrics import RUN_RESULTS, RunMetrics, RunResult
from blobflow.engine.results.report import ImageRecord, Report, Status, Totals
from blobflow.errors import InvalidConfig, StorageError, UsageError

DIGEST = "sha256:" + "a" * 64


class Now:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def report(seconds: float = 2.0, **statuses: Status) -> Report:
    images = tuple(
        ImageRecord(f"a.example/{name}:1", f"b.example/{name}:1", DIGEST, DIGEST, (), status)
        for name, status in statuses.items()
    )
    return Report(Totals(len(images), bytes_read=100, bytes_written=50, requests=7, seconds=seconds), images)


def samples(text: str) -> dict[tuple[str, str], float]:
    """Each sample by its name and, where it is about an image, end or status, that."""
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            label = next((v for k, v in sample.labels.items() if k in ("source", "end", "status")), "")
            found[sample.name, label] = sample.value
    return found


def kept(metrics: RunMetrics) -> dict[tuple[str, str], float]:
    return samples(metrics.text().decode())


def records(*named: tuple[str, Status]) -> Report:
    images = tuple(
        ImageRecord(f"a.example/{name}", f"b.example/{name}", DIGEST, DIGEST, (), status)
        for name, status in named
    )
    return Report(Totals(len(images)), images)


def test_a_set_that_changes_and_never_arrives_whole_does_not_grow_the_account() -> None:
    """Tags come and go by rules, and one image fails every time."""
    metrics = RunMetrics(clock=Now())
    for run in range(50):
        metrics.record_run(records(("bad:1", "failed"), (f"app:{run}", "done")), "incomplete")
    assert set(metrics.state.arrived) == {
        ("a.example/bad:1", "b.example/bad:1"),
        ("a.example/app:49", "b.example/app:49"),
    }


def test_an_image_that_is_skipped_on_purpose_is_not_one_that_never_came() -> None:
    """Alerts go by how old the last success of an image is."""
    metrics = RunMetrics(clock=Now())
    metrics.record_run(records(("app:1", "done"), ("arm:1", "done")), "done")
    found = records(("app:1", "present"), ("arm:1", "skipped"))
    left = msgspec.structs.replace(found.images[1], reason="there is no linux/amd64 here")
    metrics.record_run(msgspec.structs.replace(found, images=(found.images[0], left)), "done")
    assert set(metrics.state.arrived) == {("a.example/app:1", "b.example/app:1")}
    assert kept(metrics)["blobflow_images", "skipped"] == 1
    metrics.record_run(found, "interrupted")
    assert metrics.state.arrived["a.example/arm:1", "b.example/arm:1"] == 0, "it was not tried to the end"


@pytest.mark.parametrize("lost", ["app", "team/app", ""])
def test_images_of_a_repository_that_could_not_be_listed_are_kept(lost: str) -> None:
    """Or nobody would be told how old they are by now."""
    metrics, name = RunMetrics(clock=Now()), f"{lost or 'app'}:1"
    metrics.record_run(records((name, "done"), ("gone:1", "done"), ("app2:1", "done")), "done")
    metrics.record_run(records((lost, "failed")), "incomplete")
    kept = {source for source, _ in metrics.state.arrived}
    assert f"a.example/{name}" in kept
    assert ("a.example/gone:1" in kept) == ("a.example/app2:1" in kept) == (not lost)


@pytest.mark.parametrize("end", ["failed", "interrupted"])
def test_a_run_that_did_not_come_to_its_end_drops_nothing(end: RunResult) -> None:
    metrics = RunMetrics(clock=Now())
    metrics.record_run(records(("app:1", "done")), "done")
    metrics.record_run(records(), end)
    assert set(metrics.state.arrived) == {("a.example/app:1", "b.example/app:1")}


def test_runs_add_up() -> None:
    clock = Now()
    metrics = RunMetrics(clock=clock)
    metrics.start_run()
    metrics.record_run(report(web="done", db="present"), "done")
    clock.now = 2000.0
    metrics.record_run(report(seconds=3.0, web="present", db="failed"), "incomplete")
    found = kept(metrics)
    assert [found["blobflow_runs_total", end] for end in RUN_RESULTS] == [1, 1, 0, 0]
    assert found["blobflow_run_read_bytes_total", ""] == 200
    assert found["blobflow_run_written_bytes_total", ""] == 100
    assert found["blobflow_run_requests_total", ""] == 14
    assert found["blobflow_run_seconds_total", ""] == 5.0
    assert found["blobflow_last_run_seconds", ""] == 3.0
    assert found["blobflow_last_run_timestamp_seconds", ""] == 2000.0
    assert found["blobflow_last_success_timestamp_seconds", ""] == 1000.0
    assert found["blobflow_images", "failed"] == 1
    assert found["blobflow_images", "present"] == 1
    assert found["blobflow_image_last_success_timestamp_seconds", "a.example/web:1"] == 2000.0
    assert found["blobflow_image_last_success_timestamp_seconds", "a.example/db:1"] == 1000.0


def test_what_audits_found_adds_up_also_over_processes(tmp_path: Path) -> None:
    for _ in range(2):
        metrics = RunMetrics(tmp_path / "m.prom", Now())
        metrics.record_run(Report(Totals(audited=40, incomplete=1), ()), "done")
    found = kept(metrics)
    assert found["blobflow_run_audited_roots_total", ""] == 80
    assert found["blobflow_run_incomplete_images_total", ""] == 2


def test_an_image_that_never_arrived_is_at_0_and_one_that_is_no_more_asked_for_goes_with_a_whole_run() -> (
    None
):
    metrics = RunMetrics(clock=Now())
    metrics.record_run(report(web="done", db="failed"), "incomplete")
    assert kept(metrics)["blobflow_image_last_success_timestamp_seconds", "a.example/db:1"] == 0.0
    metrics.record_run(Report(Totals(), ()), "failed")
    assert len(metrics.state.arrived) == 2
    metrics.record_run(report(web="present"), "done")
    assert [source for source, _ in metrics.state.arrived] == ["a.example/web:1"]


def test_a_later_process_goes_on_with_the_file_of_an_earlier_one(tmp_path: Path) -> None:
    file, clock = tmp_path / "blobflow.prom", Now()
    RunMetrics(file, clock).record_run(report(web="done", db="failed"), "incomplete")
    first = file.read_bytes()
    clock.now = 5000.0
    later = RunMetrics(file, clock)
    assert later.text() == first
    later.record_run(report(web="failed", db="done"), "incomplete")
    found = samples(file.read_text())
    assert found["blobflow_runs_total", "incomplete"] == 2
    assert found["blobflow_image_last_success_timestamp_seconds", "a.example/web:1"] == 1000.0
    assert found["blobflow_image_last_success_timestamp_seconds", "a.example/db:1"] == 5000.0
    assert [each.name for each in tmp_path.iterdir()] == ["blobflow.prom"]  # nothing half written stays


@pytest.mark.parametrize(
    "text", ["", "hello\n", "up 1\n", "x{y= 1\n", "# TYPE a counter\na_total nonsense\n"]
)
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.prom"
    file.write_text(text)
    with pytest.raises(InvalidConfig, match="was not written by --metrics-file"):
        RunMetrics(file)
    assert file.read_text() == text


def test_a_file_that_can_not_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    metrics = RunMetrics(tmp_path / "gone" / "blobflow.prom")
    with pytest.raises(StorageError, match="gone"):
        metrics.record_run(report(), "done")


def test_the_endpoint_tells_ages_as_of_now_and_what_is_under_way() -> None:
    clock = Now()
    metrics = RunMetrics(clock=clock)
    metrics.record_run(report(web="done", db="failed"), "incomplete")
    with metrics.listening("127.0.0.1", 0) as port:
        clock.now = 1090.0
        metrics.start_run()
        clock.now = 1100.0
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=")
            found = samples(answer.read().decode())
    assert found["blobflow_image_last_success_age_seconds", "a.example/web:1"] == 100.0
    assert ("blobflow_image_last_success_age_seconds", "a.example/db:1") not in found
    assert found["blobflow_running_seconds", ""] == 10.0
    assert found["blobflow_runs_total", "incomplete"] == 1


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    metrics = RunMetrics()
    with (
        metrics.listening("127.0.0.1", 0) as port,
        pytest.raises(UsageError, match=f"can't listen on 127.0.0.1:{port}"),
        metrics.listening("127.0.0.1", port),
    ):
        raise AssertionError("it can't be listened to twice")


def test_names_that_labels_must_escape_come_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "blobflow.prom"
    record = ImageRecord('oci:a "quoted" \\ path\n', "b.example/x:1", DIGEST, DIGEST, (), "done")
    RunMetrics(file).record_run(Report(Totals(1), (record,)), "done")
    assert list(RunMetrics(file).state.arrived) == [(record.source, record.target)]


def test_a_place_whose_name_is_not_utf_8_is_counted_from_run_to_run(tmp_path: Path) -> None:
    file = tmp_path / "m.prom"
    lost = report(a="failed", b="done")
    images = [msgspec.structs.replace(each, source=f"oci:lay\udcff:{each.source}") for each in lost.images]
    for now in (1000.0, 2000.0):
        metrics = RunMetrics(file, clock=lambda at=now: at)  # type: ignore[misc]
        metrics.record_run(msgspec.structs.replace(lost, images=tuple(images)), "incomplete")
    found = samples(file.read_text())
    name = "blobflow_image_last_success_timestamp_seconds"
    assert {key[1]: value for key, value in found.items() if key[0] == name} == {
        "oci:lay\\udcff:a.example/a:1": 0.0,
        "oci:lay\\udcff:a.example/b:1": 2000.0,
    }
