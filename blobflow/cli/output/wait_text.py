"""What a run waits for, in words: one sentence for all that wait for the same. Pure.

On a terminal the sentences of the moment are drawn (`wait_sentences`). A log gets one at once when a wait of
several seconds begins, or when one without a known end has become that long, and then ever more rarely
(`WaitLog`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from blobflow.cli.output.units import count_text, one_line
from blobflow.errors import ConnectFailed, ConnectionLost, RegistryError, TimedOut
from blobflow.events import Waiting
from blobflow.waits import Wait, WaitKind

# Seconds. What is shorter is not worth a line of a log; a wait with a known end is told at once.
TOLD_FROM = 3.0
OPEN_TOLD_AFTER = 5.0
# Seconds from a line of a log to the next about the same: doubled each time, up to the last.
FIRST_REPEAT = 30.0
LAST_REPEAT = 300.0
# A next attempt is news, but not more often than so (seconds).
_NEWS = 2.0
# So long (seconds) a wait that is gone is remembered: one that comes and goes is told once.
_FORGOTTEN_AFTER = 60.0

# In the order in which they matter to who looks.
_ORDER: tuple[WaitKind, ...] = (
    "end",
    "quota",
    "rest",
    "retry",
    "lock",
    "login",
    "connect",
    "tls",
    "answer",
    "commit",
    "source-stall",
    "target-stall",
    "stall",
    "read",
    "work",
    "rate",
    "permit",
)
_RANKS = {kind: rank for rank, kind in enumerate(_ORDER)}


class WaitGroup(msgspec.Struct, frozen=True):
    """Waits of one kind for one host: `count` of them. `since` when the oldest has been going on, and `until`
    when the first ends that has an end; both as in `Wait`. `latest`: the one that began last."""

    latest: Wait
    count: int
    since: float
    until: float | None

    @property
    def key(self) -> tuple[WaitKind, str]:
        return self.latest.kind, self.latest.host

    @property
    def span(self) -> float:
        """How long it takes, in seconds; 0 where that is not known."""
        return 0.0 if self.until is None else self.until - self.latest.since


def group_waits(waits: Iterable[Wait]) -> list[WaitGroup]:
    """The waits by kind and host, in the order in which they matter. Who waits for a permit waits for what
    those wait for who have one, if that is known."""
    groups: dict[tuple[WaitKind, str], list[Wait]] = {}
    for wait in waits:
        if wait.kind in _RANKS:
            groups.setdefault((wait.kind, wait.host), []).append(wait)
    explained = {host for kind, host in groups if kind != "permit"}
    found = []
    for (kind, host), each in groups.items():
        if kind == "permit" and host in explained:
            continue
        ends = [wait.until for wait in each if wait.until is not None]
        latest = max(each, key=lambda wait: (wait.attempt, wait.since))
        since = min(wait.since for wait in each)
        found.append(WaitGroup(latest, len(each), since, min(ends, default=None)))
    return sorted(found, key=lambda group: (_RANKS[group.latest.kind], group.since))


def wait_sentences(
    waits: Iterable[Wait], now: float, *, least: float, most: int, known: float = 1.0
) -> list[str]:
    """A sentence for each group of waits that has lasted for `least` seconds, or takes `known` in all; at
    most `most` lines."""
    groups = [each for each in group_waits(waits) if now - each.since >= least or each.span >= known]
    lines = [one_line(sentence(group, now)) for group in groups[:most]]
    if len(groups) > most:
        others = len(groups) - most + 1
        lines[-1] = f"and {count_text(others, 'other wait')}"
    return lines


def sentence(group: WaitGroup, now: float) -> str:
    """What is waited for, and for how long: so far, or still."""
    return _SENTENCES[group.latest.kind](group, now)


def span_text(seconds: float) -> str:
    """Whole seconds, begun ones too: `20 s`, `1 min 20 s`, `2 h 5 min`."""
    whole = max(0, math.ceil(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _lasted(group: WaitGroup, now: float) -> str:
    return span_text(max(1, math.floor(now - group.since)))


def _failure(group: WaitGroup) -> str:
    """What was wrong, that there is another attempt at all."""
    error, host = group.latest.error, group.latest.host
    match error:
        case RegistryError(status=status) if status:
            return f"{host} answers {status}"
        case ConnectFailed():
            return f"no connection to {host}"
        case TimedOut():
            return f"{host} is silent"
        case ConnectionLost():
            return f"the connection to {host} broke"
        case None:
            return f"something at {host} failed"
        case _:
            return str(error)


def _retry(group: WaitGroup, now: float) -> str:
    left = 0.0 if group.until is None else group.until - now
    when = f"in {span_text(left)}" if left > 0 else "now"
    counted = f" ({group.latest.attempt} of {group.latest.attempts})" if group.latest.attempts else ""
    others = f"; {group.count} requests wait for that" if group.count > 1 else ""
    return f"{_failure(group)}, trying again {when}{counted}{others}"


def _quota(group: WaitGroup, now: float) -> str:
    left = span_text((group.until or now) - now)
    return f"{group.latest.host} lets no more manifests be read for now, asking again in {left}"


def _answer(group: WaitGroup, now: float) -> str:
    what = f"{group.count} requests" if group.count > 1 else group.latest.what or "a request"
    return f"{group.latest.host} has not answered for {_lasted(group, now)}: {what}"


def _commit(group: WaitGroup, now: float) -> str:
    what = f"{group.count} blobs" if group.count > 1 else "a blob"
    return f"{group.latest.host} has all bytes of {what}, and has not answered for {_lasted(group, now)}"


def _stall(group: WaitGroup, now: float) -> str:
    wait = group.latest
    what = f"{group.count} blobs" if group.count > 1 else wait.what
    lasted = _lasted(group, now)
    match wait.kind:
        case "source-stall":
            return f"0 B/s for {lasted}: {wait.host} sends nothing of {what}"
        case "target-stall":
            return f"0 B/s for {lasted}: {wait.host} takes nothing of {what}"
        case _:
            return f"0 B/s for {lasted}: {what} to {wait.host}"


def _permit(group: WaitGroup, now: float) -> str:
    waiting = "1 request waits" if group.count == 1 else f"{group.count} requests wait"
    return f"{waiting} until earlier ones to {group.latest.host} have ended, for {_lasted(group, now)} now"


def _rate(group: WaitGroup, now: float) -> str:
    left = (group.until or now) - now
    lasting = f" for {span_text(left)}" if left > 0 else ""  # it ends now, or what a worker tells is late
    return f"held back{lasting} by the limit on bytes or requests a second for {group.latest.host}"


def _end(group: WaitGroup, now: float) -> str:
    most = f", for at most {span_text(group.until - now)}" if group.until is not None else ""
    return f"{group.latest.what}{most}; once more ends it at once"


def _plainly(words: str) -> Callable[[WaitGroup, float], str]:
    def told(group: WaitGroup, now: float) -> str:
        wait = group.latest
        return f"{words.format(host=wait.host, what=wait.what)}, for {_lasted(group, now)} now"

    return told


_SENTENCES: dict[WaitKind, Callable[[WaitGroup, float], str]] = {
    "end": _end,
    "quota": _quota,
    "rest": _retry,
    "retry": _retry,
    "lock": _plainly("another process has {host} locked"),
    "login": _plainly("asking files and credential helpers for the login at {host}"),
    "connect": _plainly("connecting to {host}"),
    "tls": _plainly("TLS handshake with {host}"),
    "answer": _answer,
    "commit": _commit,
    "source-stall": _stall,
    "target-stall": _stall,
    "stall": _stall,
    "read": _plainly("reading and hashing {host}"),
    "work": _plainly("{what}"),
    "rate": _rate,
    "permit": _permit,
}


class _Told(msgspec.Struct):
    """What a log was told of waits for one thing, and when."""

    at: float
    seen: float
    attempt: int
    repeat: float = FIRST_REPEAT


class WaitLog:
    """Decides which waits a log is told of, and when."""

    def __init__(self) -> None:
        self._told: dict[tuple[WaitKind, str], _Told] = {}

    def due(self, waits: Sequence[Wait], now: float) -> list[Waiting]:
        """What to say at this moment. To be asked about once a second, or more often."""
        found = []
        for group in group_waits(waits):
            if self._is_due(group, now):
                found.append(_waiting(group, now))
        for key in [key for key, told in self._told.items() if now - told.seen > _FORGOTTEN_AFTER]:
            del self._told[key]
        return found

    def _is_due(self, group: WaitGroup, now: float) -> bool:
        told = self._told.get(group.key)
        if told is not None:
            told.seen = now
        if group.span < TOLD_FROM and now - group.since < OPEN_TOLD_AFTER:
            return False
        attempt = group.latest.attempt
        if told is None:
            self._told[group.key] = _Told(now, now, attempt)
            return True
        if attempt > told.attempt and group.span >= TOLD_FROM and now - told.at >= _NEWS:
            told.at, told.attempt = now, attempt
            return True
        if now - told.at >= told.repeat:
            told.at, told.repeat = now, min(2 * told.repeat, LAST_REPEAT)
            return True
        return False


def _waiting(group: WaitGroup, now: float) -> Waiting:
    latest = group.latest
    return Waiting(
        kind=latest.kind,
        host=latest.host,
        what=latest.what,
        message=sentence(group, now),
        seconds=round(now - group.since, 1),
        left=None if group.until is None else round(max(0.0, group.until - now), 1),
        attempt=latest.attempt,
        attempts=latest.attempts,
        waiting=group.count,
    )
