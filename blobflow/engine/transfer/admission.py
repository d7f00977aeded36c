"""Admission: the permits that steps hold while they run, granted by the limiters of their hosts.

A step gets all permits that it needs in one go or none: one at its target, and one at its source if it is a
copy whose blob the store neither has nor is reading. A stream releases each as soon as its bytes have passed.

A copy that is retried needs the permits that it released. It waits for them here, and no new step starts with
a permit that it waits for: retries go before new steps.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from blobflow.content import TELLING_BYTES, BlobStream, LineRate, Sink, SinkAt, Site, Source, SourceAt
from blobflow.engine.blob_readers import SourceReader
from blobflow.engine.plan.steps import Copy, Step
from blobflow.engine.transfer.schedule import Granted, InUse, Need, Ready, needs_of, schedule, streams
from blobflow.oci import Descriptor, Digest
from blobflow.permits import (
    Limiter,
    Permit,
    PermitKind,
    limiter_of,
    try_acquire_all,
    under,
    waits_for_permits,
)

Changed = Callable[[], None]


class HostLimiters:
    """The limiters of the hosts of one transfer, for reading and for writing. `limiter_at` gives that of a
    host whose Sources and Sinks have none of their own."""

    def __init__(self, source_at: SourceAt, sink_at: SinkAt, limiter_at: Callable[[str], Limiter]) -> None:
        self._source_at = source_at
        self._sink_at = sink_at
        self._limiter_at = limiter_at
        self._sources: dict[str, Limiter] = {}
        self._targets: dict[str, Limiter] = {}

    def source(self, site: Site) -> Limiter:
        """The limiter for what is read at a site."""
        if site.registry not in self._sources:
            self._sources[site.registry] = self._of(self._source_at(site), site)
        return self._sources[site.registry]

    def target(self, site: Site) -> Limiter:
        """The limiter for what is written to a site."""
        if site.registry not in self._targets:
            self._targets[site.registry] = self._of(self._sink_at(site), site)
        return self._targets[site.registry]

    def _of(self, place: Source | Sink, site: Site) -> Limiter:
        return limiter_of(place) or self._limiter_at(site.registry)


class StepPermits:
    """The permits of one step: at its `target`, and maybe at its `source`. `largest`: it is a copy of the
    largest half. `changed` is called when one was released."""

    def __init__(
        self, step: Step, needs: Sequence[Need], permits: Sequence[Permit], changed: Changed, *, largest: bool
    ) -> None:
        self.step = step
        self.largest = largest
        self.over = False
        self._changed = changed
        self.source: Permit | None = None
        self.renewed(needs, permits)

    def renewed(self, needs: Sequence[Need], permits: Sequence[Permit]) -> None:
        """Hold these from now on; the permit at the source stays as it was unless one is among them."""
        self.target, self._target_limiter = permits[0], needs[0][0]
        if len(permits) > 1:
            self.source, self._source_limiter = permits[1], needs[1][0]

    @property
    def reads(self) -> bool:
        """Whether a permit is held at the source."""
        return self.source is not None and self.source.kind is not None

    def reading(self, source: Source) -> Source:
        """The source, reading under the permit that is held there.

        Without one, or where it goes elsewhere, the place waits for its own. Meanwhile no small request's
        permit may be held at the target: see `permits`.
        """
        held = self.source if self.source is not None and self.source.kind is not None else None
        if held is not None and not waits_for_permits(source, self._source_limiter):
            return under(held, source, self._source_limiter)
        self.wait_without_request()
        return source

    def wait_without_request(self) -> None:
        """Give back a small request's permit at the target; its place waits for its own when it is asked."""
        if self.target.kind is PermitKind.REQUEST:
            self.target.release()

    def writing(self, sink: Sink) -> Sink:
        """The target, writing under the permit that is held there."""
        return under(self.target, sink, self._target_limiter)

    def bytes_read(self) -> None:
        """Release the permit at the source, which has given all the bytes."""
        if self.source is not None:
            self.source.release()
            self._changed()

    def bytes_sent(self) -> None:
        """The target has received the last byte: only its answer remains."""
        self.target.downgrade()
        self._changed()

    def release(self) -> None:
        """The step has ended."""
        self.over = True
        if self.source is not None:
            self.source.release()
        self.target.release()
        self._changed()


class AdmittedReader:
    """The blob of a copy, read from its source under the permit that is held there at that moment. `line` is
    told how fast it comes."""

    def __init__(self, source: Source, blob: Descriptor, permits: StepPermits, line: LineRate | None) -> None:
        self._source = source
        self._blob = blob
        self._permits = permits
        self._line = line

    def open(self, offset: int = 0) -> AbstractAsyncContextManager[BlobStream]:
        """See `BlobReader.open`."""
        source, finished = self._permits.reading(self._source), self._permits.bytes_read
        line = self._line if self._blob.size - offset > TELLING_BYTES else None
        return SourceReader(source, self._blob, finished=finished, line=line).open(offset)


class Admission:
    """Decides which steps of one transfer may start: those that are ready, and those that are retried.
    `changed` is called when more may start than before."""

    def __init__(self, limiters: HostLimiters, changed: Changed) -> None:
        self._limiters = limiters
        self._changed = changed
        self._ready: dict[str, tuple[Limiter, Ready]] = {}
        self._sources: dict[str, Limiter] = {}
        self._running: list[StepPermits] = []
        self._waiting: list[tuple[Sequence[Need], asyncio.Future[list[Permit]]]] = []
        self._reserved: set[Need] = set()

    def add(self, number: int, step: Step, *, warm: bool) -> None:
        """Add a step that is ready. `warm`: it is a copy whose blob the store has, or is reading now."""
        host = step.target.registry
        if host not in self._ready:
            self._ready[host] = self._limiters.target(step.target), Ready(host)
        if isinstance(step, Copy):
            self._sources[step.source.registry] = self._limiters.source(step.source)
        self._ready[host][1].add(number, step, warm=warm)

    def drop(self, number: int, step: Step) -> None:
        """Forget a step that was added and has not started."""
        self._remove(number, step, self._ready[step.target.registry][1])

    @staticmethod
    def _remove(number: int, step: Step, ready: Ready) -> None:
        ready.remove(number, step.blob.digest if isinstance(step, Copy) else None)

    def warmed(self, digest: Digest) -> None:
        """Note that the store has this blob now, or is reading it."""
        for _, ready in self._ready.values():
            ready.warmed(digest)

    def starts(self, step_of: Callable[[int], Step]) -> Iterator[tuple[int, StepPermits]]:
        """The steps that start now, with their permits. Each host's decision counts what the hosts before it
        took."""
        self._match()
        self._serve_waiting()
        for host, (target, ready) in self._ready.items():
            if not ready or not any(map(target.admits, (PermitKind.WRITE, PermitKind.REQUEST))):
                continue
            in_use, rivals = self._in_use(host), partial(self._rivals, ready)
            source_at = self._sources.__getitem__
            starts = schedule(ready.candidates(), in_use, target, source_at, rivals, self._try)
            for start, granted in starts.items():
                step = step_of(start.number)
                self._remove(start.number, step, ready)
                yield start.number, self._held(step, granted, largest=start.largest)
        self._watch()

    def _match(self) -> None:
        """Let both sides of copies have as many streams as the one needs that is farther away."""
        targets, sources = [target for target, _ in self._ready.values()], self._sources.values()
        reads = max((source.extra(PermitKind.READ) for source in sources), default=0)
        for target in targets:
            target.match(reads)
        writes = max((target.extra(PermitKind.WRITE) for target in targets), default=0)
        for source in sources:
            if source not in targets:
                source.match(writes)

    async def admit(self, step: Copy, *, warm: bool) -> StepPermits:
        """Wait for the permits of a copy that is no step of the plan."""
        source = None if warm else self._limiters.source(step.source)
        needs = needs_of(self._limiters.target(step.target), source, small=not streams(step))
        return self._held(step, Granted(needs, await self._acquire(needs)), largest=False)

    async def renew(self, held: StepPermits, *, read: bool) -> None:
        """Wait until the copy has the permits with which it began: the one at its target, and the one at its
        source if it is to be `read` there once more."""
        assert isinstance(held.step, Copy)
        source = self._limiters.source(held.step.source) if read else None
        needs = needs_of(self._limiters.target(held.step.target), source, small=not streams(held.step))
        if held.target.kind is needs[0][1] and (held.reads or not read):
            return
        held.target.release()
        if read and held.source is not None:
            held.source.release()
        held.renewed(needs, await self._acquire(needs))

    def read_behind(self, held: StepPermits, source: Source) -> None:
        """A copy from that source is read behind whoever reads its blob just now. Where that one waits for
        permits by itself, none of a small request may be held meanwhile."""
        assert isinstance(held.step, Copy)
        if waits_for_permits(source, self._limiters.source(held.step.source)):
            held.wait_without_request()

    def _held(self, step: Step, granted: Granted, *, largest: bool) -> StepPermits:
        held = StepPermits(step, *granted, self._changed, largest=largest)
        self._running.append(held)
        return held

    def _in_use(self, host: str) -> InUse:
        """What is in use at a target."""
        self._running = [each for each in self._running if not each.over]
        here = [each for each in self._running if each.step.target.registry == host]
        largest = sum(each.largest and each.target.kind is PermitKind.WRITE for each in here)
        reads = (each.step for each in here if each.reads)
        return InUse(largest, Counter((s.source.registry, host) for s in reads if isinstance(s, Copy)))

    def _rivals(self, of: Ready, source: str) -> int:
        """How many other targets have copies that wait for a permit at that source."""
        return sum(ready is not of and ready.wants(source) for _, ready in self._ready.values())

    # Waiting for permits

    async def _acquire(self, needs: Sequence[Need]) -> list[Permit]:
        """Wait until all of the permits can be had in one go; first come, first served."""
        if (permits := self._try(needs)) is not None:
            return permits
        granted: asyncio.Future[list[Permit]] = asyncio.get_running_loop().create_future()
        self._waiting.append((needs, granted))
        self._changed()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.cancelled():
                self._waiting = [each for each in self._waiting if each[1] is not granted]
                self._changed()
            else:
                for permit in granted.result():  # granted and cancelled at the same moment
                    permit.release()
            raise

    def _try(self, needs: Sequence[Need]) -> list[Permit] | None:
        """All of the permits at once, unless someone waits for one of them."""
        return None if self._reserved.intersection(needs) else try_acquire_all(needs)

    def _serve_waiting(self) -> None:
        self._reserved.clear()
        waiting, self._waiting = self._waiting, []
        for needs, granted in waiting:
            if granted.cancelled():
                continue
            if (permits := self._try(needs)) is not None:
                granted.set_result(permits)
            else:
                self._reserved.update(needs)
                self._waiting.append((needs, granted))

    def _watch(self) -> None:
        """Have the limiters call when permits are free for steps that could not start."""
        wanted = {need for needs, _ in self._waiting for need in needs}
        for target, ready in self._ready.values():
            if ready:
                wanted |= {(target, PermitKind.WRITE), (target, PermitKind.REQUEST)}
        for source in self._sources.values() if wanted else ():
            wanted |= {(source, PermitKind.READ), (source, PermitKind.REQUEST)}
        for limiter, kind in wanted:
            if not limiter.admits(kind):
                limiter.on_room(kind, self._changed)
