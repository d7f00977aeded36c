"""Which way a blob takes, case by case."""

from __future__ import annotations

import pytest

from blobflow.engine.services import CacheMode
from blobflow.engine.transfer.staging import RECORDED_FROM, Way, choose_way

BIG = 2**40


@pytest.mark.parametrize(
    ("mode", "size", "costly", "proven", "copies", "unproven_mounts", "begun", "way"),
    [
        # What it would cost to lose it decides, and not its size.
        ("auto", 1, False, True, 1, 0, False, "straight"),
        ("auto", BIG, False, True, 1, 0, False, "straight"),
        ("auto", 1, True, True, 1, 0, False, "staged"),
        ("auto", 1, True, False, 1, 0, False, "staged"),
        # Where only an earlier run knows that it costs little, or nobody knows, the line has to show it.
        ("auto", RECORDED_FROM, None, False, 1, 0, False, "recorded"),
        ("auto", BIG, False, False, 1, 0, False, "recorded"),
        ("auto", RECORDED_FROM - 1, None, False, 1, 0, False, "straight"),
        # What is there to be shared or gone on with is staged on any line.
        ("auto", 1, False, True, 2, 0, False, "staged"),
        ("auto", 1, False, True, 1, 1, False, "staged"),
        ("auto", 1, False, True, 1, 0, True, "staged"),
        ("all", 1, False, True, 1, 0, False, "staged"),
        ("off", 1, False, True, 2, 0, False, "staged"),
        ("off", BIG, True, True, 1, 1, True, "straight"),
        ("off", BIG, None, False, 1, 0, False, "straight"),
    ],
)
def test_a_blob_goes_through_the_store_where_it_would_else_be_read_twice_or_a_restart_would_hurt(
    mode: CacheMode,
    size: int,
    costly: bool | None,
    proven: bool,
    copies: int,
    unproven_mounts: int,
    begun: bool,
    way: Way,
) -> None:
    assert way == choose_way(
        mode,
        size=size,
        costly=costly,
        proven=proven,
        copies=copies,
        unproven_mounts=unproven_mounts,
        begun=begun,
    )
