"""What a registry was asked, as frozen values, and the questions that tests put to them.

Tests count requests and bytes here, never time. An exchange is visible from the moment its request arrived,
so whoever got an answer finds it in the journal already.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import msgspec

_REQUEST_HEADERS = (
    "Accept",
    "Content-Length",
    "Content-Range",
    "Content-Type",
    "If-Range",
    "Range",
    "User-Agent",
)
_RESPONSE_HEADERS = ("Content-Length", "Content-Range", "Content-Type", "Location", "Range")
_SUCCESS = frozenset({200, 206})


class Exchange(msgspec.Struct, frozen=True):
    """One request and its answer.

    `status` is 0 as long as no answer has begun, and for good if none did. `received` and `sent` are body
    bytes that passed so far. `begun` and `ended` are places in the one order of all beginnings and ends
    (`ended` None: not yet). `struck` names the acts that took effect. `authorized`: the scheme of the
    Authorization header, never its content.
    """

    number: int
    method: str
    path: str
    query: Mapping[str, str]
    status: int
    received: int
    sent: int
    asked: Mapping[str, str]
    answered: Mapping[str, str]
    authorized: str
    struck: tuple[str, ...]
    begun: int
    ended: int | None

    @property
    def blob(self) -> tuple[str, str] | None:
        """Repository and digest, if the path is a blob's."""
        name, marker, digest = self.path.removeprefix("/v2/").rpartition("/blobs/")
        return (name, digest) if marker and ":" in digest else None

    @property
    def completes(self) -> tuple[str, str] | None:
        """Repository and digest of the upload that this request completed."""
        name, marker, _ = self.path.removeprefix("/v2/").partition("/blobs/uploads/")
        if not marker or self.status != 201 or "digest" not in self.query or "mount" in self.query:
            return None
        return name, self.query["digest"]

    @property
    def mounts(self) -> tuple[str, str] | None:
        """Repository and digest of the mount that this request made."""
        name, marker, _ = self.path.removeprefix("/v2/").partition("/blobs/uploads/")
        if not marker or self.status != 201 or self.method != "POST" or "mount" not in self.query:
            return None
        return name, self.query["mount"]


class LiveExchange:
    """An exchange under way. Owned by the request's task; `Journal` takes snapshots of it."""

    def __init__(
        self,
        number: int,
        begun: int,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
    ) -> None:
        self._number = number
        self._begun = begun
        self._method = method
        self._path = path
        self._query = MappingProxyType(dict(query))
        self._asked = _some(headers, _REQUEST_HEADERS)
        self._authorized = headers.get("Authorization", "").partition(" ")[0]
        self._answered: Mapping[str, str] = {}
        self.status = 0
        self.received = 0
        self.sent = 0
        self.struck: list[str] = []
        self.ended: int | None = None

    def answer(self, status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self._answered = _some(headers, _RESPONSE_HEADERS)

    def snapshot(self) -> Exchange:
        return Exchange(
            number=self._number,
            method=self._method,
            path=self._path,
            query=self._query,
            status=self.status,
            received=self.received,
            sent=self.sent,
            asked=self._asked,
            answered=self._answered,
            authorized=self._authorized,
            struck=tuple(self.struck),
            begun=self._begun,
            ended=self.ended,
        )


class Journal:
    """All exchanges of one registry, in the order in which their requests arrived."""

    def __init__(self, told: Callable[[Exchange], None] | None = None) -> None:
        """`told` gets each exchange once, when it has ended."""
        self._live: list[LiveExchange] = []
        self._ticks = 0
        self._told = told
        self._changed = asyncio.Event()

    def begin(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> LiveExchange:
        live = LiveExchange(len(self._live), self._tick(), method, path, query, headers)
        self._live.append(live)
        return live

    def end(self, live: LiveExchange) -> None:
        live.ended = self._tick()
        if self._told is not None:
            self._told(live.snapshot())

    def clear(self) -> None:
        """Forget what has been, as before a second run."""
        self._live = [live for live in self._live if live.ended is None]

    def __iter__(self) -> Iterator[Exchange]:
        return iter([live.snapshot() for live in self._live])

    def __len__(self) -> int:
        return len(self._live)

    def select(self, method: str = "", pattern: str = "", status: int | None = None) -> list[Exchange]:
        """The exchanges with that method ("": any), whose `path?query` the pattern is found in."""
        found = re.compile(pattern)
        return [
            each
            for each in self
            if (not method or each.method == method)
            and (status is None or each.status == status)
            and found.search(target(each.path, each.query))
        ]

    def count(self, method: str = "", pattern: str = "", status: int | None = None) -> int:
        return len(self.select(method, pattern, status))

    def reads(self, digest: str, repository: str | None = None) -> int:
        """How many GETs of the blob were answered 200 or 206."""
        return sum(1 for _ in self._reads(digest, repository))

    def bytes_out(self, digest: str) -> int:
        """Body bytes of the blob that went out, over all its GETs."""
        return sum(each.sent for each in self._reads(digest, None))

    def uploads(self, repository: str, digest: str) -> int:
        """How many uploads of the blob into the repository were completed (201 to a PUT or POST ?digest=)."""
        return sum(each.completes == (repository, digest) for each in self)

    def uploads_of(self, digest: str) -> int:
        """How many uploads of the blob were completed, into whatever repository."""
        return sum(each.completes is not None and each.completes[1] == digest for each in self)

    def bytes_in(self, digest: str) -> int:
        """Body bytes that completed uploads of the blob took, with all requests to their sessions."""
        paths = [each.path for each in self if each.completes is not None and each.completes[1] == digest]
        total = 0
        for each in self:
            single = each.method == "POST" and each.completes is not None and each.completes[1] == digest
            if single or (each.method != "POST" and each.path in paths):
                total += each.received
        return total

    def mounts(self, repository: str | None = None, digest: str | None = None) -> int:
        """How many mounts were answered 201."""
        made = [each.mounts for each in self if each.mounts is not None]
        return sum(
            (repository is None or name == repository) and (digest is None or blob == digest)
            for name, blob in made
        )

    def peak(self, method: str = "", pattern: str = "") -> int:
        """The most of these exchanges that were under way at one time."""
        steps = []
        for each in self.select(method, pattern):
            steps.append((each.begun, 1))
            if each.ended is not None:
                steps.append((each.ended, -1))
        now = most = 0
        for _, step in sorted(steps):
            now += step
            most = max(most, now)
        return most

    async def until(self, condition: Callable[[Journal], bool]) -> None:
        """Wait until `condition` holds; it is asked again at each beginning and end of an exchange."""
        while not condition(self):
            self._changed.clear()
            await self._changed.wait()

    def _reads(self, digest: str, repository: str | None) -> Iterator[Exchange]:
        for each in self:
            if each.method != "GET" or each.status not in _SUCCESS or each.blob is None:
                continue
            if each.blob[1] == digest and repository in (None, each.blob[0]):
                yield each

    def _tick(self) -> int:
        self._ticks += 1
        self._changed.set()
        return self._ticks


def target(path: str, query: Mapping[str, str]) -> str:
    """`path?query`, decoded: what patterns are searched in."""
    return f"{path}?{'&'.join(f'{key}={value}' for key, value in query.items())}" if query else path


def _some(headers: Mapping[str, str], names: tuple[str, ...]) -> Mapping[str, str]:
    return MappingProxyType({name: headers[name] for name in names if name in headers})
