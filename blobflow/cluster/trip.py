"""One carriage on its way, over all workers that had it: what arrived, what failed where, and who died."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from blobflow.cluster import standing
from blobflow.cluster.dispatch import Others
from blobflow.cluster.members import Member
from blobflow.content import Site
from blobflow.engine.transfer.carrying import Arrival, Carriage
from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    ConnectionLost,
    Denied,
    StorageError,
    TimedOut,
    Unauthorized,
)

# Workers that may die with a carriage before it is taken for what kills them: as Dask's own allowed-failures.
MAX_DEATHS = 3
# How often a carriage comes back from workers that closed, or had forgotten the run, before that is an error.
MAX_RETURNS = 100
# Workers at which it is tried while it is not known that any can do it, and all have failed with that host.
MAX_UNPROVEN = 2
# What may be wrong with a worker alone: its disk, its line or proxy or trust, its logins.
_SLOW = (TimedOut, ConnectionLost)
_OF_A_WORKER = (StorageError, ConnectFailed, Unauthorized, Denied, *_SLOW)


class Failure(msgspec.Struct, frozen=True):
    """What failed at a worker for what may be its own reason; `host`: with whom, "" for the worker's disk."""

    member: Member
    host: str
    arrival: Arrival


class Trip:
    """`found`: what is known of each target; `not_at`: the addresses where it need not be tried again;
    `recalled`: it was taken from a worker where it stood still."""

    def __init__(self, carriage: Carriage) -> None:
        self.todo = carriage
        self._planned = carriage.source
        self.found: dict[Site, Arrival] = {}
        self.not_at: set[str] = set()
        self.failures: list[Failure] = []
        self.recalled = False
        self._deaths: list[str] = []
        self._returns = 0

    @property
    def returned(self) -> bool:
        """Whether it came back from a worker."""
        return self._returns > 0

    def recall(self, member: Member) -> None:
        """It stood still at a worker, and comes back from it."""
        self.recalled = True
        self.not_at.add(member.address)

    def came_back(self, member: Member, *, died: bool) -> None:
        """A worker brought nothing: it `died` or stands still, was closed, or gave the carriage
        back."""
        self._returns += 1
        if died:
            self._deaths.append(member.name)
        digest = self.todo.blob.digest
        if len(self._deaths) > MAX_DEATHS:
            names = ", ".join(self._deaths)
            self.failed(
                BlobflowError(f"{len(self._deaths)} workers died while they had blob {digest}: {names}"),
                member,
            )
        elif self._returns > MAX_RETURNS:
            self.failed(BlobflowError(f"worker {member.name} gave blob {digest} back once too often"), member)

    def failed(self, error: BlobflowError, member: Member) -> None:
        """Nothing of what is left will arrive."""
        for target in self.todo.targets:
            self.found[target] = Arrival(target, error, member.name)
        self._leave(())

    def judge(self, member: Member, arrivals: Sequence[Arrival]) -> bool:
        """Note with which hosts it goes well at a worker and with which not. Whether something failed that
        may be for its own reason."""
        failures = [each for arrival in arrivals if (each := self._of_worker(member, arrival)) is not None]
        for arrival in arrivals:
            if arrival.error is None:
                member.trust((self.todo.source.registry, arrival.target.registry))
        member.doubt(each.host for each in failures)
        return bool(failures)

    def take(self, member: Member, arrivals: Sequence[Arrival], *, reached: set[str], others: Others) -> None:
        """A worker said what became of it, or of a part. What may go well at `others` is left to do, and so
        is what the worker was not given: that is read where the blob is by now. `reached`: the hosts with
        which it went well anywhere."""
        if any(arrival.error for arrival in arrivals):
            self.not_at.add(member.address)
        told = {arrival.target for arrival in arrivals}
        again = [target for target in self.todo.targets if target not in told]
        nearest = self._planned
        for arrival in arrivals:
            self.found[arrival.target] = arrival
            if arrival.error is None:
                nearest = arrival.target if again else nearest
                reached |= {self.todo.source.registry, arrival.target.registry}
                continue
            failure = self._of_worker(member, arrival)
            if failure is not None:
                self.failures.append(failure)
                if self._may_go_well(arrival.error, others, proven=failure.host in reached):
                    again.append(arrival.target)
                    continue
            if arrival.error.side == "source" and self.todo.source != self._planned:
                again.append(arrival.target)  # the source itself was not asked for it
        self.todo = msgspec.structs.replace(self.todo, source=nearest)
        self._leave(again)

    def set_aside(self) -> list[str]:
        """Note with whom workers can't do what others could. Returns what is to be told of that.

        What took a worker all of its time-outs may have been an outage that was over at the next one: it is
        doubted for a while, as one at which a carriage stood still.
        """
        told = []
        for failure in self.blamed():
            member, host, error = failure.member, failure.host, failure.arrival.error
            if isinstance(error, _SLOW):
                member.doubt((host,), standing.RECALL_SECONDS)
                told.append(f"{error}; it went well at another worker")
            elif host not in member.away_from:
                member.away_from.add(host)
                what = f"what is for {host}" if host else "what it had"
                told.append(f"{error}; {what} goes to other workers from now on")
        return told

    def blamed(self) -> list[Failure]:
        """The failures that were a worker's own: it went well elsewhere."""
        return [each for each in self.failures if self.found[each.arrival.target].error is None]

    def _may_go_well(self, error: BlobflowError, others: Others, *, proven: bool) -> bool:
        """Whether it is tried at another worker. What took a worker all of its time-outs is so once, and only
        if another one is known to reach that host."""
        few = len(self.not_at) < MAX_UNPROVEN
        if isinstance(error, _SLOW):
            return others.any and proven and few
        return others.fresh or (others.any and (proven or few))

    def _of_worker(self, member: Member, arrival: Arrival) -> Failure | None:
        error = arrival.error
        if not isinstance(error, _OF_A_WORKER):
            return None
        site = self.todo.source if error.side == "source" else arrival.target
        return Failure(member, "" if isinstance(error, StorageError) else site.registry, arrival)

    def _leave(self, targets: Iterable[Site]) -> None:
        self.todo = msgspec.structs.replace(self.todo, targets=tuple(targets))
