"""`blobflow cache gc` as a user runs it: a process of its own beside the one that serves."""

from __future__ import annotations

import asyncio
import re
import time
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tools.checkout import TOP
from tools.processes import blobflow_of, environment

# Seconds that one run may take; with 20,000 blobs it took a minute when it was slowest.
LIMIT = 900.0
_REMOVED = re.compile(r"(\d+) blobs? removed")


class Sweep(msgspec.Struct, frozen=True):
    """One run of gc: how many blobs it removed, and how many seconds it took; `failure`: what it said when it
    ended with another status than 0, or that it did not end."""

    removed: int
    seconds: float
    failure: str = ""


async def sweep(root: Path, home: Path, *, checkout: Path = TOP, under: Sequence[str] = ()) -> Sweep:
    """Remove from the store whatever may go. `under`: words put before the command. It is killed when this is
    cancelled, and after LIMIT seconds."""
    command = [*under, *blobflow_of(checkout), "cache", "gc", "--cache-dir", str(root), "--max-size", "0"]
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *command, cwd=checkout, env=environment(home), stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(LIMIT):
            out, err = await process.communicate()
    except TimeoutError:
        return Sweep(0, LIMIT, f"gc had not ended after {LIMIT:.0f} seconds, and was killed")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    seconds = time.monotonic() - begun
    found = _REMOVED.search(out.decode())
    failure = (
        "" if process.returncode == 0 and found else f"gc ended with {process.returncode}: {err.decode()}"
    )
    return Sweep(int(found[1]) if found else 0, seconds, failure)
