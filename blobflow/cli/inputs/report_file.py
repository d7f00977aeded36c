"""JSON reports that an earlier run wrote, as files or on stdin."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from blobflow.bounded_file import read_head
from blobflow.cli.runtime.files import input_name
from blobflow.errors import InvalidConfig

if TYPE_CHECKING:
    from blobflow.engine.results.report import Report


def read_report(file: Path) -> Report:
    """The report of a file, or of stdin for `-`; of one that is too long no more than shows that is read.

    Raises InvalidConfig for a file that can't be read, and as `load_report`.
    """
    from blobflow.reportfile import MAX_REPORT_BYTES, load_report

    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(MAX_REPORT_BYTES + 1)
        else:
            content = read_head(file, MAX_REPORT_BYTES + 1)
    except OSError as error:
        raise InvalidConfig(f"can't read {file}: {error.strerror or error}") from None
    return load_report(content, input_name(file))
