"""Reads files that people write, in bounded memory: a device, or a file of another kind, may have no end."""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from pathlib import Path
from typing import BinaryIO

from blobflow.errors import InvalidConfig

# Bytes. Lists of a million images fit; whoever gives a disk image or /dev/zero by mistake is told.
MAX_BYTES = 64 * 1024 * 1024
# Seconds for which a pipe is read: a program that gives a file so has made it by then.
PIPE_SECONDS = 30.0


def read_bounded(path: Path) -> bytes:
    """All of a file. Raises OSError; InvalidConfig for more than MAX_BYTES."""
    with path.open("rb") as file:
        return read_stream(file, str(path))


def read_stream(stream: BinaryIO, name: str) -> bytes:
    """All of a stream, which errors call `name`. Raises as `read_bounded`."""
    raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise InvalidConfig(f"{name} has more than {MAX_BYTES // 1024**2} MiB; is it the right file?")
    return raw


def read_beginning(path: Path, size: int) -> bytes:
    """At most so many bytes of a file. For one that is read while an event loop stands still, and no signal
    ends the process: a pipe that nobody writes to is not waited for without end. Raises OSError."""
    with open(path, "rb", opener=_open_at_once) as file:
        if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
            return _read_pipe(file.fileno(), size)
        os.set_blocking(file.fileno(), True)
        return file.read(size)


def read_named(path: Path, what: str, most: int) -> bytes:
    """All of a file that is `what`, of at most so many bytes; as `read_beginning`. Raises InvalidConfig if it
    can't be read, or has more."""
    try:
        raw = read_beginning(path, most + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise InvalidConfig(f"can't read the {what} {path}: {reason}") from None
    if len(raw) > most:
        raise InvalidConfig(f"{path} has more than {most // 1024**2} MiB; is it a {what}?")
    return raw


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _read_pipe(pipe: int, size: int) -> bytes:
    until, found = time.monotonic() + PIPE_SECONDS, b""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while len(found) < size:
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError(errno.ETIMEDOUT, f"it is a pipe, and has not ended within {PIPE_SECONDS:g} s")
        chunk = os.read(pipe, size - len(found))
        if not chunk:
            break
        found += chunk
    return found
