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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import msgspec

from blobflow.content import Sleep


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


class Corrupt(Act, frozen=True):
    """One bit of the byte at that offset is flipped."""

    at: int = 0


class Slow(Act, frozen=True):
    """All the bodies that the fault strikes share this many bytes a second."""

    bytes_per_second: float


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


class RedirectTo(Act, frozen=True):
    """A redirect; `{path}` in the URL stands for the request's path and query."""

    url: str
    status: int = 307


class ForgetSession(Act, frozen=True):
    """The upload session is gone before the request is handled."""


class DropHeader(Act, frozen=True):
    name: str


class SetHeader(Act, frozen=True):
    """A header says something else. A Content-Length that lies also closes the connection at the end."""

    name: str
    value: str


class RefuseMount(Act, frozen=True):
    """A mount is answered with this status; 202 opens a session, as the spec has it."""

    status: int = 202


AnyAct = (
    Hangup
    | LoseAnswer
    | Reset
    | Truncate
    | Stall
    | Corrupt
    | Slow
    | Crowded
    | Rationed
    | Status
    | RedirectTo
    | ForgetSession
    | DropHeader
    | SetHeader
    | RefuseMount
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


class Pacing:
    """Keeps to the rates of the `Slow` acts: all bodies that one strikes share its bytes a second."""

    def __init__(self, clock: Callable[[], float], sleep: Sleep) -> None:
        """`clock` in seconds; `sleep` waits that many."""
        self._clock = clock
        self._sleep = sleep
        self._free_at: dict[int, float] = {}

    async def wait(self, act: Slow, size: int) -> None:
        """Return when `size` more bytes may pass. What was not used is not saved up."""
        now = self._clock()
        free_at = max(self._free_at.get(id(act), now), now) + size / act.bytes_per_second
        self._free_at[id(act)] = free_at
        await self._sleep(free_at - now)


class Crowds:
    """Who is let in by the `Crowded` acts."""

    def __init__(self) -> None:
        self._inside: Counter[int] = Counter()
        self._random = Random(0)

    @contextmanager
    def enter(self, act: Crowded) -> Iterator[bool]:
        """Be inside while in the block, if there is a slot: says whether there was."""
        free = self._inside[id(act)] < act.slots
        self._inside[id(act)] += free
        try:
            yield free
        finally:
            self._inside[id(act)] -= free

    async def stay(self, act: Crowded) -> None:
        """Take the time that a request takes there."""
        for _ in range(self._random.randint(act.turns, 3 * act.turns)):
            await asyncio.sleep(0)


class Rations:
    """What is left of the `Rationed` acts."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` in seconds."""
        self._clock = clock
        self._left: dict[int, int] = {}
        self._until: dict[int, float] = {}

    def take(self, act: Rationed, count: int) -> bool:
        """Take so many, if they are left."""
        now = self._clock()
        if now >= self._until.setdefault(id(act), now + act.window):
            self._left[id(act)], self._until[id(act)] = act.limit, now + act.window
        left = self._left.setdefault(id(act), act.left)
        if count > left:
            return False
        self._left[id(act)] = left - count
        return True

    def headers(self, act: Rationed) -> dict[str, str]:
        """What is left, as Docker Hub says it."""
        return {
            "ratelimit-limit": f"{act.limit};w={act.window}",
            "ratelimit-remaining": f"{self._left[id(act)]};w={act.window}",
            "docker-ratelimit-source": "192.0.2.1",
        }


class Faults:
    """The faults in force, and how often each has matched."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._faults = [*faults]
        self._matched = [0] * len(self._faults)

    def add(self, fault: Fault) -> None:
        self._faults.append(fault)
        self._matched.append(0)

    def clear(self) -> None:
        self._faults.clear()
        self._matched.clear()

    def draw(self, method: str, target: str) -> list[AnyAct]:
        """The acts that strike this request, in the order of the faults."""
        acts = []
        for place, fault in enumerate(self._faults):
            if not fault.matches(method, target):
                continue
            self._matched[place] += 1
            turn = self._matched[place] - fault.nth
            if turn >= 0 and (not fault.times or turn < fault.times):
                acts.append(fault.act)
        return acts
