"""What a cluster of tests is told by the pages of its scheduler, which now and then are errors."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools.cluster import Cluster, Part

LISTED = b'<tr><td><a href="../worker/x.html">tcp://127.0.0.1:7</a></td>\n<td> one </td></tr>'


@contextmanager
def pages(*answers: tuple[int, bytes]) -> Iterator[tuple[str, list[int]]]:
    """A server that gives these answers in turn, and the last one from then on: where, and what it gave."""
    given: list[int] = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[min(len(given), len(answers) - 1)]
            given.append(status)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Standard error is for what fails."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", given
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def worker(folder: Path) -> Iterator[Part]:
    """A process that lives, called one."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield Part("one", folder, process)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_a_page_that_is_an_error_for_a_moment_is_asked_for_again(cluster: Cluster, tmp_path: Path) -> None:
    with (
        pages((500, b"broken"), (200, b"nobody yet"), (200, LISTED)) as (where, given),
        worker(tmp_path) as one,
    ):
        cluster.dashboard = where
        assert cluster.address_of(one) == "tcp://127.0.0.1:7"
    assert given == [500, 200, 200]


def test_an_error_does_not_say_that_a_worker_is_gone(cluster: Cluster, tmp_path: Path) -> None:
    with pages((500, b"broken"), (200, LISTED), (200, b"nobody")) as (where, given), worker(tmp_path) as one:
        cluster.dashboard = where
        cluster.wait_without(one)
    assert given == [500, 200, 200]


def test_a_page_is_told_whatever_its_status(cluster: Cluster) -> None:
    with pages((404, b"none")) as (where, _):
        cluster.dashboard = where
        assert cluster.page("/any") == "none"
