"""Which way a blob takes, case by case."""

from __future__ import annotations

import pytest

from blobflow.engine.services import CacheMode
from blobflow.engine.transfer.staging import LARGE, should_stage


@pytest.mark.parametrize(
    ("mode", "size", "copies", "unproven_mounts", "begun", "stored"),
    [
        ("auto", 1, 1, 0, False, False),
        ("auto", 1, 2, 0, False, True),
        ("auto", 1, 1, 1, False, True),
        ("auto", LARGE - 1, 1, 0, False, False),
        ("auto", LARGE, 1, 0, False, True),
        ("auto", 1, 1, 0, True, True),
        ("all", 1, 1, 0, False, True),
        ("off", 1, 2, 0, False, True),
        ("off", LARGE, 1, 1, False, False),
    ],
)
def test_a_blob_goes_through_the_store_where_it_would_else_be_read_twice_or_a_restart_would_hurt(
    mode: CacheMode, size: int, copies: int, unproven_mounts: int, begun: bool, stored: bool
) -> None:
    assert stored == should_stage(
        mode, size=size, copies=copies, unproven_mounts=unproven_mounts, begun=begun
    )
