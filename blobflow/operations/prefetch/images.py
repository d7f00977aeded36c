"""What both ways of warming share: reading the images, their results, and retries of blobs."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from blobflow.content import Sleep, SourceAt
from blobflow.engine.concurrency.bounded_runner import MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.desired import build_desired_images, choices_of
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.reader import read_graph
from blobflow.engine.sources.roots import ResolvedRoots
from blobflow.engine.transfer.retry import BlobRetries
from blobflow.errors import BlobflowError, NoSuchPlatform, StorageError
from blobflow.events import (
    ImageDone,
    Meter,
    Observer,
    Retrying,
    StepDone,
    StepFailed,
    StepStarted,
)
from blobflow.oci import Descriptor, Reference
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.retrying import Failure, begin_wait, retrying

Status = Literal["warm", "cold", "failed", "skipped"]


class WarmResult(msgspec.Struct, frozen=True):
    """What became of one image at one edge.

    `warm`: the edge has all of it; `cold`: it passed all of it on, and had not stored `cold` blobs by the
    end; `failed`: `error` says why; `skipped`: `reason` does. `blobs` and `bytes` of the image as it was
    chosen; `pulled` and `bytes_pulled` of those that were not there before, also if another image has them
    too.
    """

    image: str
    edge: str
    digest: str = ""
    status: Status = "failed"
    error: str = ""
    blobs: int = 0
    bytes: int = 0
    pulled: int = 0
    bytes_pulled: int = 0
    cold: int = 0
    reason: str = ""


class FoundImages(msgspec.Struct, frozen=True):
    """The images that were read: their manifests, each pair's root and blobs, and the failures."""

    roots: dict[Pair, Descriptor]
    blobs: dict[Pair, tuple[Descriptor, ...]]
    failures: dict[Pair, BlobflowError]


Resolve = Callable[[set[Reference]], Awaitable[ResolvedRoots]]


async def find_images(
    pairs: Sequence[Pair], end: Callable[[Pair], Reference], source_at: SourceAt, resolve: Resolve
) -> FoundImages:
    """Read the chosen part of each pair's image at its source or target. Failures are in the result."""
    runner = BoundedRunner(MAX_SMALL_REQUESTS)
    resolved = await resolve({end(pair) for pair in pairs})
    there = [pair for pair in pairs if end(pair) in resolved.roots]
    as_read = {
        pair: Pair(
            end(pair),
            end(pair),
            PlatformChoice(pair.choice.platforms),
            missing_platform=pair.missing_platform,
        )
        for pair in there
    }
    graph = await read_graph(resolved.roots, source_at, runner, choices=choices_of(as_read.values()))
    failures = {pair: resolved.failures[end(pair)] for pair in pairs if end(pair) in resolved.failures}
    failures |= {pair: graph.failures[end(pair)] for pair in there if end(pair) in graph.failures}
    for error in failures.values():
        error.side = None  # an edge is neither side, and its host is named
    whole = {pair: read for pair, read in as_read.items() if pair not in failures}
    blobs, more = _blobs_of(whole, graph.graph)
    return FoundImages({pair: resolved.roots[end(pair)] for pair in there}, blobs, failures | more)


def _blobs_of(
    pairs: Mapping[Pair, Pair], graph: Graph
) -> tuple[dict[Pair, tuple[Descriptor, ...]], dict[Pair, BlobflowError]]:
    """The blobs that each pair chooses, each once; and the pairs whose choice is not there."""
    desired_images = build_desired_images(pairs.values(), graph, {})
    blobs: dict[Pair, tuple[Descriptor, ...]] = {}
    for pair, read in pairs.items():
        if read in desired_images.by_pair:
            named = (blob for manifest in desired_images.by_pair[read].manifests for blob in manifest.blobs)
            blobs[pair] = tuple({blob.digest: blob for blob in named}.values())
    without = {**desired_images.failures, **desired_images.skipped}
    return blobs, {pair: without[read] for pair, read in pairs.items() if read in without}


def without(pair: Pair, image: Reference, edge: str, digest: str, error: BlobflowError) -> WarmResult:
    """The result of an image that can't be warmed, or is skipped."""
    if isinstance(error, NoSuchPlatform) and pair.missing_platform == "skip":
        return WarmResult(str(image), edge, digest, "skipped", reason=error.message)
    return WarmResult(str(image), edge, digest, error=str(error))


def tell(told: Iterable[WarmResult], observer: Observer) -> None:
    told = list(told)
    for number, each in enumerate(told, start=1):
        done = ImageDone(each.image, each.image, each.digest, each.status, each.error, number, len(told))
        observer(msgspec.structs.replace(done, reason=each.reason))


Count = Callable[[int], None]


class Attempts:
    """Attempts to fetch blobs: reported to the observer, and retried where that may help. `sleep` takes
    seconds; `times`: see `BlobRetries`."""

    def __init__(self, observer: Observer, meter: Meter, sleep: Sleep, *, times: int | None = None) -> None:
        self._observe = observer
        self._active = meter.active
        self._waits = meter.waits
        self.count = meter.counts["warm"]
        self._sleep = sleep
        self._times = times
        self._steps = 0

    async def bring(
        self, blob: Descriptor, where: str, once: Callable[[Count], Awaitable[None]]
    ) -> BlobflowError | None:
        """Call `once`, which counts the bytes that pass, until it succeeds or retries end. Returns the error,
        or None.

        Raises StorageError: that is not about this blob alone.
        """
        self._steps += 1
        step = self._steps
        self._observe(StepStarted(step, "copy", blob.digest, where, blob.size))
        try:
            await self._patiently(step, blob, where, once)
        except StorageError:
            raise
        except BlobflowError as error:
            self._observe(StepFailed(step, "copy", blob.digest, where, str(error)))
            return error
        finally:
            self._active.pop(step, None)
        self._observe(StepDone(step, "copy", blob.digest, where, blob.size))
        return None

    async def _patiently(
        self, step: int, blob: Descriptor, where: str, once: Callable[[Count], Awaitable[None]]
    ) -> None:
        what = f"blob {blob.digest} of {where}"

        def count(size: int) -> None:
            self._active[step] = self._active.get(step, 0) + size

        async def attempt() -> None:
            self._active[step] = 0
            await once(count)

        async def pause(failure: Failure) -> None:
            self._observe(
                Retrying(what, str(failure.error), failure.attempt, failure.delay, failure.attempts)
            )
            with begin_wait(self._waits.at(where.partition("/")[0]), failure, what):
                await self._sleep(failure.delay)

        await retrying(BlobRetries(random.random, times=self._times), attempt, pause)
