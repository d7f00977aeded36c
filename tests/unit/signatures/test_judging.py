"""Judges at work beside an event loop, which goes on."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Sequence

import pytest

from blobflow.errors import SignatureRejected
from blobflow.oci import parse_reference
from blobflow.oci.digest import digest_of
from blobflow.signatures.contract import ClaimedImage, FoundSignature, Verdict
from blobflow.signatures.judging import CONCURRENT, JudgingThreads
from blobflow.signatures.proofs import without_warnings
from tests.deadlines import HANGS_AFTER

IMAGE = ClaimedImage("docker", parse_reference("registry.example.com/app:1"), digest_of(b"{}"))


def signature(content: bytes) -> FoundSignature:
    return FoundSignature("simple", digest_of(content), content, digest_of(b""), "cosign")


# Seconds in which what must not happen would: a slow machine lets a mistake pass, and fails nothing.
A_MOMENT = 0.2
SIGNATURES = [signature(b"first"), signature(b"second")]


class SlowJudge:
    """Waits at each signature until `go` is set, and accepts what has the content "second"."""

    fingerprint = "slow"

    def __init__(self) -> None:
        self.begun, self.crowded, self.go = threading.Event(), threading.Event(), threading.Event()
        self.seen: list[bytes] = []
        self.threads: set[int] = set()
        self.at_work = self.most_at_work = 0

    def wants_signatures(self, image: ClaimedImage) -> bool:
        return True

    def judge(self, image: ClaimedImage, signatures: Sequence[FoundSignature]) -> Verdict:
        self.threads.add(threading.get_ident())
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            for each in signatures:
                self.seen.append(each.content)
                self.begun.set()
                if self.at_work > CONCURRENT:
                    self.crowded.set()
                assert self.go.wait(HANGS_AFTER)
                if each.content == b"second":
                    return Verdict(image.digest, "default", ())
            raise SignatureRejected("none is right")
        finally:
            self.at_work -= 1


async def begun(judge: SlowJudge) -> None:
    assert await asyncio.to_thread(judge.begun.wait, HANGS_AFTER)


async def test_the_loop_goes_on_while_a_judge_is_at_work() -> None:
    judge, threads = SlowJudge(), JudgingThreads()
    judging = asyncio.create_task(threads.judge(judge, IMAGE, SIGNATURES))
    await begun(judge)  # on a loop that waited for the verdict nobody would come to this line
    judge.go.set()
    assert (await judging).digest == IMAGE.digest
    assert judge.seen == [b"first", b"second"]
    assert threading.get_ident() not in judge.threads


async def test_a_rejection_is_what_the_judge_says() -> None:
    judge = SlowJudge()
    judge.go.set()
    with pytest.raises(SignatureRejected, match="none is right"):
        await JudgingThreads().judge(judge, IMAGE, SIGNATURES[:1])


async def test_so_many_are_judged_at_once_and_no_more() -> None:
    judge, threads = SlowJudge(), JudgingThreads()
    waiting = [asyncio.create_task(threads.judge(judge, IMAGE, SIGNATURES)) for _ in range(CONCURRENT + 3)]
    assert not await asyncio.to_thread(judge.crowded.wait, A_MOMENT)
    judge.go.set()
    await asyncio.gather(*waiting)
    assert judge.most_at_work == CONCURRENT


async def test_who_is_cancelled_waits_for_one_signature_and_not_for_all() -> None:
    judge, threads = SlowJudge(), JudgingThreads()
    judging = asyncio.create_task(threads.judge(judge, IMAGE, SIGNATURES))
    await begun(judge)
    judging.cancel()
    await asyncio.sleep(0)
    assert not judging.done(), "its thread is still at work"
    judge.go.set()
    with pytest.raises(asyncio.CancelledError):
        await judging
    assert judge.seen == [b"first"]
    assert judge.at_work == 0
    assert (await threads.judge(judge, IMAGE, SIGNATURES)).digest == IMAGE.digest, "others are judged"


async def test_without_signatures_no_thread_is_needed() -> None:
    judge = SlowJudge()
    with pytest.raises(SignatureRejected):
        await JudgingThreads().judge(judge, IMAGE, [])
    assert judge.threads == {threading.get_ident()}


def test_warnings_are_as_before_when_two_threads_were_without_them() -> None:
    """Filters belong to all threads: who goes last must not put back what it found within the other."""
    first_inside, second_inside, leave = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with without_warnings():
            first_inside.set()
            leave.wait(HANGS_AFTER)

    def second() -> None:
        with without_warnings():
            second_inside.set()
            one.join()

    before = list(warnings.filters)
    one, two = threading.Thread(target=first), threading.Thread(target=second)
    one.start()
    assert first_inside.wait(HANGS_AFTER)
    two.start()
    second_inside.wait(A_MOMENT)
    leave.set()
    two.join()
    assert warnings.filters == before
