"""What stderr does not take is gone, and nothing is raised for it."""

from __future__ import annotations

import io
import os
from contextlib import closing

from blobflow.cli.runtime.standard_streams import LossyFile


def test_a_reader_that_does_not_keep_up_with_what_it_wants_at_once_loses_lines() -> None:
    """A terminal or a pipe that somebody made non-blocking has no room: write(2) would have to wait."""
    read, write = os.pipe()
    with closing(os.fdopen(read, "rb")), LossyFile(write, "w") as file:
        os.set_blocking(write, False)
        out = io.TextIOWrapper(io.BufferedWriter(file), line_buffering=True)
        for _ in range(10_000):
            out.write(f"{'a line ' * 20}\n")
        out.flush()


def test_lines_to_a_full_disk_are_gone() -> None:
    out = io.TextIOWrapper(io.BufferedWriter(LossyFile("/dev/full", "w")), line_buffering=True)
    for _ in range(1000):
        out.write("a line\n")
    out.close()
