"""Runs the trials: pushes blobs by each upload method, pulls them again and, where a source is named, copies
from there to the target. Each trial has connections of its own and is timed as a whole. Afterwards the blobs
are deleted again, also where the run was cancelled or failed; blobs that a registry would not delete are
reported.

The store is not used: the trials measure the network, the registries and this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Literal

import msgspec

from blobflow.client import Client
from blobflow.content import Site, Sleep, verified
from blobflow.engine.blob_readers import SourceReader
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.errors import BlobflowError, ConnectFailed
from blobflow.events import Event, Observer, Traced, Warned
from blobflow.oci import Digest
from blobflow.operations.measure.blobs import Generated, Generator
from blobflow.operations.measure.trials import (
    Batch,
    LeftBehind,
    Measurements,
    Trial,
    TrialMatrix,
    Way,
    percentile,
    recommend,
)
from blobflow.settings import Settings, host_access, logins_of
from blobflow.transports.registry import HostAccess, Registries
from blobflow.transports.registry.capabilities.profiles import UploadMethod, profile_of

# Requests without a blob in them: their duration is the registry's latency.
_SMALL = frozenset({"HEAD", "GET", "POST"})
_DROPS_AT_ONCE = 8
_PROBE = 1024  # bytes of the blob that tests whether the registry takes and deletes blobs
_ANY_SIZE = 2**62
# A registry that has all bytes of a blob has committed it by then.
_COMMITTED_SECONDS = 1.0

Act = Callable[[Registries, Site, Generated], Awaitable[None]]
Tell = Callable[[Trial], None]


def tell_nobody(leg: Trial) -> None:
    """Ignore trials as they end, for callers that read the measurements instead."""


async def measure(
    client: Client,
    target: Site,
    course: TrialMatrix,
    *,
    source: Site | None = None,
    tell: Tell = tell_nobody,
    sleep: Sleep = asyncio.sleep,
) -> Measurements:
    """Run the trials at a repository; `tell` gets each trial as it ends. `sleep` is there for tests.

    A trial that fails is reported as such, and the others go on. Raises UsageError for a matrix that moves
    nothing, and what the registry answers to the first small blob. Whatever ends this, cancellation too, the
    blobs are deleted first.
    """
    lots = course.lots()
    run = _Run(client.settings, client.observer, tell, sleep)
    try:
        for site in (target, source):
            if site is not None:
                await run.try_out(site)
        for lot in lots:
            await run.move(lot, course.forms, target, source)
    except BaseException:
        await run.clear()
        for left in run.left():
            client.observer(
                Warned(f"{left.site} still has {left.blobs} of these blobs, {left.size} bytes in all")
            )
        raise
    return Measurements(str(target), tuple(run.legs), recommend(run.legs), tuple(run.left()))


class _Run:
    """One run: its trials so far, and which blobs may be where."""

    def __init__(self, settings: Settings, observer: Observer, tell: Tell, sleep: Sleep) -> None:
        self.legs: list[Trial] = []
        self._settings = settings
        self._observer = observer
        self._tell = tell
        self._sleep = sleep
        self._generator = Generator()
        self._there: dict[Site, dict[Digest, int]] = {}
        self._keeps: set[Site] = set()
        self._cut_off: list[tuple[Site, Generated]] = []

    async def try_out(self, site: Site) -> None:
        """Push a small blob and delete it again; warn about a site that keeps it before there is more."""
        async with self._opened() as registries:
            await self._push(registries, site, self._generator.blob(_PROBE))
        await self.clear()
        if site in self._keeps:
            text = f"{site.registry} does not let blobs be deleted: what is pushed there will stay"
            self._observer(Warned(text))

    async def move(
        self, lot: Batch, forms: Sequence[UploadMethod], target: Site, source: Site | None
    ) -> None:
        """Run all trials of a batch; each push trial gets blobs that are new to the target."""
        stocked: list[Generated] = []
        if source is not None:
            stocked = self._blobs(lot)
            async with self._opened(lot.at_once) as registries:
                push = partial(self._push, registries, source)
                await BoundedRunner(lot.at_once).for_each(push, stocked)
        read = False
        for form in forms:
            blobs = self._blobs(lot)
            up = await self._leg("up", form, lot, blobs, target, self._push)
            if not (up.failed or read):
                await self._leg("down", "", lot, blobs, target, _read)
                read = True
            await self._clear_site(target)
            if source is not None:
                await self._leg("copy", form, lot, stocked, target, partial(self._copy, source))
                await self._clear_site(target)
        await self.clear()

    async def clear(self) -> None:
        """Delete everything that may be anywhere.

        A push that was interrupted may have arrived whole, and be committed after its blob was deleted: such
        blobs are deleted again a little later.
        """
        for site in tuple(self._there):
            await self._clear_site(site)
        if self._cut_off:
            await self._sleep(_COMMITTED_SECONDS)
            cut_off, self._cut_off = self._cut_off, []
            for site, blob in cut_off:
                self._there.setdefault(site, {})[blob.descriptor.digest] = blob.descriptor.size
            for site in tuple(self._there):
                await self._clear_site(site)

    def left(self) -> Iterator[LeftBehind]:
        """What could not be deleted."""
        for site, blobs in self._there.items():
            if blobs:
                yield LeftBehind(str(site), len(blobs), sum(blobs.values()))

    def _blobs(self, lot: Batch) -> list[Generated]:
        return [self._generator.blob(lot.size) for _ in range(lot.blobs)]

    async def _leg(
        self,
        way: Way,
        form: UploadMethod | Literal[""],
        lot: Batch,
        blobs: Sequence[Generated],
        site: Site,
        act: Act,
    ) -> Trial:
        """Run one trial: act on each of the blobs, and record the measurement."""
        leg = Trial(way, form, lot.size, lot.at_once, len(blobs))
        seen: list[Traced] = []
        began, cpu = time.perf_counter(), time.process_time()
        try:
            async with self._opened(lot.at_once, form, seen) as registries:
                await BoundedRunner(lot.at_once).for_each(partial(act, registries, site), blobs)
        except BlobflowError as error:
            leg = msgspec.structs.replace(leg, failed=str(error))
        else:
            small = [each.seconds for each in seen if each.method in _SMALL]
            leg = msgspec.structs.replace(
                leg,
                seconds=time.perf_counter() - began,
                cpu=time.process_time() - cpu,
                p50=percentile(small, 0.5),
                p99=percentile(small, 0.99),
                requests=len(seen),
            )
        self.legs.append(leg)
        self._tell(leg)
        return leg

    @asynccontextmanager
    async def _opened(
        self, at_once: int = 1, form: UploadMethod | Literal[""] = "", seen: list[Traced] | None = None
    ) -> AsyncIterator[Registries]:
        """Registries for one trial: so many blobs at once, pushed by this method alone; exchanges go to
        `seen`."""
        logins = logins_of(self._settings)

        def observe(event: Event) -> None:
            if isinstance(event, Traced):
                if seen is not None:
                    seen.append(event)
                if not self._settings.trace:
                    return
            self._observer(event)

        def access(host: str) -> HostAccess:
            found = host_access(host, self._settings, logins)
            own = found.profile or profile_of(host)
            if form:
                own = msgspec.structs.replace(own, rungs=(form,), single_bytes=_ANY_SIZE)
            return msgspec.structs.replace(found, connections=at_once, profile=own)

        registries = Registries(access, observer=observe, trace=True, sleep=self._sleep)
        try:
            yield registries
        finally:
            await registries.close()

    async def _push(self, registries: Registries, site: Site, blob: Generated) -> None:
        with self._coming(site, blob):
            await registries.sink(site).push(blob.descriptor, blob)

    async def _copy(self, source: Site, registries: Registries, site: Site, blob: Generated) -> None:
        reader = SourceReader(registries.repository(source), blob.descriptor)
        with self._coming(site, blob):
            await registries.sink(site).push(blob.descriptor, reader)

    @contextmanager
    def _coming(self, site: Site, blob: Generated) -> Iterator[None]:
        """Note that the blob may be there from now on, unless there is no connection at all."""
        there = self._there.setdefault(site, {})
        there[blob.descriptor.digest] = blob.descriptor.size
        try:
            yield
        except ConnectFailed:
            del there[blob.descriptor.digest]
            raise
        except BaseException:
            self._cut_off.append((site, blob))
            raise

    async def _clear_site(self, site: Site) -> None:
        """Delete the blobs, unless the registry has shown that it does not delete any."""
        blobs = self._there.get(site, {})
        if site in self._keeps:
            return

        async def drop(digest: Digest) -> None:
            try:
                gone = await registries.delete_blob(site, digest)
            except BlobflowError as error:
                self._observer(Warned(f"blob {digest} could not be taken out of {site}: {error}"))
                return
            if gone:
                del blobs[digest]
            else:
                self._keeps.add(site)

        async with self._opened(_DROPS_AT_ONCE) as registries:
            await BoundedRunner(_DROPS_AT_ONCE).for_each(drop, tuple(blobs))


async def _read(registries: Registries, site: Site, blob: Generated) -> None:
    """Read the blob from the registry itself, and hash it, as a mirror would."""
    async with registries.repository(site).open(blob.descriptor) as stream:
        async for _ in verified(stream, blob.descriptor):
            pass
