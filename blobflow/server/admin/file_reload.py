"""Reloads files while the registry serves: logins and access rules; certificates and signature policies on
demand.

- A thread looks at each file about once a second, and reads it if it looks changed. It takes effect if it
  reads well.
- What can't be read, or makes no sense, changes nothing: what was in force stays in force. The operator
  hears that once, and only if a second look finds the same: a file that is being written looks like that,
  too.
- What is no regular file (a pipe) can be read once only, and is not read again.
- `reread` reads everything at once, also what is read on demand alone, and tells what came of it.
"""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from blobflow.content import Sleep
from blobflow.errors import InvalidConfig

# Seconds between two looks at the files.
LOOK_SECONDS = 1.0
# Seconds for which a file that was written just now is read at every look: until then it may be written again
# with the same size in the same tick of the file system's clock.
_UNSETTLED_SECONDS = 2.0

T = TypeVar("T")
# A file's time of change (ns), size and number: where they are the same it is taken for unchanged.
_Signature = tuple[int, int, int]


class Reloadable(Protocol):
    """Something that was read from files. `what` names it in words: "the logins". `on_demand`: only `reread`
    reads it again."""

    name: str
    what: str
    on_demand: bool

    def read(self) -> Callable[[], None] | None:
        """In a thread: read it if it looks changed. Returns what makes it take effect, to be called on the
        loop's thread; None if nothing changed. Raises InvalidConfig."""


class ReloadableFile(Generic[T]):
    """A text file: `parse` makes a value of its text (in a thread), and `take` makes that take effect.

    `text` is the text that was read first.
    """

    on_demand = False

    def __init__(
        self, path: Path, text: str, *, what: str, parse: Callable[[str], T], take: Callable[[T], None]
    ) -> None:
        self.name = str(path)
        self.what = what
        self._path = path
        self._parse = parse
        self._take = take
        self._text = text
        self._signature: _Signature | None = None

    def read(self) -> Callable[[], None] | None:
        try:
            found = self._path.stat()
            signature = (found.st_mtime_ns, found.st_size, found.st_ino)
            if not stat.S_ISREG(found.st_mode) or signature == self._signature:
                return None
            self._signature = None
            text = self._path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise InvalidConfig(f"can't read {self._path}: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise InvalidConfig(f"{self._path} is not UTF-8 text (byte {error.start})") from None
        if text == self._text:
            if time.time() - found.st_mtime > _UNSETTLED_SECONDS:
                self._signature = signature
            return None
        value = self._parse(text)

        def take() -> None:
            self._text = text
            self._take(value)

        return take


class ReloadableOnDemand:
    """Files that `reread` reads and puts in force by itself. It raises InvalidConfig."""

    on_demand = True

    def __init__(self, name: Path, what: str, reread: Callable[[], None]) -> None:
        self.name = str(name)
        self.what = what
        self._reread = reread

    def read(self) -> Callable[[], None]:
        self._reread()
        return lambda: None


class FileReloader:
    """Reads some files again. Used on one loop; `close` it after `watch` has ended."""

    def __init__(
        self,
        files: Sequence[Reloadable],
        tell: Callable[[str], None],
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`tell` is called with sentences for the operator."""
        self._files = files
        self._tell = tell
        self._sleep = sleep
        self._thread = ThreadPoolExecutor(1, "blobflow-reread")
        self._one = asyncio.Lock()
        # What is wrong with a file, and whether the operator has heard of it.
        self._problems: dict[str, tuple[str, bool]] = {}

    async def watch(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await self._sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Look once at each file that is not on demand."""
        for file in self._files:
            if not file.on_demand:
                await self._read(file, asked=False)

    async def reread(self) -> None:
        """Read everything now, and tell for each file what came of it."""
        for file in self._files:
            await self._read(file, asked=True)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _read(self, file: Reloadable, *, asked: bool) -> None:
        async with self._one:
            try:
                take = await asyncio.get_running_loop().run_in_executor(self._thread, file.read)
            except InvalidConfig as error:
                self._failed(file, error.message, asked=asked)
                return
            self._problems.pop(file.name, None)
            if take is not None:
                take()
                self._tell(f"{file.name} was read again")
            elif asked:
                self._tell(f"{file.name} has not changed")

    def _failed(self, file: Reloadable, problem: str, *, asked: bool) -> None:
        before, told = self._problems.get(file.name, ("", False))
        again = problem == before
        told = told and again
        if asked or (again and not told):
            self._tell(f"{problem}; going on with {file.what} as before")
            told = True
        self._problems[file.name] = (problem, told)
