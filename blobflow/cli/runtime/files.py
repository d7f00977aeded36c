"""Files that a command reads whole, and result files, which are written whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from blobflow.bounded_file import read_bounded, read_stream
from blobflow.errors import InvalidConfig, UsageError

_FILE_MODE = 0o644  # what other tools give their result files; mkstemp alone would make them private

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
    from blobflow.transports.files import is_stream, stream_at, translate_os_errors

    if is_stream(path):
        with stream_at(path) as write:
            write(content)
        return
    with translate_os_errors("write", path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(name).chmod(mode)
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
