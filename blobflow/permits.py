"""Permits: how many requests may be in flight at a host. The interface between the engine, which decides
what starts, and the transport, which learns how much a host can take.

A host's `Limiter` alone grants permits. The engine's schedule asks it by `try_acquire`, for all permits of a
step in one go, and hands each to the place that it is for (`Limited.with_permit`): the place does its
exchanges under that permit, one after the other, and acquires none of its own. A place that is handed none
waits for one where it needs it, in its turn; so does one that goes to other hosts (`waits_for_permits`).

A stream's permit is given back before its step ends: one to read when the last byte has come, one to write
when the last byte has gone (`downgrade`), as what remains is an answer. Whoever acquired a permit releases it
in the end; that does nothing the second time.

Waiting. Who holds a permit waits for another in one order only: write, read, request, and never for one of
the kind that is held. So no two can wait for each other.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol, Self, TypeVar, cast

# Small requests at once to a host that is near: they keep it busy, and few enough connections are opened. A
# far registry may have more (`HostLimiter`).
MAX_REQUESTS = 16


Place = TypeVar("Place")


class PermitKind(enum.IntEnum):
    """What a permit is for; in the order in which those who wait are let in when there is room."""

    REQUEST = 1  # one small exchange at a time
    READ = 2  # a blob that streams from the host
    WRITE = 3  # a blob that streams to the host

    __hash__ = int.__hash__  # they are keys of what every request looks at, and Enum's own is slow


class Permit(Protocol):
    """The right to have one exchange under way at a host, until it is released."""

    @property
    def kind(self) -> PermitKind | None:
        """What it is good for now; None: nothing, it was released."""
        ...

    def downgrade(self) -> None:
        """The last byte of the stream has passed, and only an answer is to come: from now on this counts as a
        small request, so that another stream can begin meanwhile. As far as the host's limits allow that."""
        ...

    def release(self) -> None:
        """Nothing more is to come. Does nothing the second time."""
        ...


class Limiter(Protocol):
    """Grants the permits of one host. Used from one event loop."""

    def limit(self, kind: PermitKind) -> int:
        """How many permits of that kind there may be at once, as things stand; at least 1."""
        ...

    def admits(self, kind: PermitKind) -> bool:
        """Whether `try_acquire` would grant one now."""
        ...

    def try_acquire(self, kind: PermitKind) -> Permit | None:
        """A permit, if there is one at once. It overtakes nobody who waits for one."""
        ...

    def on_room(self, kind: PermitKind, call: Callable[[], None]) -> None:
        """Call once, as soon as there is a permit of that kind to be had. The same call is noted once."""
        ...

    def extra(self, kind: PermitKind) -> int:
        """How many more streams than usual the long way to the host is worth."""
        ...

    def match(self, extra: int) -> None:
        """The other side of copies is worth so many more streams than usual. Each is only as fast as over
        there, so there may be so many more here, as far as the limits that were set allow."""
        ...


class Limited(Protocol):
    """A Source or a Sink at a host that limits what is under way there."""

    @property
    def limiter(self) -> Limiter:
        """The limiter of its host."""
        ...

    def with_permit(self, permit: Permit) -> Self:
        """The same place, for one step: what it does at the host it does under this permit."""
        ...


def limiter_of(place: object) -> Limiter | None:
    """The limiter of a Source or a Sink, if that is `Limited`. Asked for every blob: `isinstance` would cost
    as much as the rest of a step."""
    return cast("Limiter | None", getattr(place, "limiter", None))


def waits_for_permits(place: object, limiter: Limiter) -> bool:
    """Whether a Source or a Sink waits for permits although it is handed one of that limiter: it is another's
    place, or says by an attribute of this name that it goes to hosts of which nobody else knows."""
    own = limiter_of(place)
    return own is not limiter if own is not None else bool(getattr(place, "waits_for_permits", False))


def under(permit: Permit, place: Place, limiter: Limiter) -> Place:
    """The place as it works under a permit of that limiter; as it is, if the limiter is not its own."""
    if limiter_of(place) is not limiter:
        return place
    return cast("Place", cast("Limited", place).with_permit(permit))


def try_acquire_all(needs: Iterable[tuple[Limiter, PermitKind]]) -> list[Permit] | None:
    """All of the permits in one go, in their order; None, and nothing is held, if one is not to be had."""
    granted: list[Permit] = []
    for limiter, kind in needs:
        permit = limiter.try_acquire(kind)
        if permit is None:
            for each in granted:
                each.release()
            return None
        granted.append(permit)
    return granted


class FixedLimiter:
    """The limiter of a host that has no limits of its own: files, or a Source or Sink of the caller's.

    `streams`: blobs at once each way. Only the last byte counts there, so a downgraded permit is released,
    unless blobs are to come one at a time.
    """

    def __init__(self, streams: int = 8, requests: int = MAX_REQUESTS) -> None:
        self._streams = streams
        self._limits = {
            PermitKind.REQUEST: requests,
            PermitKind.READ: streams,
            PermitKind.WRITE: streams,
        }
        self._used: Counter[PermitKind] = Counter()
        self._calls: dict[PermitKind, set[Callable[[], None]]] = {kind: set() for kind in PermitKind}

    def limit(self, kind: PermitKind) -> int:
        return self._limits[kind]

    def admits(self, kind: PermitKind) -> bool:
        return self._used[kind] < self._limits[kind]

    def try_acquire(self, kind: PermitKind) -> Permit | None:
        if not self.admits(kind):
            return None
        self._used[kind] += 1
        return _FixedPermit(self, kind)

    def on_room(self, kind: PermitKind, call: Callable[[], None]) -> None:
        self._calls[kind].add(call)

    def extra(self, kind: PermitKind) -> int:
        return 0

    def match(self, extra: int) -> None:
        if self._streams > 1:  # one by one is how some places work
            self._limits[PermitKind.READ] = self._limits[PermitKind.WRITE] = self._streams + extra

    def released(self, kind: PermitKind) -> None:
        """Take a permit back."""
        self._used[kind] -= 1
        calls, self._calls[kind] = self._calls[kind], set()
        for call in calls:
            call()


class _FixedPermit:
    def __init__(self, limiter: FixedLimiter, kind: PermitKind) -> None:
        self._limiter = limiter
        self._kind: PermitKind | None = kind

    @property
    def kind(self) -> PermitKind | None:
        return self._kind

    def downgrade(self) -> None:
        if self._kind is PermitKind.WRITE and self._limiter.limit(PermitKind.WRITE) > 1:
            self.release()

    def release(self) -> None:
        if self._kind is not None:
            kind, self._kind = self._kind, None
            self._limiter.released(kind)


class FixedLimiters:
    """One `FixedLimiter` a host, made when it is first asked for."""

    def __init__(self, streams: int = 8, requests: int = MAX_REQUESTS) -> None:
        self._streams = streams
        self._requests = requests
        self._made: dict[str, FixedLimiter] = {}

    def at(self, host: str) -> FixedLimiter:
        if host not in self._made:
            self._made[host] = FixedLimiter(self._streams, self._requests)
        return self._made[host]
