"""Questions that are asked once: by many at the same time, with errors, and with askers who go away."""

from __future__ import annotations

import asyncio

import pytest

from blobflow.engine.concurrency.memo import AsyncMemo
from blobflow.errors import Denied


class Oracle:
    """Answers when `let`; counts what it was asked."""

    def __init__(self, *answers: str | Exception) -> None:
        self.asked: list[str] = []
        self.let = asyncio.Event()
        self.answers = list(answers)

    async def __call__(self, key: str) -> str:
        self.asked.append(key)
        await self.let.wait()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def some_steps() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_asks_while_the_answer_is_under_way_waits_for_it() -> None:
    oracle = Oracle("yes")
    asked = AsyncMemo(oracle)
    asking = [asyncio.create_task(asked.get("a")) for _ in range(5)]
    await some_steps()
    oracle.let.set()
    assert await asyncio.gather(*asking) == ["yes"] * 5
    assert await asked.get("a") == "yes"
    assert oracle.asked == ["a"]


async def test_an_error_is_kept_and_each_gets_its_own() -> None:
    kept = Denied("no")
    oracle = Oracle(kept)
    asked = AsyncMemo(oracle)
    oracle.let.set()
    asking = [asyncio.create_task(asked.get("a")) for _ in range(3)]
    errors = await asyncio.gather(*asking, return_exceptions=True)
    with pytest.raises(Denied) as later:
        await asked.get("a")
    found = [*errors, later.value]
    assert [str(error) for error in found] == ["no"] * 4
    assert len({id(error) for error in found}) == 4
    found[0].side = "source"  # type: ignore[union-attr]
    assert [error.side for error in found[1:]] == [None] * 3  # type: ignore[union-attr]
    assert oracle.asked == ["a"]
    await asked.prefetch("a")


async def test_the_first_to_ask_may_go_and_the_next_asks_anew() -> None:
    oracle = Oracle("yes")
    asked = AsyncMemo(oracle)
    first, second, third = (asyncio.create_task(asked.get("a")) for _ in range(3))
    await some_steps()
    first.cancel()
    await some_steps()
    oracle.let.set()
    assert list(await asyncio.gather(second, third)) == ["yes", "yes"]
    assert first.cancelled()
    assert oracle.asked == ["a", "a"]


async def test_one_who_waits_may_go_and_nobody_minds() -> None:
    oracle = Oracle("yes")
    asked = AsyncMemo(oracle)
    first, second, third = (asyncio.create_task(asked.get("a")) for _ in range(3))
    await some_steps()
    second.cancel()
    await some_steps()
    oracle.let.set()
    assert list(await asyncio.gather(first, third)) == ["yes", "yes"]
    assert oracle.asked == ["a"]


async def test_a_bug_is_no_answer() -> None:
    oracle = Oracle(ValueError("bug"), "yes")
    asked = AsyncMemo(oracle)
    oracle.let.set()
    with pytest.raises(ValueError, match="bug"):
        await asked.get("a")
    assert list(asked.answers()) == []
    assert await asked.get("a") == "yes"
    assert list(asked.answers()) == [("a", "yes")]
