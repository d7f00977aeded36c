"""Batches: what a question raises is heard at once, whatever else was answered at the same time."""

from __future__ import annotations

import asyncio

import pytest

from blobflow.engine.concurrency.batches import in_batches
from tests.deadlines import HANGS_AFTER


@pytest.mark.parametrize("place", range(8))
async def test_an_error_does_not_wait_for_who_has_not_answered(place: int) -> None:
    async def answer(number: int) -> int:
        if number == place:
            raise ValueError("no")
        return number

    async def never() -> int:
        await asyncio.Event().wait()
        raise AssertionError

    questions = [*map(answer, range(8)), never()]
    with pytest.raises(ValueError, match="no"):
        async with asyncio.timeout(HANGS_AFTER), in_batches(questions) as asked:
            await asked.first(lambda number: True)
