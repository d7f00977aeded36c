"""Reads files that people write, in bounded memory: a device, or a file of another kind, may have no end."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from blobflow.errors import InvalidConfig

# Bytes. Lists of a million images fit; whoever gives a disk image or /dev/zero by mistake is told.
MAX_BYTES = 64 * 1024 * 1024


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
