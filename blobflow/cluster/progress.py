"""Figures and news of workers: what a worker tells about a run now and then, and how that becomes the run's.

A worker publishes all its figures so far, not what was added, so that one message that is lost, or comes
twice, changes nothing. Messages are JSON in one topic for all runs, of which a scheduler keeps the last
thousand: with a topic a run it would keep as many of each, for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec.structs import astuple

from blobflow.content import Site
from blobflow.events import Meter, Observer, RangeRead, Retrying, Traced, Waiting, Warned
from blobflow.printable import printable
from blobflow.waits import OpenWait, Wait, WaitKind

TOPIC = "blobflow"
# Seconds between the messages of one worker, while there is something to tell.
INTERVAL = 0.5
# What one message holds at most; what is over it is left out, and the run goes on without.
MAX_EVENTS = 200
MAX_WAITS = 32
MAX_MOVED = 256
# Hosts of which one worker may have figures.
MAX_HOSTS = 10_000
# Characters of a worker's name that are shown.
MAX_NAME = 80

WorkerEvent = Retrying | Waiting | Warned | Traced | RangeRead


class HostFigures(msgspec.Struct, frozen=True, array_like=True):
    """As in `HostMeter`, and of blobs that were read by several ranges as in `RangeMeter`."""

    requests: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    ranged_blobs: int = 0
    ranged_requests: int = 0
    ranged_bytes: int = 0


class MovedBytes(msgspec.Struct, frozen=True, array_like=True):
    """So many bytes of the carriage of that key have gone to that target."""

    key: str
    target: Site
    bytes: int


class WorkerWait(msgspec.Struct, frozen=True, omit_defaults=True):
    """A wait in a worker, as in `Wait`. `lasted` and `left` in seconds."""

    kind: WaitKind
    host: str
    what: str
    lasted: float
    left: float | None = None
    attempt: int = 0
    attempts: int = 0


class News(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker tells of a run. `part`: names its part of it, in which figures count up. `arrived`:
    packed arrivals by the keys of their carriages. `leaving`: it takes no more carriages."""

    run: str
    worker: str
    part: str
    hosts: dict[str, HostFigures] = {}
    bytes_resent: int = 0
    moved: tuple[MovedBytes, ...] = ()
    arrived: tuple[tuple[str, bytes], ...] = ()
    events: tuple[WorkerEvent, ...] = ()
    waits: tuple[WorkerWait, ...] = ()
    leaving: bool = False


def shown_name(name: object) -> str:
    """What a worker is called in all that a run tells, by itself and by its coordinator."""
    return printable(str(name), MAX_NAME)


def figures_of(meter: Meter) -> dict[str, HostFigures]:
    """The figures of every host so far."""
    return {
        host: HostFigures(
            each.requests,
            each.bytes_read,
            each.bytes_written,
            each.ranges.blobs,
            each.ranges.requests,
            each.ranges.bytes,
        )
        for host, each in meter.hosts.items()
    }


def waits_of(meter: Meter) -> tuple[WorkerWait, ...]:
    """The waits of this moment that may be worth telling: nobody is told of the short ones."""
    now = meter.waits.clock()
    return tuple(
        WorkerWait(
            wait.kind,
            wait.host,
            wait.what,
            round(now - wait.since, 1),
            None if wait.until is None else round(wait.until - now, 1),
            wait.attempt,
            wait.attempts,
        )
        for wait in meter.waits.now()[:MAX_WAITS]
        if now - wait.since >= INTERVAL
    )


def pack_news(news: News) -> str:
    """As JSON."""
    return msgspec.json.encode(news).decode()


class RunFigures:
    """Adds what workers tell of one run to its meter and events.

    `moved`: called with each `MovedBytes`, `arrived` with each packed arrival and its key.
    """

    def __init__(
        self,
        run: str,
        meter: Meter,
        observe: Observer,
        moved: Callable[[str, MovedBytes], None],
        arrived: Callable[[str, bytes], None],
    ) -> None:
        self._run = run
        self._meter = meter
        self._observe = observe
        self._moved = moved
        self._arrived = arrived
        self._hosts: dict[tuple[str, str], HostFigures] = {}
        self._resent: dict[str, int] = {}
        self._waits: dict[str, dict[tuple[str, ...], OpenWait]] = {}

    def take(self, packed: object) -> News | None:
        """Take a message in; None, and nothing happens, for what is none of this run's."""
        if not isinstance(packed, str):
            return None
        try:
            news = msgspec.json.decode(packed, type=News)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None
        if news.run != self._run:
            return None
        for host, figures in news.hosts.items():
            if len(self._hosts) < MAX_HOSTS or (news.part, host) in self._hosts:
                self._count(news.part, host, figures)
        self._meter.bytes_resent += max(0, news.bytes_resent - self._resent.get(news.part, 0))
        self._resent[news.part] = max(news.bytes_resent, self._resent.get(news.part, 0))
        for moved in news.moved:
            self._moved(news.worker, moved)
        for key, arrival in news.arrived:
            self._arrived(key, arrival)
        for event in news.events:
            if isinstance(event, Warned):
                event = msgspec.structs.replace(event, message=f"worker {news.worker}: {event.message}")
            self._observe(event)
        self._wait(news.worker, news.waits)
        return news

    def gone(self, worker: str) -> None:
        """A worker is no more, and waits for nothing."""
        self._wait(worker, ())

    def close(self) -> None:
        """Nobody waits any more."""
        for worker in list(self._waits):
            self._wait(worker, ())

    def _count(self, part: str, host: str, figures: HostFigures) -> None:
        before = self._hosts.get((part, host), HostFigures())
        if any(now < then for now, then in zip(astuple(figures), astuple(before), strict=True)):
            return  # an older message
        self._hosts[part, host] = figures
        meter = self._meter.hosts[host]
        meter.requests += figures.requests - before.requests
        meter.bytes_read += figures.bytes_read - before.bytes_read
        meter.bytes_written += figures.bytes_written - before.bytes_written
        meter.ranges.blobs += figures.ranged_blobs - before.ranged_blobs
        meter.ranges.requests += figures.ranged_requests - before.ranged_requests
        meter.ranges.bytes += figures.ranged_bytes - before.ranged_bytes

    def _wait(self, worker: str, waits: Iterable[WorkerWait]) -> None:
        """Have exactly these waits of a worker open."""
        before = self._waits.pop(worker, {})
        now = {(each.kind, each.host, each.what): each for each in waits}
        kept: dict[tuple[str, ...], OpenWait] = {}
        for key, each in now.items():
            kept[key] = before.pop(key) if key in before else self._begin(worker, each)
            kept[key].wait = msgspec.structs.replace(kept[key].wait, until=self._until(each))
        for over in before.values():
            over.end()
        if kept:
            self._waits[worker] = kept

    def _begin(self, worker: str, wait: WorkerWait) -> OpenWait:
        clock = self._meter.waits.clock()
        what = f"{wait.what} (worker {worker})" if wait.what else f"worker {worker}"
        return self._meter.waits.start(
            Wait(
                wait.kind,
                wait.host,
                what,
                clock - wait.lasted,
                self._until(wait),
                attempt=wait.attempt,
                attempts=wait.attempts,
            )
        )

    def _until(self, wait: WorkerWait) -> float | None:
        return None if wait.left is None else self._meter.waits.clock() + wait.left
