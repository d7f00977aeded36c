"""The `Carrier` over Dask: hands each carriage to one worker, and again where that one died or was closed.

A task is for one worker, which is chosen here (`dispatch`). What fails for a worker's own reason (its disk,
its line, its login) is tried at another one; a worker with which that goes wrong where it goes well elsewhere
gets no more of it (`trip`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError as TaskCancelled
from contextlib import suppress
from typing import Any

import msgspec
from distributed import Client, KilledWorker, wait

from blobflow.cluster import standing, tasks
from blobflow.cluster.dispatch import Dispatch
from blobflow.cluster.members import Member, Members, hosts_of
from blobflow.cluster.parcels import Parcel, Parcels
from blobflow.cluster.progress import MovedBytes
from blobflow.cluster.remote import RemoteRun, WorkerSilent, WorkerUnfit
from blobflow.cluster.standing import Load, StandingLoads
from blobflow.cluster.trip import Trip
from blobflow.cluster.worker_side import ARRIVED, GIVEN_UP, NO_RUN
from blobflow.content import Site
from blobflow.engine.transfer.arrival_codec import unpack_arrivals
from blobflow.engine.transfer.carrying import Arrival, Carriage, Moved, Tell, tell_nobody
from blobflow.errors import BlobflowError, EngineLost, own_copy
from blobflow.events import Observer, Warned
from blobflow.printable import printable

# Seconds that cancelled carriages wait for others, so that a worker is asked once to stop all of them.
_GATHER_SECONDS = 0.02
# Seconds in which a cancelled task turns out to be a scheduler that is lost.
_LOSS_SECONDS = 5.0


class DaskCarrier:
    """Carries the blobs of one run. `takes_site`: whether workers know as much of a site as this process.
    `on_news` is called with the packed news that come with a carriage."""

    def __init__(
        self,
        run: str,
        client: Client,
        remote: RemoteRun,
        members: Members,
        dispatch: Dispatch,
        observe: Observer,
        takes_site: Callable[[Site], bool],
    ) -> None:
        self._run = run
        self._client = client
        self._remote = remote
        self._members = members
        self._dispatch = dispatch
        self._observe = observe
        self._takes_site = takes_site
        self._calls: list[Callable[[], None]] = []
        self._number = 0
        self._under_way: dict[str, _Underway] = {}
        self._parcels = Parcels(self._send)
        self._stopping: dict[str, _Stopping] = {}
        self._reached: set[str] = set()
        self._standing = StandingLoads()
        self.on_news: Callable[[str], object] = lambda news: None
        self._lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def capacity(self) -> int:
        """See `Carrier.capacity`."""
        return self._dispatch.capacity()

    def on_room(self, call: Callable[[], None]) -> None:
        """See `Carrier.on_room`."""
        self._calls.append(call)

    def takes(self, carriage: Carriage) -> bool:
        """See `Carrier.takes`."""
        return all(map(self._takes_site, (carriage.source, *carriage.targets)))

    def changed(self) -> None:
        """Workers came, went, or have more room."""
        self._dispatch.serve()
        for call in self._calls:
            call()

    def moved(self, worker: str, news: MovedBytes) -> None:
        """A worker is further with a carriage."""
        if (under_way := self._under_way.get(news.key)) is not None:
            if under_way.load.bytes.get(news.target) != news.bytes:
                under_way.load.bytes[news.target] = news.bytes
                if news.bytes:
                    self._standing.moved(under_way.load, (news.target,))
                else:
                    self._standing.begun(under_way.load)
                self._dispatch.moved(news.target)
            under_way.tell(Moved(news.target, worker, news.bytes))

    def arrived(self, key: str, packed: bytes) -> None:
        """A carriage has arrived at some of its targets. What failed may go well elsewhere, and is not told
        before that is known."""
        if (under_way := self._under_way.get(key)) is not None:
            for arrival in unpack_arrivals(packed):
                if arrival.error is None:
                    self._standing.moved(under_way.load, (arrival.target,))
                    self._dispatch.arrived(under_way.load, arrival.target)
                    under_way.tell(arrival)

    async def watch(self) -> None:
        """Take back what stands still at a worker and nowhere else, and what waits behind it. Runs until it
        is cancelled."""
        while True:
            await asyncio.sleep(standing.LOAD_STANDS_SECONDS / 10)
            for each in list(self._under_way.values()):
                if self._may_recall(each):
                    each.recall()
                    for other in self._under_way.values():
                        if other.load.member is each.load.member and not other.load.bytes:
                            other.recall()

    def _may_recall(self, under_way: _Underway) -> bool:
        load = under_way.load
        if not under_way.may_recall or under_way.recalled.done() or not self._standing.stands(load):
            return False
        return self._dispatch.others(load.carriage, (load.member.address,)).any

    @property
    def is_lost(self) -> bool:
        """Whether the scheduler is lost."""
        return self._lost.done()

    def lose(self, sentence: str) -> None:
        """The scheduler is lost, and with it all that was under way."""
        if not self._lost.done():
            self._lost.set_result(sentence)

    async def carry(
        self, carriage: Carriage, *, size_left: int, tell: Tell = tell_nobody
    ) -> Sequence[Arrival]:
        """See `Carrier.carry`."""
        trip = Trip(carriage)
        while trip.todo.targets:
            load = await self._load_for(trip)
            member = load.member
            for target in load.carriage.targets:
                tell(Moved(target, member.name))
            try:
                arrivals = await self._bring(load, tell, trip)
            except _TaskFailed as failure:
                trip.failed(own_copy(failure), member)
                continue
            if arrivals is None:
                trip.came_back(member, died=member.silent or (member.gone.done() and not member.left))
            else:
                if trip.judge(member, arrivals):
                    self._members.share_anew()
                others = self._dispatch.others(trip.todo, {*trip.not_at, member.address})
                if arrived := [each.target for each in arrivals if each.error is None]:
                    self._standing.moved(load, arrived)
                trip.take(member, arrivals, reached=self._reached, others=others)
        for sentence in trip.set_aside():
            self._observe(Warned(sentence))
        return [trip.found[target] for target in carriage.targets]

    async def _load_for(self, trip: Trip) -> Load:
        """A worker with room for it. Raises EngineLost as soon as the scheduler is lost."""
        waiting = asyncio.create_task(self._dispatch.worker_for(trip.todo, trip.not_at))
        try:
            await asyncio.wait((waiting, self._lost), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not waiting.cancel():  # it was given one at the same moment
                self._dispatch.ended(waiting.result())
            raise
        if not waiting.done():
            waiting.cancel()
            raise EngineLost(self._lost.result())
        return waiting.result()

    # One carriage at one worker

    async def _bring(self, load: Load, tell: Tell, trip: Trip) -> Sequence[Arrival] | None:
        """Let one worker bring it. None: it died, stands still, was closed, or gave it back. Raises
        _TaskFailed for what went wrong beside the carriage."""
        self._number += 1
        key, member = f"{self._run}-{self._number}", load.member
        under_way = self._under_way[key] = _Underway(load, tell, not trip.recalled)
        parcel = self._parcels.put(member, key, load.carriage, alone=trip.returned)
        try:
            ends = (parcel.ended, member.gone, member.stands, self._lost, under_way.recalled)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if under_way.recalled.done() and not parcel.ended.done():
                await self._recall(trip, load, key, parcel)
            if member.stands.done() and not parcel.ended.done():
                member.left_behind.add(key)
            return self._arrivals(member, parcel, key, recalled=under_way.recalled.done())
        except asyncio.CancelledError:
            await self._stop(member, key, parcel)
            raise
        finally:
            parcel.leave(key)
            parcel.release()
            del self._under_way[key]
            self._dispatch.ended(load)

    async def _recall(self, trip: Trip, load: Load, key: str, parcel: Parcel) -> None:
        """Take a carriage from a worker where it stands still, or waits."""
        member = load.member
        trip.recall(member)
        member.doubt(hosts_of(trip.todo), standing.RECALL_SECONDS)
        self._members.share_anew()
        if load.bytes:
            what = f"worker {member.name} gets no further with blob {trip.todo.blob.digest}"
            self._observe(Warned(f"{what}, and others do with its hosts; it goes to another one"))
        await asyncio.wait((asyncio.create_task(self._stop(member, key, parcel)),))

    def _arrivals(
        self, member: Member, parcel: Parcel, key: str, *, recalled: bool
    ) -> Sequence[Arrival] | None:
        """What a parcel's task said of a carriage, if it has ended."""
        said = parcel.ended.result() if parcel.ended.done() else None
        if said is None:
            if self._lost.done():
                raise EngineLost(self._lost.result())
            return None
        word, packed = said[key]
        if word == GIVEN_UP and not recalled:
            member.leaves = True  # nobody asked for that: it stops
        return unpack_arrivals(packed) if word == ARRIVED else None

    # One parcel

    async def _send(self, parcel: Parcel) -> dict[str, tuple[str, bytes]] | None:
        """Send a parcel as a task, and return what it says of each carriage; None: nothing, the worker or the
        scheduler is gone. Raises _TaskFailed."""
        future = parcel.future = self._client.submit(
            tasks.carry,
            self._run,
            [*parcel.packed.items()],
            key=parcel.key,
            workers=[parcel.member.address],
            priority=parcel.priority,
        )
        with self._client.as_current(), suppress(TaskCancelled):
            await wait([future])
        match future.status:
            case "finished":
                return await self._unpacked(parcel.member, future)
            case "error":
                await self._explained(parcel.member, future)
            case "cancelled" if not parcel.member.gone.done():
                await asyncio.wait((self._lost,), timeout=_LOSS_SECONDS)
        return None

    async def _unpacked(self, member: Member, future: Any) -> dict[str, tuple[str, bytes]] | None:
        try:
            said, news = await self._client.gather(future)
        except (OSError, KeyError, TaskCancelled):
            self._members.look()
            return None  # the worker went before it could be asked
        self.on_news(news)
        if any(word == NO_RUN for word, _ in said.values()):
            await self._members.reopen(member)
        return dict(said)

    async def _explained(self, member: Member, future: Any) -> None:
        """A task failed by an exception, which none of ours does."""
        error = await future.exception()
        match error:
            case ImportError():
                self._members.unfit_now(member, "has no blobflow, or another version of it")
            case KilledWorker():
                self._members.look()
                await asyncio.wait((member.gone,), timeout=_LOSS_SECONDS)
            case BlobflowError():
                raise _TaskFailed(f"worker {member.name}: {error.message}")
            case _:
                raise _TaskFailed(printable(f"worker {member.name}: {type(error).__name__}: {error}"))

    async def _stop(self, member: Member, key: str, parcel: Parcel) -> None:
        """Have a carriage stopped at a worker, and wait for that."""
        stopping = self._stopping.get(member.address)
        if stopping is None:
            stopping = self._stopping[member.address] = _Stopping()
            stopping.task = asyncio.create_task(self._stop_all(member))
        stopping.keys.append(key)
        if parcel.leave(key) and parcel.future is not None:
            stopping.futures.append(parcel.future)
        while not stopping.task.done():
            with suppress(asyncio.CancelledError):  # it is on its way already
                await asyncio.wait((stopping.task,))

    async def _stop_all(self, member: Member) -> None:
        await asyncio.sleep(_GATHER_SECONDS)
        stopping = self._stopping.pop(member.address)
        if self._lost.done() or member.gone.done() or member.silent:
            return
        with suppress(OSError, TaskCancelled):
            await self._client.cancel(stopping.futures, reason="the run was stopped")
        asking = asyncio.create_task(self._remote.stop(member.address, tuple(stopping.keys)))
        ends = (asking, member.gone, member.stands, self._lost)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        asking.cancel()
        try:
            await asking
        except (WorkerSilent, asyncio.CancelledError):
            member.fit = False  # it would not answer to the end of the run either
        except WorkerUnfit:
            pass  # it has nothing under way any more


class _Underway(msgspec.Struct, eq=False):
    """A load at a worker, and who is told of it. `recalled` is done when it is to come back, if it may."""

    load: Load
    tell: Tell
    may_recall: bool
    recalled: asyncio.Future[None] = msgspec.field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def recall(self) -> None:
        """Have it come back, once."""
        if self.may_recall and not self.recalled.done():
            self.recalled.set_result(None)


class _Stopping(msgspec.Struct, eq=False):
    """Carriages that one worker is to stop, and the tasks of which nothing else is left."""

    keys: list[str] = []
    futures: list[Any] = []
    task: Any = None


class _TaskFailed(BlobflowError):
    """A task ended by an exception."""
