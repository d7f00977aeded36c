"""Files that a command reads whole, and result files, which are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from blobflow.bounded_file import read_bounded, read_stream
from blobflow.errors import InvalidConfig, UsageError

_FILE_MODE = 0o644  # what other tools give their result files

# What archives begin with, to tell somebody who gave one for a spec or a list.
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_GZIP_MAGIC = b"\x1f\x8b"


def read_text(path: Path) -> str:
    """The text of a file, or of stdin for `-`. Raises InvalidConfig naming the file and what is wrong."""
    try:
        raw = read_stream(sys.stdin.buffer, "stdin") if str(path) == "-" else read_bounded(path)
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise InvalidConfig(f"can't read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        if raw[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC) or raw.startswith(_GZIP_MAGIC):
            archives = "`blobflow load` and `blobflow bundle` take archives"
            raise InvalidConfig(f"{path} is an archive, and text is needed here; {archives}") from None
        raise InvalidConfig(f"{path} is not UTF-8 text (byte {error.start})") from None


def input_name(path: Path) -> str:
    """What a file that is read is called in errors."""
    return "stdin" if str(path) == "-" else str(path)


def check_writable(path: Path, option: str) -> None:
    """Raise UsageError before a run whose result could not be written after it."""
    if str(path) == "-":
        raise UsageError(f"{option} -: give a file; /dev/stdout is standard output")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}")


def write_atomic(path: Path, content: bytes, *, mode: int = _FILE_MODE) -> None:
    """Write `content` beside `path` and rename it there, with `mode`; into what is no file, as `/dev/stdout`,
    as it stands. Raises StorageError naming the file."""
    from blobflow.transports.files import is_stream, stream_at

    if is_stream(path):
        with stream_at(path) as write:
            write(content)
        return
    with StagedFiles() as staged:
        staged.add(path, content, mode)
        staged.place(path)


class StagedFiles:
    """Files that are written beside their places first, so that a full disk is known before any of them is
    at its place; each comes there whole. A context manager: what has not come to its place by its end, as
    after Ctrl-C, is gone."""

    def __init__(self) -> None:
        self._made: dict[Path, Path] = {}

    def __enter__(self) -> StagedFiles:
        return self

    def __exit__(self, *ended: object) -> None:
        for made in self._made.values():
            with suppress(OSError):
                made.unlink(missing_ok=True)

    def add(
        self, path: Path, content: bytes, mode: int = _FILE_MODE, *, owner: tuple[int, int] | None = None
    ) -> None:
        """Write what is to be at `path`, each path once. `owner`: the numbers of user and group. Raises
        StorageError naming the file."""
        from blobflow.transports.files import translate_os_errors

        made = path.with_name(f".blobflow-{secrets.token_hex(8)}")
        self._made[path] = made  # before it is there, so that nothing stays of it whenever a signal comes
        with translate_os_errors("write", path):
            handle = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                if owner is not None:
                    os.fchown(file.fileno(), *owner)
                os.fchmod(file.fileno(), mode)

    def place(self, path: Path) -> None:
        """Bring the file to its place, over what is there. Raises StorageError."""
        from blobflow.transports.files import translate_os_errors

        with translate_os_errors("write", path):
            self._made[path].replace(path)


class FileToWrite(NamedTuple):
    """A file that is to be at `path`."""

    path: Path
    content: bytes
    mode: int = _FILE_MODE


def write_files(files: Sequence[FileToWrite]) -> None:
    """Write files of different paths, whose folders are made if need be: none of them if one can't be.
    Raises StorageError."""
    from blobflow.transports.files import translate_os_errors

    with StagedFiles() as staged:
        for each in files:
            with translate_os_errors("make the folder of", each.path):
                each.path.parent.mkdir(parents=True, exist_ok=True)
            staged.add(*each)
        for each in files:
            staged.place(each.path)


@contextmanager
def ended_like_interrupts() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP end the work as Ctrl-C does, so that nothing is left behind."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
