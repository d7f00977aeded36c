"""Metrics of runs for Prometheus, as an endpoint or as a text file.

The text file is for node_exporter's textfile collector, and it is also the state: a process that is given
the file of an earlier one goes on counting where that one stopped, so a job that runs and ends has the same
metrics as a daemon. It is replaced atomically, so nobody reads half of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from blobflow.cli.runtime.files import write_atomic
from blobflow.engine.results.report import ImageRecord, Report
from blobflow.errors import InvalidConfig, UsageError
from blobflow.printable import encodable

# done: every image is where it should be. incomplete: some are not. failed: an error ended the run.
# interrupted: a signal did.
RunResult = Literal["done", "incomplete", "failed", "interrupted"]
RUN_RESULTS: tuple[RunResult, ...] = ("done", "incomplete", "failed", "interrupted")
_STATUSES = ("done", "present", "failed", "skipped")
_ARRIVED = ("done", "present")

Image = tuple[str, str]


class MetricsState(msgspec.Struct, frozen=True):
    """The sums over all runs, and the last one. Times in seconds since the epoch, 0 for never.

    `arrived`: when each image, as its source and target, was last seen to be where it should be; 0 if it
    never was. `running`: when the run under way began.
    """

    runs: dict[RunResult, int] = {}
    bytes_read: int = 0
    bytes_written: int = 0
    requests: int = 0
    seconds: float = 0.0
    last_seconds: float = 0.0
    last_end: float = 0.0
    last_done: float = 0.0
    images: dict[str, int] = {}
    arrived: dict[Image, float] = {}
    running: float = 0.0
    audited: int = 0
    incomplete: int = 0


def with_run(state: MetricsState, report: Report, end: RunResult, now: float) -> MetricsState:
    """The metrics with one more run.

    Images that a whole run no longer has are dropped, unless it could not list their repository.
    """
    totals = report.totals
    whole = end in ("done", "incomplete")
    known = {_labels(image) for image in report.images}
    unread = [_labels(image)[0].rstrip("/") for image in report.images if _is_repository(image)]
    arrived = {
        image: at
        for image, at in state.arrived.items()
        if not whole or image in known or any(_is_below(image[0], repository) for repository in unread)
    }
    for image in report.images:
        key = _labels(image)
        if image.reason:  # it is not to be there, and nobody is to be told that it never came
            arrived.pop(key, None)
            continue
        arrived[key] = now if image.status in _ARRIVED else arrived.get(key, 0.0)
    return MetricsState(
        runs={**state.runs, end: state.runs.get(end, 0) + 1},
        bytes_read=state.bytes_read + totals.bytes_read,
        bytes_written=state.bytes_written + totals.bytes_written,
        requests=state.requests + totals.requests,
        seconds=state.seconds + totals.seconds,
        last_seconds=totals.seconds,
        last_end=now,
        last_done=now if end == "done" else state.last_done,
        images={status: sum(image.status == status for image in report.images) for status in _STATUSES},
        arrived=arrived,
        audited=state.audited + totals.audited,
        incomplete=state.incomplete + totals.incomplete,
    )


def _labels(image: ImageRecord) -> Image:
    """An image's source and target as the format has them, in UTF-8: a layout's name need not be that."""
    return encodable(image.source), encodable(image.target)


def _is_repository(image: ImageRecord) -> bool:
    """Whether it stands for all images of a repository, or of a registry, that could not be listed."""
    return image.status == "failed" and ":" not in image.source.rpartition("/")[2]


def _is_below(name: str, repository: str) -> bool:
    return name.startswith(tuple(f"{repository}{mark}" for mark in ":@/"))


class RunMetrics:
    """The metrics of this process, and of those before it if it has a `file`.

    Raises InvalidConfig for a file that it did not write: it would be overwritten. `clock` gives seconds
    since the epoch.
    """

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self.state = _load_state(file) if file is not None and file.exists() else MetricsState()

    def start_run(self) -> None:
        """Note that a run begins."""
        self.state = msgspec.structs.replace(self.state, running=self._clock())

    def record_run(self, report: Report, end: RunResult) -> None:
        """Count a run that ended, and write the file. Raises StorageError if that fails."""
        self.state = with_run(self.state, report, end, self._clock())
        if self._file is not None:
            write_atomic(self._file, self.text())

    def text(self) -> bytes:
        """The metrics in Prometheus' text format, without ages, which are true only now."""
        return generate_latest(_collector_registry(lambda: metric_families(self.state)))

    @contextmanager
    def listening(self, host: str, port: int) -> Iterator[int]:
        """While inside, a thread answers on `host:port`, path /metrics; gives the port (0: a free one).

        Raises UsageError if it can't listen there.
        """
        registry = _collector_registry(
            lambda: [*metric_families(self.state), *age_families(self.state, self._clock())]
        )
        try:
            server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise UsageError(
                f"can't listen on {host}:{port} for --metrics-listen: {error.strerror}"
            ) from None
        try:
            yield int(server.server_port)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Collector:
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self.collect = collect


def _collector_registry(collect: Callable[[], Iterable[Metric]]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(collect))
    return registry


def metric_families(state: MetricsState) -> Iterator[Metric]:
    """The state as metrics."""
    runs = CounterMetricFamily("blobflow_runs", "Runs, by how they ended.", labels=["end"])
    for end in RUN_RESULTS:
        runs.add_metric([end], state.runs.get(end, 0))
    yield runs
    for name, text, value in (
        ("blobflow_run_read_bytes", "Bytes of blobs and manifests read by all runs.", state.bytes_read),
        ("blobflow_run_written_bytes", "Bytes of them written by all runs.", state.bytes_written),
        ("blobflow_run_requests", "HTTP requests sent by all runs.", state.requests),
        ("blobflow_run_seconds", "Seconds that all runs took.", state.seconds),
        ("blobflow_run_audited_roots", "Roots that all runs looked below to the end.", state.audited),
        ("blobflow_run_incomplete_images", "Images that runs found to lack something.", state.incomplete),
    ):
        yield CounterMetricFamily(name, text, value)
    for name, text, value in (
        ("blobflow_last_run_seconds", "Seconds that the last run took.", state.last_seconds),
        ("blobflow_last_run_timestamp_seconds", "When the last run ended.", state.last_end),
        ("blobflow_last_success_timestamp_seconds", "When the last whole run ended.", state.last_done),
    ):
        yield GaugeMetricFamily(name, text, value)
    images = GaugeMetricFamily("blobflow_images", "Images of the last run, by status.", labels=["status"])
    for status in _STATUSES:
        images.add_metric([status], state.images.get(status, 0))
    yield images
    arrived = GaugeMetricFamily(
        "blobflow_image_last_success_timestamp_seconds",
        "When an image was last seen to be where it should be; 0: never.",
        labels=["source", "target"],
    )
    for (source, target), at in sorted(state.arrived.items()):
        arrived.add_metric([source, target], at)
    yield arrived


def age_families(state: MetricsState, now: float) -> Iterator[Metric]:
    """Metrics of one moment: how old successes are, and how long the run under way has taken."""
    running = now - state.running if state.running else 0.0
    yield GaugeMetricFamily("blobflow_running_seconds", "How long the run under way has taken.", running)
    old = GaugeMetricFamily(
        "blobflow_image_last_success_age_seconds",
        "Seconds since an image was last seen to be where it should be; none if it never was.",
        labels=["source", "target"],
    )
    for (source, target), at in sorted(state.arrived.items()):
        if at:
            old.add_metric([source, target], now - at)
    yield old


def _load_state(file: Path) -> MetricsState:
    """The state that an earlier process wrote. Raises InvalidConfig."""
    try:
        text = file.read_text(encoding="utf-8")
        found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except OSError as error:
        raise InvalidConfig(f"can't read {file}: {error.strerror or error}") from None
    except (ValueError, KeyError, IndexError):
        found = []
    if not any(sample.name == "blobflow_runs_total" for sample in found):
        raise InvalidConfig(f"{file} is there, and was not written by --metrics-file; name another file")
    plain = {sample.name: sample.value for sample in found if not sample.labels}
    runs = {s.labels["end"]: int(s.value) for s in found if s.name == "blobflow_runs_total"}
    return MetricsState(
        runs={end: runs[end] for end in RUN_RESULTS if end in runs},
        bytes_read=int(plain.get("blobflow_run_read_bytes_total", 0)),
        bytes_written=int(plain.get("blobflow_run_written_bytes_total", 0)),
        requests=int(plain.get("blobflow_run_requests_total", 0)),
        seconds=plain.get("blobflow_run_seconds_total", 0.0),
        last_seconds=plain.get("blobflow_last_run_seconds", 0.0),
        last_end=plain.get("blobflow_last_run_timestamp_seconds", 0.0),
        last_done=plain.get("blobflow_last_success_timestamp_seconds", 0.0),
        images={s.labels["status"]: int(s.value) for s in found if s.name == "blobflow_images"},
        arrived={
            (s.labels["source"], s.labels["target"]): s.value
            for s in found
            if s.name == "blobflow_image_last_success_timestamp_seconds"
        },
        audited=int(plain.get("blobflow_run_audited_roots_total", 0)),
        incomplete=int(plain.get("blobflow_run_incomplete_images_total", 0)),
    )
