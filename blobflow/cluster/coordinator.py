"""The coordinator's end: a cluster that is connected, with a carrier for one run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import msgspec
from distributed import Client

from blobflow.cluster.address import Engine
from blobflow.cluster.carrier import DaskCarrier
from blobflow.cluster.connecting import connected
from blobflow.cluster.demand import show_demand
from blobflow.cluster.dispatch import Dispatch
from blobflow.cluster.members import Members
from blobflow.cluster.progress import TOPIC, RunFigures
from blobflow.cluster.pulse import Pulse, silence_seconds
from blobflow.cluster.remote import RemoteRun
from blobflow.cluster.terms import terms_of
from blobflow.cluster.when_needed import CarrierWhenNeeded
from blobflow.content import Site
from blobflow.engine.transfer.carrying import Carrier
from blobflow.events import Meter, Observer
from blobflow.settings import Settings
from blobflow.waits import WaitKind

# Seconds between two looks at whether the scheduler is still there.
ALIVE_SECONDS = 0.5


def _any_site(site: Site) -> bool:
    return True


class RunHosts(msgspec.Struct, frozen=True):
    """The hosts of a run, and which sites workers know as well as this process: not those with a Source or a
    Sink of the caller's own."""

    sources: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    known: Callable[[Site], bool] = _any_site


@asynccontextmanager
async def open_carrier(
    engine: Engine,
    settings: Settings,
    observe: Observer,
    meter: Meter,
    hosts: RunHosts = RunHosts(),  # noqa: B008  frozen
) -> AsyncIterator[Carrier]:
    """The carrier of one run, with the workers of an engine. At its end nothing of the run is under way at
    them any more, and the meter has all that they counted.

    Raises ConnectFailed, UntrustedPeer and InvalidConfig where nobody lets us in, and EngineLost where no
    worker can work for this run. Where there is none yet, one is waited for. Local ones start with the first
    carriage.
    """
    opening = partial(_open, engine, settings, observe, meter, hosts)
    async with CarrierWhenNeeded(opening, hosts.known) if engine.local else opening() as carrier:
        yield carrier


@asynccontextmanager
async def _open(
    engine: Engine, settings: Settings, observe: Observer, meter: Meter, hosts: RunHosts
) -> AsyncIterator[Carrier]:
    async with AsyncExitStack() as stack:
        kind: WaitKind = "work" if engine.local else "connect"
        with meter.waits.begin(kind, str(engine), f"starting the workers of {engine}"):
            client = await stack.enter_async_context(connected(engine, settings))
        coordinator = _Coordinator(engine, client, settings, observe, meter, hosts)
        stack.push_async_callback(coordinator.end)
        await coordinator.begin()
        yield coordinator.carrier
        coordinator.complete = True


class _Coordinator:
    """All that belongs to the carrier of one run."""

    def __init__(
        self,
        engine: Engine,
        client: Client,
        settings: Settings,
        observe: Observer,
        meter: Meter,
        hosts: RunHosts,
    ) -> None:
        run = uuid.uuid4().hex
        self._run = run
        self._engine = engine
        self._client = client
        remote = RemoteRun(client, terms_of(run, settings, hosts.sources, hosts.targets))
        self._members = Members(client, remote, settings, observe, self._changed, str(engine))
        self._dispatch = Dispatch(lambda: self._members.fit, settings, meter.waits, str(engine))
        self.carrier = DaskCarrier(run, client, remote, self._members, self._dispatch, observe, hosts.known)
        self._pulse = Pulse(remote, self._members, self.carrier.lose, str(engine), silence_seconds())
        self._figures = RunFigures(run, meter, observe, self.carrier.moved, self.carrier.arrived)
        self.carrier.on_news = self._figures.take
        self._tasks: list[asyncio.Task[None]] = []
        self.complete = False  # nothing cut the run short

    async def begin(self) -> None:
        """Find the workers. Raises EngineLost."""
        self._client.subscribe_topic("all", self._members.event)
        self._client.subscribe_topic(TOPIC, self._news)
        await self._members.begin()
        self._tasks = [
            asyncio.create_task(self._members.follow()),
            asyncio.create_task(self._pulse.watch()),
            asyncio.create_task(self.carrier.watch()),
            asyncio.create_task(self._watch()),
            asyncio.create_task(show_demand(self._client, self._run, lambda: self._dispatch.wanting)),
        ]
        for task in self._tasks:
            task.add_done_callback(self._check)

    async def end(self) -> None:
        """The run is over: it ends at the workers, too."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._dispatch.close()
        if self._client.status == "running" and not self.carrier.is_lost:
            self._client.unsubscribe_topic("all")
            for news in await self._members.end(complete=self.complete):
                self._figures.take(news)
        self._figures.close()

    async def _watch(self) -> None:
        """Notice that the scheduler is gone. The client waits for another one, which knows nothing of us."""
        while self._client.status == "running":  # noqa: ASYNC110  it tells nobody
            await asyncio.sleep(ALIVE_SECONDS)
        self.carrier.lose(
            f"the scheduler at {self._engine} is gone, or the way to it; what has arrived stays, "
            "and the same command goes on"
        )

    def _check(self, task: asyncio.Task[None]) -> None:
        """What follows the cluster has ended: nothing would come of the run any more if that failed."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.carrier.lose(f"following the workers failed: {type(error).__name__}: {error}")

    def _changed(self) -> None:
        self.carrier.changed()

    def _news(self, event: tuple[float, Any]) -> None:
        news = self._figures.take(event[1])
        member = None if news is None else self._members.by_name(news.worker)
        if news is not None and member is not None:
            member.hear()
            member.leaves = member.leaves or news.leaving
