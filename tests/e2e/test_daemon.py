"""A sync that stays: real processes, real signals, its metrics scraped. Every wait has a bound."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deadlines import HANGS_AFTER
from tools import imageset
from tools.checkout import TOP
from tools.processes import BLOBFLOW, Registry, blobflow_serve, environment


class Stayer:
    """A `blobflow sync` that stays, and the lines of its standard error as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line.rstrip("\n"))

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for a line; the lines before it are passed over."""
        seen = []
        while True:
            try:
                seen.append(self._lines.get(timeout=HANGS_AFTER))
            except Empty:
                raise AssertionError(f"no line like {pattern!r}, only {seen}") from None
            if found := re.search(pattern, seen[-1]):
                return found

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()


@contextmanager
def staying(arguments: Sequence[str], home: Path) -> Iterator[Stayer]:
    with subprocess.Popen(
        [*BLOBFLOW, "sync", *arguments],
        cwd=TOP,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        stayer = Stayer(process)
        try:
            yield stayer
        finally:
            stayer.end()


class Places(msgspec.Struct, frozen=True):
    """Two registries, two images of the first, and a file to list some in."""

    source: Registry
    target: Registry
    names: tuple[str, str]
    images: Path

    def arguments(self, *names: str) -> list[str]:
        self.images.write_text("\n".join(names))
        return ["--from", self.source.host, "--to", f"{self.target.host}/m", "--images", str(self.images)]


@pytest.fixture
def places(tmp_path: Path, small_set: imageset.Layout) -> Iterator[Places]:
    with blobflow_serve(tmp_path / "source") as source, blobflow_serve(tmp_path / "target") as target:
        imageset.push(small_set.path, source.host)
        first, second, *_ = small_set.images
        yield Places(source, target, (first, second), tmp_path / "images.txt")


def metrics_at(url: str) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(url, timeout=HANGS_AFTER) as answer:
        text = answer.read().decode()
    return {
        (sample.name, sample.labels.get("target") or sample.labels.get("end") or ""): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_it_runs_takes_a_new_list_keeps_the_old_one_and_ends(
    places: Places, tmp_path: Path, home: Path
) -> None:
    (first, second), target = places.names, places.target
    stays = ["--every", "1h", "--metrics-listen", "127.0.0.1:0", "--metrics-file", str(tmp_path / "b.prom")]
    with staying([*places.arguments(first), *stays], home) as stayer:
        url = stayer.until(r"metrics at (http://\S+)")[1]
        stayer.until("next run at")
        found = metrics_at(url)
        assert found["blobflow_runs_total", "done"] == 1
        assert found["blobflow_run_written_bytes_total", ""] > 0
        assert 0 <= found["blobflow_image_last_success_age_seconds", f"{target.host}/m/{first}"] < HANGS_AFTER

        places.images.write_text(second)
        stayer.process.send_signal(signal.SIGHUP)
        stayer.until("read again")
        places.images.write_text("not an image!")
        stayer.process.send_signal(signal.SIGHUP)
        stayer.until("line 1: .*going on with what was asked for before")

        stayer.process.send_signal(signal.SIGTERM)
        assert stayer.process.wait(HANGS_AFTER) == 0
    assert target.digest_of(f"m/{first.partition(':')[0]}", first.partition(":")[2]) is not None
    assert "blobflow_runs_total" in (tmp_path / "b.prom").read_text()


def test_a_failed_run_is_told_and_does_not_end_it(places: Places, home: Path) -> None:
    with staying([*places.arguments("no/such:image"), "--every", "1s"], home) as stayer:
        for _ in range(2):
            stayer.until("1 of 1 images did not arrive")
            stayer.until("next run at")
        stayer.process.send_signal(signal.SIGINT)
        assert stayer.process.wait(HANGS_AFTER) == 130


def test_each_entry_of_a_spec_runs_at_its_own_time(places: Places, tmp_path: Path, home: Path) -> None:
    first, second = places.names
    images = [{"image": first, "every": "1s"}, {"image": second, "schedule": "0 3 29 2 *"}]
    defaults = {"source": places.source.host, "targets": [f"{places.target.host}/m"]}
    (tmp_path / "spec.yaml").write_text(
        msgspec.json.encode({"version": 1, "defaults": defaults, "images": images}).decode()
    )
    with staying([str(tmp_path / "spec.yaml"), "--every", "spec", "--log-format", "json"], home) as stayer:
        for _ in range(3):
            stayer.until('"event": "summary".*"images": ?1,')
            stayer.until("next run at")
        stayer.process.send_signal(signal.SIGTERM)
        assert stayer.process.wait(HANGS_AFTER) == 0
    for name, there in ((first, True), (second, False)):
        repository, _, tag = name.rpartition(":")
        assert (places.target.digest_of(f"m/{repository}", tag) is not None) is there


def test_sigterm_in_the_middle_of_a_run_finishes_what_is_under_way_and_ends(
    places: Places, tmp_path: Path, home: Path
) -> None:
    file = tmp_path / "b.prom"
    stays = ["--every", "1h", "--metrics-file", str(file)]
    slow = ["--concurrency", "1", "--limit-rate", "60kB", "--grace", "50", "--log-format", "json"]
    with staying([*places.arguments(*places.names), *stays, *slow], home) as stayer:
        stayer.until('"event": "start".*"kind": "copy"')
        stayer.process.send_signal(signal.SIGTERM)
        assert stayer.process.wait(HANGS_AFTER) == 130
    text = file.read_text()
    assert 'blobflow_runs_total{end="interrupted"} 1.0' in text
    assert 'blobflow_images{status="skipped"} 2.0' in text
