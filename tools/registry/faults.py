"""Faults as values: which request is struck, and what then happens.

    Fault("GET", "/blobs/", nth=2, act=Reset(after=65536))

A fault strikes the requests of its method whose `path?query` its pattern (a regular expression) is found in:
the `nth` of them and the following, `times` in all. Each act is something that registries, or what stands in
front of them, have been seen to do.

Acts on a body work on the answer's for GET, and on the request's for POST, PATCH and PUT. They strike as soon
as `after` bytes of it have passed, so never in a body that is shorter.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import msgspec

# What is drawn to happen in a body happens within so many bytes of its start: small bodies are struck, too.
SHORT = 16 * 1024


class Act(msgspec.Struct, frozen=True, tag_field="act", tag=str.lower):
    """Root of the acts."""


class Hangup(Act, frozen=True):
    """The connection is reset when the request has arrived; nothing is done."""


class LoseAnswer(Act, frozen=True):
    """Everything is done, then the connection is reset before a byte of the answer."""


class Reset(Act, frozen=True):
    """The connection is reset in the middle of the body."""

    after: int = 0


class Truncate(Act, frozen=True):
    """The answer ends early and the connection is closed in good order; of a request, the rest gets lost."""

    after: int = 0


class Stall(Act, frozen=True):
    """No byte passes until `until` is set (None: until the client gives up). `reached` is set on the way."""

    after: int = 0
    until: asyncio.Event | None = None
    reached: asyncio.Event | None = None


class Mute(Act, frozen=True):
    """The request is never answered; nothing is done."""


class Corrupt(Act, frozen=True):
    """One bit of the byte at that offset is flipped."""

    at: int = 0


class Slow(Act, frozen=True):
    """All the bodies that the fault strikes share this many bytes a second; or `each` of them has so many."""

    bytes_per_second: float
    each: bool = False


class Crowded(Act, frozen=True):
    """Of the requests that the fault strikes, `slots` are let in at once; one more gets the status.

    `turns`: at least so many turns of the event loop, and at most three times as many, stays who was let in,
    so that requests overlap; seeded.
    """

    slots: int
    status: int = 429
    turns: int = 0


class Rationed(Act, frozen=True):
    """GETs of what the fault strikes are counted as Docker Hub counts those of manifests, and HEADs are free.

    `limit` of them in each window of `window` seconds, of which in the first `left` are left; then 429. Every
    answer tells what is left.
    """

    limit: int
    left: int
    window: int = 21600


class Status(Act, frozen=True):
    """Nothing is done; this is the answer."""

    code: int
    headers: Mapping[str, str] = {}
    body: str = ""


class Refuse(Act, frozen=True):
    """As `Status`, but only for bodies longer than `over` bytes, and with or without a Content-Range."""

    code: int
    over: int = -1
    ranged: bool | None = None
    body: str = ""


class Busy(Act, frozen=True):
    """Nothing is done; the client may come again in so many seconds, said as a number or as a date."""

    seconds: int
    code: int = 429
    dated: bool = False


class Sometimes(Act, frozen=True):
    """So many of a hundred of the requests that the fault strikes fail, each in a way drawn from the seed."""

    percent: float
    seed: int = 0


class Bearer(Act, frozen=True):
    """A token is wanted, which `/token` gives to anybody: good for `seconds` by the registry's own clock,
    whatever is `told` of that."""

    seconds: int = 300
    told: int = 300


class Ignore(Act, frozen=True):
    """A request header counts as not there."""

    name: str


class PlainErrors(Act, frozen=True):
    """What is not found is answered with this status in plain text, and not with the spec's JSON."""

    code: int = 404


class RedirectTo(Act, frozen=True):
    """A redirect; `{path}` in the URL stands for the request's path and query."""

    url: str
    status: int = 307


class ForgetSession(Act, frozen=True):
    """The upload session is gone before the request is handled."""


class ForgetBroken(Act, frozen=True):
    """An upload session in which a request broke is gone, as at distribution 2.8.2."""


class MovingLocation(Act, frozen=True):
    """Every answer about an upload session gives it a new Location, and only the newest is known."""


class DropHeader(Act, frozen=True):
    name: str


class SetHeader(Act, frozen=True):
    """A header says something else. A Content-Length that lies also closes the connection at the end."""

    name: str
    value: str


class Unsized(Act, frozen=True):
    """A body has no Content-Length but comes in chunks, and is so many bytes longer than it should be."""

    longer: int = 0


class RefuseMount(Act, frozen=True):
    """A mount is answered with this status; 202 opens a session, as the spec has it. `absent`: only one of a
    blob that is not at its origin."""

    status: int = 202
    absent: bool = False


class MountReferenced(Act, frozen=True):
    """Only blobs that a manifest of the origin refers to are mounted, as at ECR (containers-roadmap#2860)."""


class MountAnywhere(Act, frozen=True):
    """A mount without `from` finds the blob in whatever repository has it ([end-11], "automatic")."""


AnyAct = (
    Hangup
    | LoseAnswer
    | Reset
    | Truncate
    | Stall
    | Mute
    | Corrupt
    | Slow
    | Crowded
    | Rationed
    | Status
    | Refuse
    | Busy
    | Sometimes
    | Bearer
    | Ignore
    | PlainErrors
    | RedirectTo
    | ForgetSession
    | ForgetBroken
    | MovingLocation
    | DropHeader
    | SetHeader
    | Unsized
    | RefuseMount
    | MountReferenced
    | MountAnywhere
)


class Fault(msgspec.Struct, frozen=True):
    """Strike matching requests `nth` … `nth + times - 1`; `times` 0: all from `nth` on. Method "*": any."""

    method: str
    pattern: str
    nth: int = 1
    times: int = 1
    act: AnyAct = msgspec.field(default_factory=Hangup)

    def matches(self, method: str, target: str) -> bool:
        return self.method in ("*", method) and re.search(self.pattern, target) is not None


def parse_fault(text: str) -> Fault:
    """Read `METHOD PATTERN [nth=N] [times=N] ACT [key=value …]`, as in `GET /blobs/ nth=2 reset after=65536`.

    Raises ValueError with what is wrong.
    """
    words = text.split()
    if len(words) < 3 or not _is_pattern(words[1]):
        raise ValueError(f"{text!r} is not METHOD PATTERN [nth=N] [times=N] ACT [key=value …]")
    where: dict[str, Any] = {"method": words[0], "pattern": words[1]}
    act: dict[str, Any] = {}
    for word in words[2:]:
        key, equals, value = word.partition("=")
        if not equals:
            act["act"] = key.lower()
        elif act:
            act[key] = value
        else:
            where[key] = value
    try:
        return msgspec.convert({**where, "act": act}, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


_WITHOUT_A_BODY: tuple[Callable[[Random], AnyAct], ...] = (
    lambda random: Hangup(),
    lambda random: LoseAnswer(),
    lambda random: Status(random.choice((500, 502, 503, 504))),
    lambda random: Busy(random.randrange(3)),
)
# Most bodies are short: so the place of a break is drawn by its logarithm.
_MISHAPS: tuple[Callable[[Random], AnyAct], ...] = (
    *_WITHOUT_A_BODY,
    lambda random: Reset(after=int(SHORT ** random.random())),
    lambda random: Truncate(after=int(SHORT ** random.random())),
)


class Faults:
    """The faults in force, and how often each has matched."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._faults: list[Fault] = []
        self._matched: list[int] = []
        self._randoms: dict[int, Random] = {}
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)
        self._matched.append(0)

    def clear(self) -> None:
        self._faults.clear()
        self._matched.clear()
        self._randoms.clear()

    def draw(self, method: str, target: str) -> list[AnyAct]:
        """The acts that strike this request, in the order of the faults."""
        acts: list[AnyAct] = []
        for place, fault in enumerate(self._faults):
            if not fault.matches(method, target):
                continue
            self._matched[place] += 1
            turn = self._matched[place] - fault.nth
            if turn < 0 or (fault.times and turn >= fault.times):
                continue
            if isinstance(fault.act, Sometimes):
                acts += self._drawn(place, fault.act, method)
            else:
                acts.append(fault.act)
        return acts

    def _drawn(self, place: int, act: Sometimes, method: str) -> Iterator[AnyAct]:
        """Something that goes wrong, or most of the time nothing."""
        random = self._randoms.setdefault(place, Random(act.seed))
        if random.random() * 100 < act.percent:
            mishaps = _MISHAPS if method in ("GET", "PUT", "PATCH") else _WITHOUT_A_BODY
            yield random.choice(mishaps)(random)
