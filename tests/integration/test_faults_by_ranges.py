"""The table of faults once more, at a source whose blobs are read by ranges: the same comes of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from blobflow.server.http.bodies import SocketBodyTransport
from blobflow.server.http.listener import Server
from tests.fakes.jumping_clock import lapsing, with_stores
from tests.integration.test_faults import ROWS, STALLS
from tests.scenarios.fault_rows import Row, by_ranges, expected, filled, play

__all__ = ["filled"]


@pytest.mark.parametrize("row", [by_ranges(row) for row in (*ROWS, *STALLS)], ids=str)
@lapsing
async def test_what_comes_of_a_fault_while_blobs_are_read_by_ranges(
    row: Row, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for begin in (Server.__init__, SocketBodyTransport.__init__):
        monkeypatch.setattr(begin, "__kwdefaults__", {**(begin.__kwdefaults__ or {}), "stall": 90.0})
    with_stores(monkeypatch)
    assert await play(row, filled, tmp_path, monkeypatch, ranges=True) == expected(row)
