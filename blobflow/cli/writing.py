"""Lines that are written together: a registry may answer thousands of requests a second, a line each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Seconds after which a line is written, and characters that are written at once before that. A write a line
# would cost as much as a small answer does.
_SECONDS = 0.2
_CHARACTERS = 64 * 1024


class Lines:
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
        if self._size >= _CHARACTERS:
            self.flush()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(_SECONDS, self.flush)

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
