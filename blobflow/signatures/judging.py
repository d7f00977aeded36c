"""Judging beside an event loop.

Signatures at the bounds are seconds of arithmetic, which whoever may push at a source can ask for. So
verdicts that follow from signatures are found in a thread, one at a time, while the loop goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import overload

from blobflow.signatures.contract import ClaimedImage, FoundSignature, SignatureJudge, Verdict

# Verdicts that are found at once: Python computes in one thread at a time anyway.
CONCURRENT = 1


class JudgingThreads:
    """Threads in which judges judge. Used on one loop; started when they are needed."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(CONCURRENT)

    async def judge(
        self, judge: SignatureJudge, image: ClaimedImage, signatures: Sequence[FoundSignature]
    ) -> Verdict:
        """See `SignatureJudge.judge`. If cancelled, the judge gets no further signature, and the thread is
        waited for."""
        if not signatures:
            return judge.judge(image, signatures)
        async with self._free:
            wanted = _Wanted(signatures)
            judging = asyncio.ensure_future(asyncio.to_thread(judge.judge, image, wanted))
            try:
                return await asyncio.shield(judging)
            except asyncio.CancelledError:
                wanted.stop()
                await asyncio.wait([judging])
                if not judging.cancelled():
                    judging.exception()  # nobody waits for it any more
                raise


class _Stopped(Exception):
    """Nobody waits for the verdict any more."""


class _Wanted(Sequence[FoundSignature]):
    """Signatures, as long as somebody waits for the verdict on them."""

    def __init__(self, signatures: Sequence[FoundSignature]) -> None:
        self._signatures = signatures
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def __len__(self) -> int:
        return len(self._signatures)

    @overload
    def __getitem__(self, at: int) -> FoundSignature: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[FoundSignature]: ...

    def __getitem__(self, at: int | slice) -> FoundSignature | Sequence[FoundSignature]:
        if self._stopped:
            raise _Stopped
        return self._signatures[at]
