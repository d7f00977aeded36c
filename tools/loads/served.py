"""`blobflow serve` under load: started, watched, and what it said if it ended in the middle."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.checkout import TOP
from tools.processes import Registry, blobflow_serve

_RESIDENT = re.compile(r"^VmRSS:\s*(\d+) kB$", re.MULTILINE)
_ENDING = 1.0  # seconds from a connection's end to its process's
_SHOWN = 2000  # bytes of what it said last


class ServeEnded(Exception):
    """The registry ended while it was asked."""


@contextmanager
def served(folder: Path, arguments: Sequence[str], checkout: Path = TOP) -> Iterator[Registry]:
    """As `blobflow_serve`. What fails because the process has ended leaves as ServeEnded, with its last
    words."""
    with blobflow_serve(folder, *arguments, checkout=checkout) as registry:
        try:
            yield registry
        except Exception as error:
            try:
                code = registry.process.wait(_ENDING)
            except subprocess.TimeoutExpired:
                raise error from None
            said = (folder / "errors.log").read_bytes()[-_SHOWN:].decode(errors="replace")
            raise ServeEnded(f"serve ended with status {code} while it was asked: {said}") from error


def resident_bytes(pid: int) -> int:
    """The resident set of a process in bytes, as Linux tells it. Raises OSError or ValueError when it has
    ended."""
    found = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise ValueError(f"process {pid} holds no memory any more")
    return int(found[1]) * 1024
