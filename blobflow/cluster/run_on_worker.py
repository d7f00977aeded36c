"""One run's part in one worker: services under the run's terms and this worker's shares, and its copies."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec

from blobflow.cluster.progress import (
    INTERVAL,
    MAX_EVENTS,
    MAX_MOVED,
    MovedBytes,
    News,
    WorkerEvent,
    figures_of,
    waits_of,
)
from blobflow.cluster.shares import Shares
from blobflow.cluster.terms import RunTerms, under_terms
from blobflow.composition import Opened, journal_of, lasting_root, open_registries, open_services, open_store
from blobflow.content import Site
from blobflow.engine.services import Services
from blobflow.engine.transfer.arrival_codec import pack_arrivals
from blobflow.engine.transfer.carrying import Arrival, Carriage, Moved
from blobflow.engine.transfer.copy_worker import CopyWorker, WorkerStopped
from blobflow.events import Event, Meter
from blobflow.settings import Settings, host_access, logins_of
from blobflow.transports.registry import HostAccess, Registries
from blobflow.transports.store import Store

# Keys of carriages that were given up before they came, so that they don't begin when they come after all.
MAX_GIVEN_UP = 10_000

Publish = Callable[[News], None]


class RunOnWorker:
    """Brings carriages of one run, and tells about it. Made by `open_run`; used from one event loop."""

    def __init__(
        self, terms: RunTerms, name: str, copies: CopyWorker, meter: Meter, limits: WorkerLimits
    ) -> None:
        self._run = run = terms.run
        self._targets = terms.targets
        self.name = name
        self.part = uuid.uuid4().hex
        self._copies = copies
        self._meter = meter
        self._limits = limits
        self._running: dict[str, asyncio.Task[Sequence[Arrival]]] = {}
        self._keys: dict[tuple[str, Site], str] = {}
        self._given_up: dict[str, None] = {}
        self._arrived: deque[tuple[str, bytes]] = deque()
        self._begun: deque[MovedBytes] = deque()
        self._last = News(run, name, self.part)
        self.leaving = False

    @property
    def under_way(self) -> list[asyncio.Task[Sequence[Arrival]]]:
        """What brings the carriages that are under way."""
        return list(self._running.values())

    async def bring(self, key: str, carriage: Carriage) -> Sequence[Arrival] | None:
        """See `CopyWorker.bring`. None: it was given up, by `stop` or since the worker closes."""
        if key in self._given_up:
            return None
        task = asyncio.create_task(self._copies.bring(carriage, tell=lambda news: self._told(key, news)))
        self._running[key] = task
        for target in carriage.targets:
            self._keys[carriage.blob.digest, target] = key
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            task.cancel()  # Dask takes the task away from this worker
            await asyncio.wait((task,))
            raise
        finally:
            del self._running[key]
            for target in carriage.targets:
                self._keys.pop((carriage.blob.digest, target), None)
        if task.cancelled() or isinstance(task.exception(), WorkerStopped):
            return None
        return task.result()

    async def stop(self, keys: Iterable[str]) -> None:
        """Stop these carriages, also those that are still to come; returns when none of them moves, and their
        upload sessions are given up."""
        tasks = []
        for key in keys:
            self._given_up[key] = None
            if (task := self._running.get(key)) is not None:
                task.cancel()
                tasks.append(task)
        while len(self._given_up) > MAX_GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]
        if tasks:
            await asyncio.wait(tasks)

    def cancel_abandoned_uploads(self) -> None:
        """Cancel the upload sessions that killed workers left in this one's store, at the run's targets; in
        the background, for which the run's end waits."""
        if self._limits.registries is not None:
            self._limits.registries.cancel_abandoned_uploads(self._targets)

    def share(self, shares: Shares) -> None:
        """Keep these limits from now on."""
        self._limits.change(shares)

    def news(self) -> News:
        """All figures so far, and what happened since this was asked for last."""
        arrived, begun = tuple(self._arrived), tuple(self._begun)
        self._arrived.clear()
        self._begun.clear()
        moved = (
            MovedBytes(key, each.target, each.bytes)
            for digest, each in self._copies.moved()
            if (key := self._keys.get((digest, each.target)))
        )
        return News(
            self._run,
            self.name,
            self.part,
            figures_of(self._meter),
            self._meter.bytes_resent,
            (*begun, *moved)[:MAX_MOVED],
            arrived,
            self._limits.events(),
            waits_of(self._meter),
            self.leaving,
        )

    async def publish_all(self, publish: Publish) -> None:
        """Tell now and then, as long as there is something to tell. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.publish(publish)

    def publish(self, publish: Publish) -> None:
        """Tell, if there is something to tell."""
        news = self.news()
        if news != self._last:
            self._last = news
            publish(news)

    def _told(self, key: str, news: Moved | Arrival) -> None:
        match news:
            case Moved():
                self._begun.append(MovedBytes(key, news.target, news.bytes))
            case Arrival():
                self._arrived.append((key, pack_arrivals((news,))))


class WorkerLimits:
    """The limits under which a worker reaches registries: its own settings, and its shares of the run's.
    Holds the events that happen meanwhile, the last `MAX_EVENTS`."""

    def __init__(self, settings: Settings, shares: Shares) -> None:
        self._settings = settings
        self._logins = logins_of(settings)
        self._shares = shares
        self._events: deque[WorkerEvent] = deque(maxlen=MAX_EVENTS)
        self.registries: Registries | None = None

    def access(self, host: str) -> HostAccess:
        """How a host is reached."""
        access, share = host_access(host, self._settings, self._logins), self._shares.at(host)
        own = self._settings.hosts.get(host)
        most = (own.connections if own is not None else None) or self._settings.concurrency
        near = share.connections if most is None else min(share.connections, most)
        return msgspec.structs.replace(
            access,
            connections=max(1, near),
            far_connections=share.far_connections if most is None else 0,
            requests_per_second=_lower(access.requests_per_second, share.requests_per_second),
            bytes_per_second=_lower(access.bytes_per_second, share.bytes_per_second),
        )

    @property
    def bytes_per_second(self) -> float:
        """Of all blobs together; 0: no limit."""
        return _lower(self._settings.bytes_per_second, self._shares.bytes_per_second)

    def change(self, shares: Shares) -> None:
        """Keep others from now on."""
        if shares != self._shares:
            self._shares = shares
            if self.registries is not None:
                self.registries.change_limits(bytes_per_second=self.bytes_per_second)

    def observe(self, event: Event) -> None:
        """The observer of the run's part."""
        if isinstance(event, WorkerEvent):
            self._events.append(event)

    def events(self) -> tuple[WorkerEvent, ...]:
        """What happened since they were asked for last."""
        events = tuple(self._events)
        self._events.clear()
        return events


def _lower(own: float, share: float) -> float:
    """The lower of two limits, of which 0 is none."""
    return min(own, share) if own and share else own or share


@asynccontextmanager
async def open_run(
    terms: RunTerms, shares: Shares, own: Settings, name: str, publish: Publish
) -> AsyncIterator[RunOnWorker]:
    """A run's part in a worker of that name, with its own settings. At its end what is under way is stopped,
    and its upload sessions are given up or journaled. Raises BlobflowError where it can't begin: no store, a
    setting that can't be used."""
    settings, meter = under_terms(own, terms), Meter()
    limits = WorkerLimits(settings, shares)
    async with _open_services(settings, limits, meter) as services, CopyWorker(services, name) as copies:
        run = RunOnWorker(terms, name, copies, meter, limits)
        telling = asyncio.create_task(run.publish_all(publish))
        try:
            yield run
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling


@asynccontextmanager
async def _open_services(settings: Settings, limits: WorkerLimits, meter: Meter) -> AsyncIterator[Services]:
    if (root := lasting_root(settings)) is not None:
        await Store.free(root, meter.waits)
    with open_store(settings, limits.observe) as store:
        journal = journal_of(settings, store)
        registries = open_registries(
            settings,
            limits.observe,
            meter,
            journal=journal,
            bytes_per_second=limits.bytes_per_second,
            access=limits.access,
        )
        limits.registries = registries
        opened = Opened(store, journal, registries)
        try:
            async with open_services(opened, settings, limits.observe, meter) as services:
                yield services
        finally:
            await registries.close()
