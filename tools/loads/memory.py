"""What a process holds in memory, as Linux tells it."""

from __future__ import annotations

import re
from pathlib import Path

_RESIDENT = re.compile(r"^VmRSS:\s*(\d+) kB$", re.MULTILINE)


def resident_bytes(pid: int) -> int:
    """The resident set of a process, in bytes. Raises OSError when it is gone, ValueError when it is a
    zombie."""
    found = _RESIDENT.search(Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise ValueError(f"process {pid} holds no memory any more")
    return int(found[1]) * 1024
