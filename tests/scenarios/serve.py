"""`blobflow serve` as a process, asked over HTTP."""

from __future__ import annotations

import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from tests.deadlines import HANGS_AFTER
from tools.processes import BLOBFLOW, Process, start_warm


class Serve(NamedTuple):
    """A `blobflow serve` that answers: its first line, and the rest of what it prints. Its log is beside its
    root."""

    process: Process
    greeting: str
    out: IO[bytes]
    log: Path

    @property
    def errors(self) -> str:
        return self.log.read_text()


@contextmanager
def serve(root: Path, *options: str) -> Iterator[Serve]:
    """A registry that is a process of its own, killed in the end if it still runs."""
    command = [*BLOBFLOW, "serve", "--listen", "127.0.0.1:0", "--root", str(root), *options]
    log = root.with_suffix(".log")
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as out, log.open("wb") as errors:
        with os.fdopen(writing, "wb") as to:
            warm = start_warm(command, os.environ, to, errors)
            process: Process = warm or subprocess.Popen(command, stdout=to, stderr=errors)
        try:
            yield Serve(process, out.readline().decode(), out, log)
        finally:
            process.kill()
            process.wait()


@contextmanager
def served(root: Path, *options: str) -> Iterator[str]:
    """The URL of a registry that is a process of its own, ended by SIGTERM; its log is beside its root."""
    with serve(root, *options) as server:
        try:
            yield server.greeting.split()[3].rstrip(",")
        finally:
            server.process.terminate()
            server.process.wait(HANGS_AFTER)


def status(url: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b"") -> int:
    request = urllib.request.Request(url, method=method, headers=headers or {}, data=body or None)
    try:
        with urllib.request.urlopen(request, timeout=HANGS_AFTER) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
