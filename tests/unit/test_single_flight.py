"""Questions under way: asked once by all who ask at the same time, whoever of them goes away."""

from __future__ import annotations

import asyncio

import pytest

from blobflow.errors import NotFound
from blobflow.single_flight import SingleFlight


class Question:
    """Something that is asked: `asked` counts, and `answer` ends it."""

    def __init__(self) -> None:
        self.asked = 0
        self.given_up = 0
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask(self) -> str:
        self.asked += 1
        try:
            return await asyncio.shield(self.answer)
        except asyncio.CancelledError:
            self.given_up += 1
            raise


async def begun(*tasks: asyncio.Task[str]) -> tuple[asyncio.Task[str], ...]:
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


async def test_what_is_being_asked_is_asked_once() -> None:
    flights, question = SingleFlight[str, str](), Question()
    tasks = await begun(*(asyncio.create_task(flights.of("k", question.ask)) for _ in range(5)))
    question.answer.set_result("yes")
    assert await asyncio.gather(*tasks) == ["yes"] * 5
    assert question.asked == 1
    assert await flights.of("k", question.ask) == "yes"
    assert question.asked == 2, "nothing is remembered"


async def test_other_questions_are_others() -> None:
    flights, question = SingleFlight[str, str](), Question()
    tasks = await begun(*(asyncio.create_task(flights.of(key, question.ask)) for key in "abab"))
    question.answer.set_result("yes")
    await asyncio.gather(*tasks)
    assert question.asked == 2


async def test_who_asked_first_may_go_away() -> None:
    flights, question = SingleFlight[str, str](), Question()
    first, second = await begun(*(asyncio.create_task(flights.of("k", question.ask)) for _ in range(2)))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    question.answer.set_result("yes")
    assert await second == "yes"
    assert (question.asked, question.given_up) == (1, 0)


async def test_when_the_last_has_gone_the_question_is_given_up_and_asked_anew() -> None:
    flights, question = SingleFlight[str, str](), Question()
    tasks = await begun(*(asyncio.create_task(flights.of("k", question.ask)) for _ in range(2)))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    (again,) = await begun(asyncio.create_task(flights.of("k", question.ask)))
    assert (question.asked, question.given_up) == (2, 1)
    question.answer.set_result("yes")
    assert await again == "yes"


async def test_a_question_that_fails_fails_for_each_with_an_error_of_its_own() -> None:
    flights, question = SingleFlight[str, str](), Question()
    tasks = await begun(*(asyncio.create_task(flights.of("k", question.ask)) for _ in range(3)))
    question.answer.set_exception(NotFound("no such thing", status=404))
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(each) for each in found] == ["no such thing"] * 3
    assert len({id(each) for each in found}) == 3
    assert question.asked == 1
