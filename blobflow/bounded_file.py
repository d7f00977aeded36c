"""Reads files that people write, in bounded memory: a device, or a file of another kind, may have no end; and
opens pipes that nobody may ever write to."""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from blobflow.errors import InvalidConfig

# Bytes. Lists of a million images fit; whoever gives a disk image or /dev/zero by mistake is told.
MAX_BYTES = 64 * 1024 * 1024
# Seconds for which a pipe is read: a program that gives a file so has made it by then. For as long somebody
# is waited for who opens a pipe to write to it.
PIPE_SECONDS = 30.0
_LOOK_EVERY = 0.05


def read_bounded(path: Path) -> bytes:
    """All of a file. Raises OSError, as `open_readable`; InvalidConfig for more than MAX_BYTES."""
    with open(path, "rb", opener=_open_readable) as file:
        return read_stream(file, str(path))


def read_head(path: Path, size: int) -> bytes:
    """At most so many bytes of a file, or of a pipe whose writer is waited for. Raises OSError, as
    `open_readable`."""
    with open(path, "rb", opener=_open_readable) as file:
        return file.read(size)


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


def open_readable(path: str | Path) -> int:
    """A descriptor of a file that is to be read from its start to its end, and may be a pipe, whose writer is
    waited for. Raises OSError: TimeoutError for a pipe that nobody opens to write for PIPE_SECONDS."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            _await_writer(path, fd)
        os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _await_writer(path: str | Path, pipe: int) -> None:
    """Wait until somebody has opened the pipe to write to it. Who is there and silent, only opening it once
    more tells, which waits for that; who was there has left something behind."""
    opened: list[int] = []

    def open_again() -> None:
        with suppress(OSError):  # the pipe has gone; what was opened first still is one
            opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    # A daemon: whoever interrupts us does not wait for it, and nor does the end of the process.
    opening = threading.Thread(target=open_again, daemon=True)
    opening.start()
    poll, until = select.poll(), time.monotonic() + PIPE_SECONDS
    poll.register(pipe, select.POLLIN)
    while late := opening.is_alive() and not poll.poll(_LOOK_EVERY * 1000):
        if time.monotonic() > until:
            break
    if opening.is_alive():
        ours = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        opening.join()  # it has somebody to open it for, even if it gets to that only now
        os.close(ours)
    for fd in opened:
        os.close(fd)
    if late:
        raise TimeoutError(errno.ETIMEDOUT, f"it is a pipe that nobody writes to, for {PIPE_SECONDS:g} s now")


def _open_readable(path: str, _flags: int) -> int:
    return open_readable(path)


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
