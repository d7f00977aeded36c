"""What is written for people: `print_lines`, through which every line of text leaves; and lines that are
written together, since a registry may answer thousands of requests a second, a line each."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from blobflow.errors import StorageError
from blobflow.printable import printable

# Seconds after which a line is written, and characters that are written at once before that. A write a line
# would cost as much as a small answer does.
_FLUSH_SECONDS = 0.2
_FLUSH_CHARACTERS = 64 * 1024


def print_lines(*lines: str, err: bool = False) -> None:
    """Write lines to stdout, or to stderr; each stays one line and is harmless, whoever chose its words: see
    `printable`. All at once, so that nobody else's come between. Raises as `write_stdout`.
    """
    text = "\n".join(map(printable, lines))
    if err:
        click.echo(text, err=True)
    else:
        write_stdout(text)


def write_stdout(content: str | bytes, *, nl: bool = True) -> None:
    """Write to stdout as it stands: JSON, or the exact bytes of something.

    Raises BrokenPipeError where the reader went away; StorageError for a file that takes no more, and what
    is left then goes nowhere.
    """
    try:
        click.echo(content, nl=nl)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise stdout_error(error) from None


def discard_stdout() -> None:
    """The reader of stdout went away (`| head`): let what is left, and Python's flush at exit, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stdout_error(error: OSError) -> StorageError:
    """What to raise where stdout takes no more. What is left for it goes nowhere."""
    from blobflow.transports.files import translate_os_errors

    discard_stdout()
    try:
        with translate_os_errors("write", "standard output"):
            raise error
    except StorageError as lost:
        return lost


@contextmanager
def ignore_closed_pipe() -> Iterator[None]:
    """Where the reader of stdout goes away (`| head`) what is left goes nowhere, and how it all ended is
    still to be said by the exit code."""
    try:
        yield
    except BrokenPipeError:
        discard_stdout()


class _VisibleLog(logging.Formatter):
    """Python's own form of a log record, harmless line by line: what libraries log may quote a request."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(printable(line) for line in super().format(record).split("\n"))


def sanitize_log_output() -> None:
    """Whatever libraries log, and nobody has asked for in another form, reaches stderr harmless."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_VisibleLog())


class BufferedLines:
    """Used on one loop; `close` writes what is left.

    `write` gets text of whole lines; its OSError is swallowed: a log that can't be written ends no service.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._lines: list[str] = []
        self._size = 0
        self._due: asyncio.TimerHandle | None = None

    def add(self, line: str) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _FLUSH_CHARACTERS:
            self.flush()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        lines, self._lines, self._size = self._lines, [], 0
        if lines:
            try:
                self._write("\n".join(lines) + "\n")
            except OSError:
                return

    close = flush
