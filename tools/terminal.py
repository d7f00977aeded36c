"""A command on a terminal: a process on a pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import pyte

LINES = 24
# Seconds after which something hangs: no screen takes that long.
_HANGS_AFTER = 120.0


class Terminal:
    """The screen of one process. `written`: all that it wrote."""

    def __init__(self, process: asyncio.subprocess.Process, fd: int, columns: int) -> None:
        self.process = process
        self.written = b""
        self._fd = fd
        self._screen = pyte.Screen(columns, LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(fd, self._read)

    @property
    def columns(self) -> int:
        return self._screen.columns

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, but for empty ones at its end."""
        lines = [line.rstrip() for line in self._screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def cells(self) -> list[list[tuple[str, str, bool]]]:
        """The characters of `lines`, each with its colour and whether it is bold."""
        rows = ([self._screen.buffer[y][x] for x in range(self.columns)] for y in range(len(self.lines)))
        return [[(cell.data, cell.fg, cell.bold) for cell in row] for row in rows]

    @property
    def cursor_is_shown(self) -> bool:
        return not self._screen.cursor.hidden

    async def until(self, shows: Callable[[str], bool]) -> str:
        """The text of the screen as soon as it is one that `shows` says yes to."""
        try:
            async with asyncio.timeout(_HANGS_AFTER):
                while not shows(self.text):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"the screen has not come to show that:\n{self.text}") from None
        return self.text

    async def shows(self, *words: str) -> str:
        """The text of the screen as soon as all these words are in it."""
        return await self.until(lambda text: all(each in text for each in words))

    async def resized(self, columns: int, *words: str) -> str:
        """Give the window other columns. Returns the text of the screen as soon as it was drawn for these,
        and all the words are in it."""
        before = len(self.written)
        self._screen.resize(LINES, columns)
        _set_size(self._fd, columns)

        def shows(text: str) -> bool:
            drawn = len(self.written) > before and max(map(len, self.lines), default=0) < columns
            return drawn and all(word in text for word in words)

        return await self.until(shows)

    def interrupt(self) -> None:
        """Ctrl-C, as the terminal does it."""
        os.write(self._fd, b"\x03")

    async def ended(self) -> int:
        """The exit code, once it has ended and all that it wrote is on the screen."""
        code = await asyncio.wait_for(self.process.wait(), _HANGS_AFTER)
        while self._read():
            pass
        return code

    def _read(self) -> bool:
        try:
            content = os.read(self._fd, 64 * 1024)
        except (BlockingIOError, OSError):  # EIO: nobody has the other end any more
            asyncio.get_running_loop().remove_reader(self._fd)
            return False
        self.written += content
        self._stream.feed(content)
        self._changed.set()
        return bool(content)


def _set_size(fd: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))


@asynccontextmanager
async def on_terminal(
    arguments: Sequence[str], environment: Mapping[str, str], *, columns: int
) -> AsyncIterator[Terminal]:
    """`blobflow` with these arguments, on a terminal of so many columns; killed on leaving."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    _set_size(ours, columns)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "blobflow",
        *arguments,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", **environment},
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    terminal = Terminal(process, ours, columns)
    try:
        yield terminal
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)


def _take_terminal() -> None:
    """In the child: a session of its own with stdin as its terminal, whose Ctrl-C it gets."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
