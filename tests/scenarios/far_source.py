"""A registry whose line carries little a connection, and a reader there: for tests of ranges.

Everything goes by the clock of the event loop, which may be one that jumps. Sizes are some hundredths of the
real ones: a range has `RANGE` bytes at most, and a connection brings `RATE` bytes a second.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blobflow.content import BlobReader, Site, Source, verified
from blobflow.engine.blob_readers import SourceReader
from blobflow.events import Event, Meter, RangeRead
from blobflow.oci import Descriptor
from blobflow.server.http.tls import tls_context
from blobflow.transports.registry import HostAccess, Registries
from blobflow.transports.registry.http import read_ahead
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.tls import TlsSettings, ssl_context_of
from blobflow.transports.registry.ranges import line, stream
from tests.fakes.registry import blob_of
from tools.certificates import Pair
from tools.registry.faulty import Fault, JournallingRegistry, Slow, journalling
from tools.registry.journal import Exchange

KIB = 1024
RANGE = 128 * KIB
RATE = 512 * KIB
CONNECTIONS = 8
CONTENT = random.Random(18).randbytes(40 * RANGE)


def small_sizes(monkeypatch: pytest.MonkeyPatch, *, ahead: int = 12 * RANGE) -> None:
    """Let ranges be small, and `ahead` bytes of all blobs be held."""
    monkeypatch.setattr(stream, "MOST_RANGE", RANGE)
    monkeypatch.setattr(stream, "LEAST_RANGE", RANGE // 4)
    monkeypatch.setattr(line, "BUSY", math.inf)  # the registries are in this process
    monkeypatch.setattr(read_ahead, "READ_AHEAD", ahead)
    monkeypatch.setattr(read_ahead, "LEAST_READ_AHEAD", RANGE)


class FarSource:
    """`registry`, with a blob in it, and what reads there."""

    def __init__(
        self, registry: JournallingRegistry, content: bytes, access: Callable[[str], HostAccess]
    ) -> None:
        self.registry = registry
        self.content = content
        self.blob = blob_of(content)
        self.meter = Meter()
        self.events: list[Event] = []
        clock = asyncio.get_running_loop().time
        self.registries = Registries(access, observer=self.events.append, meter=self.meter, clock=clock)

    def add(self, content: bytes) -> Descriptor:
        """One more blob."""
        blob = blob_of(content)
        self.registry.store.blobs.write_small(content, blob.digest)
        self.registry.store.repositories.add("app", blob.digest)
        return blob

    @property
    def source(self) -> Source:
        return self.registries.source(Site(self.registry.host, "app"))

    @property
    def client(self) -> HostClient:
        return self.registries.repository(Site(self.registry.host, "app"))._client

    def reader(self) -> BlobReader:
        """Reads the blob as the engine does: verified."""
        return SourceReader(self.source, self.blob)

    async def read(self, offset: int = 0, end: int | None = None, *, host: str = "") -> bytes:
        """The blob's bytes, verified if it is all of them; from another `host` if one is given."""
        source = self.registries.source(Site(host or self.registry.host, "app"))
        async with source.open(self.blob, offset, end) as opened:
            whole = offset == 0 and end is None
            stream = verified(opened, self.blob) if whole else opened
            return b"".join([bytes(chunk) async for chunk in stream])

    @property
    def gets(self) -> list[Exchange]:
        """The GETs of blobs so far."""
        return self.registry.journal.select("GET", "/blobs/")

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The bytes that were asked for by Range, from and to, in order."""
        asked = [each.asked["Range"].removeprefix("bytes=") for each in self.gets if "Range" in each.asked]
        return sorted((int(first), int(last) + 1) for first, _, last in (e.partition("-") for e in asked))

    @property
    def lanes(self) -> int:
        """The most ranges that were read at once."""
        return max((each.lane for each in self.range_reads), default=0)

    @property
    def range_reads(self) -> list[RangeRead]:
        return [each for each in self.events if isinstance(each, RangeRead)]


@asynccontextmanager
async def far_source(
    folder: Path,
    faults: Sequence[Fault] = (),
    *,
    rate: float = RATE,
    content: bytes = CONTENT,
    connections: int = CONNECTIONS,
    limit: float = 0,
    parallel_ranges: bool = True,
    tls: Pair | None = None,
    mirrors: Mapping[str, tuple[str, ...]] = {},
) -> AsyncIterator[FarSource]:
    """A source with `content` as a blob of the repository `app`; `rate` bytes a second for each connection;
    0: as fast as can be. `limit`: of ours, on all that is read. `tls`: a certificate, by which it speaks
    https. `mirrors` of hosts: `{far}` in them is the source."""
    clock = asyncio.get_running_loop().time
    slow = [Fault("GET", "/blobs/", times=0, act=Slow(rate, each=True))] if rate else []
    context = tls_context(tls.cert, tls.key) if tls else None
    async with journalling(folder / "far", [*faults, *slow], clock=clock, tls=context) as registry:

        def access(host: str) -> HostAccess:
            return HostAccess(
                scheme="https" if tls else "http",
                tls=ssl_context_of(TlsSettings(ca=(tls.cert,))) if tls else True,
                connections=connections,
                bytes_per_second=limit,
                parallel_ranges=parallel_ranges,
                mirrors=tuple(mirror.format(far=registry.host) for mirror in mirrors.get(host, ())),
            )

        far = FarSource(registry, content, access)
        far.add(content)
        try:
            yield far
        finally:
            await far.registries.close()
