"""Standard input as an archive. What kind it is shows only after a look through it, so a pipe is written
into a file first, which then takes its place: memory is bounded, and nothing is left when the process ends,
however it ends."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from pathlib import Path
from tempfile import TemporaryFile

from blobflow.errors import UsageError
from blobflow.events import HostMeter
from blobflow.transports.archive.tar_input import STDIN, STDIN_NAME, is_file_at_start
from blobflow.transports.files import BLOCK, translate_os_errors

# Seconds after which a thread that waits for a silent pipe looks whether it is still wanted.
_LOOK_EVERY = 0.2


def check_stdin() -> None:
    """Raise UsageError where nothing will come by itself: standard input is a terminal, or closed."""
    try:
        terminal = os.isatty(STDIN)
        os.fstat(STDIN)
    except OSError:
        raise UsageError("standard input is closed; pipe an archive into it, or name a file") from None
    if terminal:
        raise UsageError("standard input is a terminal; pipe an archive into it, or name a file")


async def spool_stdin(folder: Path, meter: HostMeter) -> None:
    """Let standard input be a file that can be read anywhere: what it is, if it is one, else an unnamed one
    in `folder` with all that comes. Raises StorageError. Cancelled it stops reading, and nothing is left."""
    if is_file_at_start(STDIN):
        return
    with translate_os_errors("write what comes from standard input into", folder):
        file = TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115  closed below
    with file:
        stop = threading.Event()
        copying = asyncio.create_task(asyncio.to_thread(_copy, file.fileno(), folder, meter, stop))
        try:
            await asyncio.shield(copying)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([copying])
            raise
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        os.dup2(file.fileno(), STDIN)


def _copy(target: int, folder: Path, meter: HostMeter, stop: threading.Event) -> None:
    """Write what comes until its end, or until `stop` is set; in a thread."""
    while not stop.is_set():
        if not select.select([STDIN], [], [], _LOOK_EVERY)[0]:
            continue
        with translate_os_errors("read", STDIN_NAME):
            block = memoryview(os.read(STDIN, BLOCK))
        if not block:
            return
        meter.bytes_read += len(block)
        with translate_os_errors("write what comes from standard input into", folder):
            while block:
                block = block[os.write(target, block) :]
