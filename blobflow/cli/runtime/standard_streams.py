"""The standard streams of the process, such that no log decides how a command ends.

What goes to stderr is for people and for who collects it. Where it can't be written (a full disk, a reader
that went away) it is lost, and the command goes on and has the exit code that it would have had. A stream
that was closed before the start (`2>&-`) is opened to nowhere: else the next file or socket would get its
number, and the lines that are meant for the stream. An archive that is written to a closed stdout is not lost
like lines: it fails, as there is nothing that has it.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

_STDIN, _STDOUT, _STDERR = range(3)


class LossyFile(io.FileIO):
    """A file to which everything can be written: what it does not take is gone."""

    def write(self, content: Any, /) -> int:
        try:
            written = super().write(content)
        except OSError:
            written = None
        return memoryview(content).nbytes if written is None else written  # None: it would have to wait


def prepare_standard_streams() -> None:
    """Open what is closed, and let stderr take everything. Streams that somebody has put into their places,
    as tests do, stay."""
    for fd in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(fd)
        except OSError:
            # What writes to the descriptor of stdout is an archive; lines have a file of their own.
            access = os.O_RDONLY if fd == _STDOUT else os.O_RDWR
            os.set_inheritable(os.open(os.devnull, access), True)  # the lowest number, which is this one
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(_STDIN, closefd=False)))
    if sys.stdout is None:
        sys.stdout = _text(io.FileIO(os.devnull, "w"))
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(LossyFile(_STDERR, "w", closefd=False), errors="backslashreplace")


def _text(file: io.FileIO, errors: str | None = None) -> io.TextIOWrapper:
    """As Python makes its own: written line by line."""
    encoding = sys.__stderr__.encoding if sys.__stderr__ is not None else None
    return io.TextIOWrapper(io.BufferedWriter(file), encoding, errors, line_buffering=True)
