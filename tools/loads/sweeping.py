"""`blobflow cache gc` as a user runs it: a process of its own beside the one that serves."""

from __future__ import annotations

import asyncio
import re
import time
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.e2e.processes import TOP, blobflow_of, environment

_REMOVED = re.compile(r"(\d+) blobs? removed")


class Sweep(msgspec.Struct, frozen=True):
    """One run of gc: how many blobs it removed, and how many seconds it took; `failure`: what it said when it
    ended with another status than 0."""

    removed: int
    seconds: float
    failure: str = ""


async def sweep(root: Path, home: Path, *, checkout: Path = TOP, under: Sequence[str] = ()) -> Sweep:
    """Remove from the store whatever may go. `under`: words put before the command. When cancelled, it is
    killed."""
    command = [*under, *blobflow_of(checkout), "cache", "gc", "--cache-dir", str(root), "--max-size", "0"]
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command, cwd=checkout, env=environment(home), stdout=PIPE, stderr=PIPE
    )
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    seconds = time.monotonic() - begun
    found = _REMOVED.search(out.decode())
    failure = (
        "" if process.returncode == 0 and found else f"gc ended with {process.returncode}: {err.decode()}"
    )
    return Sweep(int(found[1]) if found else 0, seconds, failure)
