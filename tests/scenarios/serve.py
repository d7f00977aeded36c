"""`blobflow serve` as a process, asked over HTTP."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.deadlines import HANGS_AFTER


@contextmanager
def served(root: Path, *options: str) -> Iterator[str]:
    """The URL of a registry that is a process of its own, ended by SIGTERM; its log is beside its root."""
    command = [sys.executable, "-m", "blobflow", "serve", "--listen", "127.0.0.1:0", "--root", str(root)]
    with (
        root.with_suffix(".log").open("w") as log,
        subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[3].rstrip(",")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(HANGS_AFTER)


def status(url: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b"") -> int:
    request = urllib.request.Request(url, method=method, headers=headers or {}, data=body or None)
    try:
        with urllib.request.urlopen(request, timeout=HANGS_AFTER) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
