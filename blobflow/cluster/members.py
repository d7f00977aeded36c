"""The workers of a cluster, as the coordinator of one run sees them: who is there, who is fit for work, and
what each has under way.

A worker gets work once it has the same versions, has opened its part of the run, and the limits of those who
were there before were lowered. Who is not fit is told of in one sentence, and gets none.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

from distributed import Client

from blobflow.cluster.progress import shown_name
from blobflow.cluster.remote import RemoteRun, WorkerSilent, WorkerUnfit
from blobflow.cluster.shares import Shares, share_out
from blobflow.engine.transfer.carrying import Carriage
from blobflow.errors import EngineLost
from blobflow.events import Observer, Warned, WorkersChanged
from blobflow.settings import Settings

# Seconds after which the scheduler is asked who is there, if it has told of nobody who came or went.
LOOK_SECONDS = 5.0
# Seconds in which those who come begin together, so that the first one does not get all that waits.
JOIN_SECONDS = 5.0


# Seconds for which a worker that failed with a host gets nothing more of it where others may do better.
DOUBT_SECONDS = 30.0

# The resource by which a worker says how many blobs it carries at once, where it has more threads.
PLACES = "blobflow-blobs"


class Member:
    """A worker. `fit`: it may be given carriages of this run; `reason`: the end of a sentence that says why
    not. `away_from`: hosts with which it failed where others did not, "" for all of them. `shares`: what it
    has of the limits of hosts, and `told`, what it knows of that. `gone` is done when it is not in the
    cluster any more; it `left` if it was not lost. `silent`: it answers nothing;
    `stands` is done when what it has goes elsewhere for that, and `left_behind` are the keys of it. `heard`:
    when it was heard of last, by the loop's clock. It has `places` for carriages, and as many `threads` for
    those and for others of which a target stands still (`standing`)."""

    def __init__(self, address: str, name: str, threads: int, at: int, places: int | None = None) -> None:
        self.address = address
        self.name = name
        self.threads = threads
        self.places = min(threads, places or threads)
        self.standing = 0
        self.at = at
        self.fit = False
        self.reason = ""
        self.rests = False
        self.leaves = False
        self.left = False
        self.away_from: set[str] = set()
        self._doubts: dict[str, float] = {}
        self.shares: Shares | None = None
        self.told: Shares | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.silent = False
        self.stands: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left_behind: set[str] = set()
        self.heard = 0.0
        self.hear()
        self.carriages = 0
        self.bytes = 0
        self.at_hosts: Counter[str] = Counter()

    def hear(self) -> None:
        """It has said something."""
        self.heard = asyncio.get_running_loop().time()

    def doubt(self, hosts: Iterable[str], seconds: float | None = None) -> None:
        """Something failed with these hosts, "" for its disk, for what may be its own reason. For so many
        seconds that counts."""
        seconds = DOUBT_SECONDS if seconds is None else seconds
        until = asyncio.get_running_loop().time() + seconds
        self._doubts |= dict.fromkeys(hosts, until)

    def trust(self, hosts: Iterable[str]) -> None:
        """It goes well with these hosts."""
        for host in hosts:
            self._doubts.pop(host, None)

    def is_doubted(self, hosts: Iterable[str] | None = None) -> bool:
        """Whether something failed with one of these hosts, or any, a short time ago."""
        now = asyncio.get_running_loop().time()
        doubted = {host for host, until in self._doubts.items() if until > now}
        return bool(doubted if hosts is None else doubted & {"", *hosts})

    def is_away(self, hosts: Iterable[str]) -> bool:
        """Whether it fails with one of these hosts where others don't."""
        return not self.away_from.isdisjoint({"", *hosts})

    def serves(self, hosts: Iterable[str]) -> bool:
        """Whether it has room for what is between these hosts, now or soon."""
        if not self.fit or self.rests or self.leaves or self.gone.done() or self.shares is None:
            return False
        return all(self.shares.at(host).streams for host in hosts)

    def begin(self, carriage: Carriage) -> None:
        """It is given a carriage."""
        self.carriages += 1
        self.bytes += carriage.blob.size
        self.at_hosts.update(hosts_of(carriage))

    def end(self, carriage: Carriage, hosts: Iterable[str]) -> None:
        """It has it no more; `hosts`: those that the carriage had not left before."""
        self.carriages -= 1
        self.bytes -= carriage.blob.size
        self.at_hosts.subtract(hosts)

    def may_take(self, carriage: Carriage, *, limited: Callable[[str], bool]) -> bool:
        """Whether it has room for a carriage. At hosts that nobody `limited` it gets one more than it may
        move at once, so that it never waits for the next one."""
        hosts = hosts_of(carriage)
        if self.shares is None or not self.serves(hosts):
            return False
        if self.carriages >= min(self.threads, self.places + self.standing):
            return False
        for host in hosts:
            share = self.shares.at(host)
            ahead = int(share.connections > 0 and not limited(host))
            if self.at_hosts[host] >= max(share.connections + ahead, share.far_connections):
                return False
        return True


def hosts_of(carriage: Carriage) -> set[str]:
    """The registries between which it goes."""
    return {carriage.source.registry, *(target.registry for target in carriage.targets)}


class Members:
    """Follows the workers of a cluster. `changed` is called whenever a carriage may go where it could not."""

    def __init__(
        self,
        client: Client,
        remote: RemoteRun,
        settings: Settings,
        observe: Observer,
        changed: Callable[[], None],
        scheduler: str,
    ) -> None:
        self._client = client
        self._remote = remote
        self._settings = settings
        self._observe = observe
        self._changed = changed
        self._scheduler = scheduler
        self._members: dict[str, Member] = {}
        self._came = 0
        self._look = asyncio.Event()
        self._told: tuple[str, ...] = ()
        self._excluded: set[str] = set()
        self._silent: set[str] = set()
        self._opening: dict[Member, asyncio.Task[None]] = {}

    @property
    def fit(self) -> list[Member]:
        """Those who may be given work, the first that came first."""
        fit = (each for each in self._members.values() if each.fit and not each.gone.done())
        return sorted(fit, key=lambda each: each.at)

    @property
    def unfit(self) -> list[Member]:
        """Those who are there, and can't work for this run."""
        return [each for each in self._members.values() if each.reason]

    @property
    def there(self) -> list[Member]:
        """All who are in the cluster."""
        return list(self._members.values())

    def by_name(self, name: str) -> Member | None:
        """The worker of that name."""
        return next((each for each in self._members.values() if each.name == name), None)

    def look(self) -> None:
        """Somebody came or went, or does not do what it should."""
        self._look.set()

    def unfit_now(self, member: Member, reason: str) -> None:
        """A worker turned out to be of no use for this run."""
        member.fit, member.reason = False, reason
        self._look.set()

    def silent_now(self, member: Member, seconds: float) -> None:
        """A worker does not answer: what it has goes to others."""
        self._gives_up(member)
        held = "what it had goes to others, and it" if member.carriages else "it"
        self._tell_silent(member, f"has not answered for {seconds:.0f} s; {held} gets no work before it does")
        self._changed()
        self._look.set()

    def _gives_up(self, member: Member) -> None:
        member.fit, member.silent = False, True
        if not member.stands.done():
            member.stands.set_result(None)

    def answers_again(self, member: Member) -> None:
        """A worker that was silent has nothing under way, and may be asked in again."""
        member.silent = False
        member.left_behind.clear()
        if member.stands.done():
            member.stands = asyncio.get_running_loop().create_future()
        member.hear()
        self._look.set()

    def event(self, event: tuple[float, Any]) -> None:
        """The scheduler tells of something in its topic \"all\"."""
        match event[1]:
            case {"action": "remove-worker", "worker": str(address)}:
                if (member := self._members.get(address)) is not None:
                    member.left = bool(event[1].get("expected"))
                    self._leave(member)
                    self._changed()
                self._look.set()
            case {"action": "add-worker"}:
                self._look.set()

    async def begin(self) -> None:
        """Find out who is there. Raises EngineLost if there are workers, and none of them is fit."""
        await self._update()
        while self._opening and not self.fit:
            await asyncio.wait(self._opening.values(), return_when=asyncio.FIRST_COMPLETED)
        if self.unfit and not self.fit:
            reasons = "; ".join(f"worker {each.name} {each.reason}" for each in self.unfit[:3])
            more = f"; and {len(self.unfit) - 3} others" if len(self.unfit) > 3 else ""
            raise EngineLost(f"no worker of {self._scheduler} can work for this run: {reasons}{more}")
        self._tell()

    async def follow(self) -> None:
        """Follow who comes and goes. Runs until it is cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._look.wait()
            self._look.clear()
            await self._update()
            self._tell()

    async def reopen(self, member: Member) -> None:
        """Begin anew at a worker that does not know of the run any more."""
        if member.shares is not None:
            await self._try(member, self._remote.open(member.address, member.shares))

    async def end(self, *, complete: bool) -> list[str]:
        """End the run at all workers, `complete` or not. Returns their last news."""
        for opening in self._opening.values():
            opening.cancel()
        fit = self.fit
        ended = await asyncio.gather(
            *(self._remote.end(each.address, complete=complete) for each in fit), return_exceptions=True
        )
        return [news for news in ended if isinstance(news, str)]

    async def _update(self) -> None:
        there = await self._ask_scheduler()
        if there is None:
            return
        for member in [each for address, each in self._members.items() if address not in there]:
            self._leave(member)
        came = []
        for address, each in there.items():
            member = self._members.get(address) or self._come(address, each)
            member.rests = each.get("status") not in ("running", "init")
            if not (member.fit or member.reason or member.silent or member in self._opening):
                came.append(member)
        self.share_anew()
        if came or any(each.shares != each.told for each in self.fit):
            await self._admit(came)
        self._changed()

    async def _ask_scheduler(self) -> dict[str, Any] | None:
        """The workers that the scheduler knows, by their addresses; None if it can't be asked just now."""
        scheduler = self._client.scheduler
        if scheduler is None:
            return None
        try:
            workers: dict[str, Any] = (await scheduler.identity(n_workers=-1))["workers"]
        except OSError:
            return None  # it is lost, as the client will say, or not
        return workers

    def _come(self, address: str, described: dict[str, Any]) -> Member:
        self._came += 1
        name = shown_name(described.get("name", address))
        places = (described.get("resources") or {}).get(PLACES)
        threads = max(1, int(described.get("nthreads", 1)))
        member = Member(address, name, threads, self._came, places and max(1, int(places)))
        self._members[address] = member
        return member

    def _leave(self, member: Member) -> None:
        """A worker is not in the cluster any more."""
        del self._members[member.address]
        member.gone.set_result(None)

    @property
    def _sharing(self) -> list[Member]:
        """Those among whom the limits are shared out."""
        opening = (each for each in self._opening if not each.fit and not each.gone.done())
        return [*self.fit, *opening]

    def share_anew(self) -> None:
        """The limits are shared out anew after a change; workers hear of it a little later."""
        shares = self._shares(self._sharing)
        for member in self.fit:
            member.shares = shares[member.address]
            if member.shares != member.told:
                self._look.set()

    async def _admit(self, came: list[Member]) -> None:
        """Share out the limits among those who are there and those who came. Who was there before has less
        before anybody else has more. Who takes long to begin joins later, and holds nobody up."""
        before = self.fit
        shares = self._shares([*self._sharing, *came])
        await self._share(before, shares)
        for member in came:
            member.shares = member.told = shares[member.address]
            self._opening[member] = asyncio.create_task(self._open(member, member.shares))
        if opening := [self._opening[member] for member in came]:
            await asyncio.wait(opening, timeout=JOIN_SECONDS)
        sharing = self._sharing
        if {each.address for each in sharing} != shares.keys():
            await self._share(self.fit, self._shares(sharing))

    async def _open(self, member: Member, shares: Shares) -> None:
        try:
            await self._try(member, self._remote.open(member.address, shares))
        finally:
            del self._opening[member]
            self._look.set()

    def _shares(self, members: Iterable[Member]) -> dict[str, Shares]:
        """Those that fail with a host come last: where it has few connections, others have them."""
        ordered = sorted(members, key=lambda each: bool(each.away_from) or each.is_doubted())
        return share_out(self._settings, [each.address for each in ordered])

    async def _share(self, members: list[Member], shares: dict[str, Shares]) -> None:
        changing = []
        for member in members:
            member.shares = shares[member.address]
            if member.told != member.shares:
                member.told = member.shares
                changing.append(self._try(member, self._remote.share(member.address, member.shares)))
        await asyncio.gather(*changing)

    async def _try(self, member: Member, asking: Awaitable[None]) -> None:
        """Ask something of a worker, which is fit if it does that."""
        try:
            await asking
        except WorkerUnfit as error:
            member.fit, member.reason = False, error.message
        except WorkerSilent as error:
            self._gives_up(member)  # gone, as the scheduler will say; else it is asked again
            if error.late:
                self._tell_silent(member, f"{error.message}; it gets no work before it does")
        else:
            member.fit, member.reason = True, ""
            member.hear()
            self._silent.discard(member.name)

    def _tell_silent(self, member: Member, words: str) -> None:
        if member.name not in self._silent:
            self._silent.add(member.name)
            self._observe(Warned(f"worker {member.name} {words}"))

    def _tell(self) -> None:
        names = tuple(each.name for each in self.fit)
        if names != self._told:
            joined = tuple(name for name in names if name not in self._told)
            left = tuple(name for name in self._told if name not in names)
            self._told = names
            self._observe(WorkersChanged(len(names), joined, left))
        for member in self.unfit:
            if member.name not in self._excluded:
                self._excluded.add(member.name)
                sentence = f"worker {member.name} {member.reason}; it gets no work, the others go on"
                self._observe(Warned(sentence))
