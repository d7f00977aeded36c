"""A row of the fault tables: what is done to a run, and all that is to come of it. And how a row is played.

Two images in two repositories share two layers, so a quiet run copies, mounts and puts; what it asks is
`QUIET`, and a row says what it asks `more` than that. Every request that is in neither is a failure, and so
is every one that lacks. Then the run is made again, with the faults as they are by then.

The client's clock is moved by its sleeping alone, so no back-off takes time. And a MiB is a KiB here: the
sizes at which uploads are done otherwise are those of the sources, divided by 1024, so that small blobs show
it.

Requests are told in words, those to the source left of the bar: `GET+4 blob+8 | POST+8 PUT+8`.

    HEAD, GET, manifest   a manifest asked about, read, put       tags   the list of tags
    has, blob             a blob asked about, read                token  a token
    POST, PATCH, PUT      an upload opened, fed, completed        mount  a mount
    status, cancel        an upload asked about, deleted
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
import pytest

from blobflow import composition
from blobflow.content import streams
from blobflow.engine.execution import Run
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy
from blobflow.engine.services import Services
from blobflow.engine.transfer import retry
from blobflow.errors import BlobflowError
from blobflow.oci import Reference, parse_digest, parse_manifest
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.server.registry import SparsePolicy
from blobflow.settings import Settings
from blobflow.transports.registry import HostSettings, Profile, Registries
from blobflow.transports.registry.capabilities import profiles
from blobflow.transports.registry.http import upload_body
from blobflow.transports.registry.ranges import line as range_line
from blobflow.transports.registry.ranges import stream as range_stream
from blobflow.transports.registry.uploads import pusher, sender, sessions
from blobflow.transports.store import Store
from blobflow.transports.store import downloads as partials
from tests.fakes.registry import Clock
from tests.library import mirror
from tests.scenarios.child_process import wrong_blobs
from tests.scenarios.registries import blobs_of, fill
from tools.registry.faulty import Fault, JournallingRegistry, RedirectTo, Slow, journalling
from tools.registry.journal import Exchange

SAMPLE = sample_set(11, images=2, architectures=("amd64",), layer_size=96 * 1024)
FIRST, SECOND = (name.partition(":")[0] for name in SAMPLE.images)
# The largest blob, and a manifest, both of the first image alone.
OWN = max(
    blobs_of(SAMPLE, next(iter(SAMPLE.images))) - blobs_of(SAMPLE, [*SAMPLE.images][1]),
    key=lambda digest: len(SAMPLE.blobs[digest]),
)
INDEX = next(iter(SAMPLE.images.values()))
CHILD = parse_manifest(INDEX.raw, INDEX.media_type).manifests[0].digest

# What faults are about: the blob, its upload, the first image's tag, and every upload.
BLOB = f"^/v2/{FIRST}/blobs/{OWN}"
SLOW = 12 * 1024  # bytes a second of a connection, where blobs are to be read by ranges
COMMIT = f"digest={OWN}"
TAG = f"^/v2/{FIRST}/manifests/1"
UPLOADS = "/blobs/uploads/"
STREAM = Profile("stream", ("stream", "chunked"), chunk_bytes=32 * 1024, least_chunk_bytes=1024)
CHUNKED = Profile("chunked", ("chunked",), chunk_bytes=32 * 1024, least_chunk_bytes=1024)

QUIET = "HEAD+4 GET+4 blob+8 | HEAD+4 tags+2 POST+8 PUT+8 mount+2 manifest+4"
QUIET_STREAM = "HEAD+4 GET+4 blob+8 | HEAD+4 tags+2 POST+8 PATCH+8 PUT+8 mount+2 manifest+4"
QUIET_CHUNKED = "HEAD+4 GET+4 blob+8 | HEAD+4 tags+2 POST+8 PATCH+15 PUT+8 mount+2 manifest+4"
# A token for each repository and one for the mounts; the first two requests find out that they are wanted.
QUIET_BEARER = "HEAD+4 GET+4 blob+8 | HEAD+6 token+3 tags+2 POST+8 PUT+8 mount+2 manifest+4"


class Failure(msgspec.Struct, frozen=True):
    """How `images` of the two failed, all in the same way: the error's class, the side that it blames, the
    exit code of a verb about one image."""

    error: str
    side: str
    exit_code: int
    images: int = 2


class Row(msgspec.Struct, frozen=True):
    """What is wrong at each side, and what is to come of it.

    Every fault of `source` and `target` has to strike; those of `nature`, the target's, may.
    `more`: requests beyond those of `quiet`, by side and kind; None: that depends on timing, and only the
    outcome counts. `waits`: seconds of the longest back-off; None: whatever. `fails`: None: both images
    arrive. `heals`: whether the run's repetition is well, the faults being as they are by then. `profile`:
    what is known of the target. `sparse`: what the target makes of sparse indexes.
    """

    name: str
    source: tuple[Fault, ...] = ()
    target: tuple[Fault, ...] = ()
    nature: tuple[Fault, ...] = ()
    more: str | None = ""
    quiet: str = QUIET
    fails: Failure | None = None
    heals: bool = True
    waits: float | None = None
    profile: Profile | None = None
    sparse: SparsePolicy = "indexes"

    def __str__(self) -> str:
        return self.name.replace(" ", "-").replace(",", "")


class Stage:
    """The registries of one row, and the runs over them."""

    def __init__(
        self,
        row: Row,
        folder: Path,
        source: JournallingRegistry,
        target: JournallingRegistry,
        *,
        concurrency: int = 1,
    ) -> None:
        self.row = row
        self.source, self.target = source, target
        self.clock = Clock()
        hosts = {target.host: HostSettings(profile=row.profile)} if row.profile else {}
        self.settings = Settings(cache_dir=folder / "cache", concurrency=concurrency, hosts=hosts)

    @property
    def pairs(self) -> list[Pair]:
        found = []
        for name in SAMPLE.images:
            repository, _, tag = name.rpartition(":")
            source, target = (Reference(each.host, repository, tag) for each in (self.source, self.target))
            found.append(Pair(source, target))
        return found

    async def mirror(self) -> Mapping[Pair, BlobflowError]:
        """One run; why images failed."""
        for registry in (self.source, self.target):
            registry.journal.clear()
        runs: list[Run] = []
        policy = Policy(referrers="off")  # the rows count what an image costs by itself
        report = await mirror(self.pairs, self.settings, policy, on_start=runs.append)
        (run,) = runs
        assert report.ok is not bool(run.errors)
        for registry in (self.source, self.target):
            await registry.journal.until(lambda journal: all(map(_over, journal)))
        return run.errors

    def asked(self) -> Counter[tuple[str, str]]:
        """The requests of the last run, by side and word."""
        sides = (("source", self.source), ("target", self.target))
        return Counter((side, word_of(each)) for side, registry in sides for each in registry.journal)

    def struck(self) -> set[str]:
        """The acts that took effect."""
        return {
            act for registry in (self.source, self.target) for each in registry.journal for act in each.struck
        }

    def untrue(self) -> list[str]:
        """What can be seen at the target and is not as at the source."""
        return untrue_tags(SAMPLE, self.target.store) + [str(p) for p in wrong_blobs(self.target.store.root)]

    def arrived(self) -> int:
        return sum(tag_at(self.target.store, name) == index.digest for name, index in SAMPLE.images.items())


_WORDS = {
    "manifests": {"HEAD": "HEAD", "GET": "GET", "PUT": "manifest"},
    "blobs": {"HEAD": "has", "GET": "blob"},
    "blobs/uploads": {"POST": "POST", "PATCH": "PATCH", "PUT": "PUT", "GET": "status", "DELETE": "cancel"},
    "tags": {"GET": "tags"},
    "token": {"GET": "token"},
}
_ENDPOINT = re.compile(r"/(manifests|blobs/uploads|blobs|tags|token)\b")


def word_of(exchange: Exchange) -> str:
    """What a request asks for, as the rows say it."""
    if "mount" in exchange.query:
        return "mount"
    found = _ENDPOINT.search(exchange.path)
    assert found is not None, exchange.path
    return _WORDS[found[1]][exchange.method]


def _never_ends(exchange: Exchange) -> bool:
    return not {"Stall", "Mute"}.isdisjoint(exchange.struck)


def _over(exchange: Exchange) -> bool:
    return exchange.ended is not None or _never_ends(exchange)


def tag_at(store: Store, name: str) -> str | None:
    repository, _, tag = name.rpartition(":")
    return store.repositories.resolve(repository, tag)


def untrue_tags(images: SampleSet, store: Store) -> list[str]:
    """The tags of a target that name something else than the source's, or something that is not whole."""
    untrue = []
    for name, index in images.images.items():
        repository, _, tag = name.rpartition(":")
        named = store.repositories.resolve(repository, tag)
        children = parse_manifest(index.raw, index.media_type).manifests
        needed = {index.digest, *(child.digest for child in children), *blobs_of(images, name)}
        missing = [digest for digest in map(parse_digest, needed) if not visible(store, repository, digest)]
        if named is not None and (named != index.digest or missing):
            untrue.append(f"{name} names {named}, and {len(missing)} of {index.digest} are missing")
    return untrue


def visible(store: Store, repository: str, digest: str) -> bool:
    known = parse_digest(digest)
    return (
        store.repositories.media_type_of(repository, known) is not None
        and store.blobs.size_of(known) is not None
    )


class Outcome(msgspec.Struct, frozen=True):
    """What came of a row, in the row's own words. `untrue`: what was to be seen at the target and wrong."""

    fails: Failure | None
    more: str | None
    heals: bool
    waits: float | None
    untrue: tuple[str, ...] = ()


def expected(row: Row) -> Outcome:
    return Outcome(row.fails, row.more, row.heals, row.waits)


def by_ranges(row: Row) -> Row:
    """The row at a source where its blob comes slowly, so that it is read by ranges, and what is done to a
    blob once is done to these. How often what is asked depends on timing there."""
    slow = Fault("GET", BLOB, times=0, act=Slow(SLOW, each=True))
    source = [
        msgspec.structs.replace(each, nth=each.nth + 1) if each.pattern == BLOB and each.times else each
        for each in row.source
    ]
    return msgspec.structs.replace(row, source=(*source, slow), more=None, waits=None)


async def play(
    row: Row, filled: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *, ranges: bool = False
) -> Outcome:
    """Run twice with the row's faults; what came of it, as far as the row speaks of it. `ranges`: on the
    loop's clock, with so many connections that blobs are read by ranges."""
    async with AsyncExitStack() as stack:
        elsewhere = await stack.enter_async_context(journalling(filled))
        source, target = [
            await stack.enter_async_context(
                journalling(root, _settled(faults, elsewhere), sparse=row.sparse, clock=_ticking())
            )
            for root, faults in ((filled, row.source), (folder / "target", (*row.target, *row.nature)))
        ]
        stage = Stage(row, folder, source, target, concurrency=8 if ranges else 1)
        _on_its_clock(None if ranges else stage.clock, monkeypatch)
        errors = await stage.mirror()
        struck = {type(each.act).__name__ for each in (*row.source, *row.target)}
        assert stage.struck() >= struck - {"Slow"} or ranges
        if ranges and len(row.source) == 1 and not row.target:  # nothing is wrong
            assert any("Range" in each.asked for each in source.journal)
        untrue = stage.untrue()
        assert stage.arrived() == 2 - len(errors)
        more, waits = _difference(stage.asked(), row.quiet), max(stage.clock.slept, default=0.0)
        again = await stage.mirror()
        assert not [each for each in elsewhere.journal if each.authorized]
        assert errors or not [
            each for each in target.journal if each.method == "PUT" and not _never_ends(each)
        ]
        return Outcome(
            fails=_failure(errors.values()),
            more=None if row.more is None else more,
            heals=not again,
            waits=row.waits if row.waits is None or abs(waits - row.waits) < 1.5 else waits,
            untrue=(*untrue, *stage.untrue()),
        )


def _failure(errors: Collection[BlobflowError]) -> Failure | None:
    """How the images failed, which have to have done so alike."""
    kinds = {(type(each).__name__, each.side or "", each.exit_code) for each in errors}
    if not kinds:
        return None
    ((name, side, exit_code),) = kinds
    return Failure(name, side, exit_code, len(errors))


def _difference(asked: Counter[tuple[str, str]], quiet: str) -> str:
    """What was asked more often than in a quiet run, and what less often (negative), in words."""
    usual: Counter[tuple[str, str]] = Counter()
    for side, words in zip(("source", "target"), quiet.split("|"), strict=True):
        usual.update(
            {(side, word): int(count) for word, _, count in (w.partition("+") for w in words.split())}
        )
    sides = {"source": "", "target": ""}
    for side, word in sorted({*asked, *usual}):
        if change := asked[side, word] - usual[side, word]:
            sides[side] += f"{word}{change:+d} "
    return f"{sides['source']}| {sides['target']}".strip() if any(sides.values()) else ""


def _settled(faults: tuple[Fault, ...], elsewhere: JournallingRegistry) -> list[Fault]:
    """The faults, with `{elsewhere}` in the URLs of redirects replaced by another registry's."""
    settled = []
    for fault in faults:
        act = fault.act
        if isinstance(act, RedirectTo):
            act = RedirectTo(act.url.replace("{elsewhere}", elsewhere.url), act.status)
        settled.append(msgspec.structs.replace(fault, act=act))
    return settled


def _ticking() -> partial[float]:
    """A registry's clock, by which every look at it is a second later."""
    seconds: Iterator[float] = iter(map(float, range(10**9)))
    return partial(next, seconds)


def _on_its_clock(clock: Clock | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs go by a clock that only sleeping moves (None: by that of the loop), with a MiB of 1024
    bytes."""
    sleep, now = (asyncio.sleep, asyncio.get_running_loop().time) if clock is None else (clock.sleep, clock)
    on_it = partial(Registries, sleep=sleep, clock=now, jitter=lambda: 0.5)
    monkeypatch.setattr(composition, "Registries", on_it)
    monkeypatch.setattr(composition, "Services", partial(Services, sleep=sleep, random=lambda: 0.5))
    monkeypatch.setattr(upload_body, "SLOWEST", 1024**3)
    monkeypatch.setattr(range_line, "BUSY", math.inf)  # the registries are in this process
    monkeypatch.setattr(streams, "SMALL_BLOB", 0)  # what is large is played by blobs of 10 KiB
    for room, name in _IN_MIB:
        monkeypatch.setattr(room, name, getattr(room, name) // 1024)


_IN_MIB = (
    (sessions, "LEAST_CHUNK"),
    (retry, "FRUITFUL"),
    (profiles, "CHUNKED_FROM"),
    (profiles, "WORTHWHILE_CHUNK_BYTES"),
    (pusher, "RESUMED_FROM"),
    (sender, "OPEN_BESIDE_UP_TO"),
    (sender, "JOURNALED_FROM"),
    (partials, "KEPT_FROM"),
    (range_stream, "LEAST_RANGE"),
    (range_stream, "MOST_RANGE"),
)


def scaled(profile: Profile) -> Profile:
    """The profile, with a MiB of 1024 bytes."""
    return msgspec.structs.replace(
        profile,
        single_bytes=profile.single_bytes // 1024,
        chunk_bytes=profile.chunk_bytes // 1024,
        least_chunk_bytes=profile.least_chunk_bytes // 1024,
    )


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the images, for registries that only read it."""
    folder = tmp_path_factory.mktemp("filled")
    store = Store.open(folder)
    fill(store, SAMPLE)
    store.close()
    return folder
