"""Folders in memory, for tests that are about what is in files and not about a disk.

Whatever a store promises is synced, which on a disk is most of the time of many tests; in memory it is free.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_SHM = Path("/dev/shm")
# Bytes that have to be free there; no such test leaves a tenth of it, and each one's folder goes with it.
_ROOM = 2 << 30


def folder_in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for one test, in memory where there is such a place with room; removed after the test."""
    if not _SHM.is_dir() or shutil.disk_usage(_SHM).free < _ROOM:
        yield tmp_path_factory.mktemp("test")
        return
    with tempfile.TemporaryDirectory(dir=_SHM, prefix="blobflow-test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As pytest's own, in memory."""
    yield from folder_in_memory(tmp_path_factory)
