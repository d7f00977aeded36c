"""Composition: the flow on one page. What the command line and library users call.

    pairs ─► resolve ─► survey ─► plan ─► transfer ─► report

Here, and only here, the engine meets the transports.
"""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, get_args

import msgspec

from blobflow import __version__
from blobflow.content import Cache, Journal, NullJournal, Sink, Site, Source
from blobflow.engine.audit import doubt
from blobflow.engine.bodies import blame
from blobflow.engine.documents import Documents
from blobflow.engine.execution import Execution
from blobflow.engine.flow import KEEP_GOING, LANE, Planned, Policy, Run
from blobflow.engine.lane import Lane
from blobflow.engine.plan import Pair, site_of
from blobflow.engine.report import Report
from blobflow.engine.resolve import Reader, read_graph, resolve_roots
from blobflow.engine.saved import SavedPlan
from blobflow.engine.schedule import Limits
from blobflow.engine.shape import Shapes, choices_of, shape_pairs
from blobflow.engine.survey import Targets, survey_tags
from blobflow.engine.transfer import World
from blobflow.engine.verify import Level, Verification
from blobflow.environment import from_environment, settings_for
from blobflow.errors import BlobflowError, InvalidConfig, StorageError
from blobflow.events import Meter, Observer, PhaseStarted, ignore
from blobflow.oci import Descriptor, Digest, Manifest, Reference
from blobflow.oci.choice import Choice
from blobflow.oci.location import DOCKER_ARCHIVE, transport_of
from blobflow.oci.media import CompressMode
from blobflow.places import MadeOnce, Places
from blobflow.settings import Settings as Settings
from blobflow.settings import access_to, logins_of
from blobflow.transports.registry import Credentials, HostSettings, Registries
from blobflow.transports.registry.probe import LARGEST, Findings, probe_host
from blobflow.transports.store import (
    KeepsAll,
    MayDoWithout,
    Store,
    StoreAside,
    StoreCache,
    StoreJournal,
    room_in,
)
from blobflow.transports.store.keeping import gc

if TYPE_CHECKING:
    from blobflow.transports.local import LocalPlaces

NO_PLACES = Places()


class Inspection(msgspec.Struct, frozen=True):
    """A reference's manifest and, if it is an index, the manifests under it that are there.

    The root is whole. Of the others those are lean (without `raw` and annotations) that would make the whole
    too much for memory, see `engine.documents`.
    """

    reference: Reference
    root: Manifest
    manifests: tuple[Manifest, ...]

    @property
    def absent(self) -> frozenset[Digest]:
        """What indexes list that is not there: they are sparse."""
        there = {manifest.descriptor.digest for manifest in self.manifests}
        listed = {child.digest for each in (self.root, *self.manifests) for child in each.manifests}
        return frozenset(listed - there)


async def mirror(
    pairs: Sequence[Pair],
    settings: Settings | None = None,
    policy: Policy = KEEP_GOING,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    run: Run | None = None,
    places: Places = NO_PLACES,
) -> Report:
    """Bring every pair's image to its target and say what became of each.

    Without `settings` those of this machine hold, as on the command line: see `blobflow.from_environment`.
    `places`: hosts with a Source or a Sink of the caller's own. May run in any thread, on any event loop, and
    several times at once.

    Failures of images are in the report, not raised; what is raised concerns the whole run (StorageError: no
    store). On cancel, what is under way is taken back or journaled before CancelledError goes on; a `Run` of
    the caller's own can be asked for its report also then.
    """
    meter = meter or Meter()
    run = run or Run(pairs, policy, observe=observer, meter=meter)
    settings = settings_for(settings, pairs)
    async with opened(settings, observer, meter, places=places) as (world, store):
        report = await run.go(world)
        await tidy(store, settings)
        return report


async def verify_run(
    pairs: Sequence[Pair],
    level: Level,
    settings: Settings | None = None,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    places: Places = NO_PLACES,
) -> dict[Pair, BlobflowError | None]:
    """Ask every pair's target whether it is what the source names now, as closely as `level` says.

    Nothing is changed anywhere. Returns for each pair, in the order given, what is wrong (None: nothing), and
    NoSuchPlatform also for one that may lack its platforms; a later run does not take what was found wrong
    for whole because an earlier one put it there.
    """
    settings = settings_for(settings, pairs)
    async with open_world(settings, observer, meter or Meter(), looking=True, places=places) as world:
        observer(PhaseStarted("resolve", len(pairs)))
        resolved = await resolve_roots((pair.source for pair in pairs), world.source_at, Lane(LANE))
        good = [pair for pair in pairs if pair.source in resolved.roots]
        observer(PhaseStarted("verify", len(good)))
        shapes = await _shapes_there(world, good, resolved.roots)
        roots = {pair: shape.root for pair, shape in shapes.of.items()}
        verification = Verification(
            world.source_at,
            world.sink_at,
            Lane(LANE),
            read_at_once=settings.concurrency,
            documents=world.documents,
        )
        images = {pair: shape.images for pair, shape in shapes.of.items()}
        wrong = await verification.check(roots, level, images)
        for pair in wrong:
            doubt(world.journal, pair, resolved.roots[pair.source].digest, roots[pair].digest)
    wrong = {**shapes.failures, **shapes.skipped, **wrong}
    return {pair: wrong.get(pair) or resolved.failures.get(pair.source) for pair in pairs}


async def _shapes_there(world: World, pairs: Sequence[Pair], roots: Mapping[Reference, Descriptor]) -> Shapes:
    """What each pair's target tag should name. Where only some platforms are wanted that may be a pruned
    index, and only reading the source's tells which."""
    lane = Lane(LANE)
    partial = [pair for pair in pairs if not pair.choice.whole]
    wanted = {pair.source: roots[pair.source] for pair in partial}
    read = await read_graph(
        wanted, world.source_at, lane, choices=choices_of(partial), documents=world.documents
    )
    tags = await survey_tags(partial, roots, Targets(partial, world.sink_at), NullJournal(), lane)
    failures = {p: read.failures[p.source] for p in partial if p.source in read.failures} | tags.failures
    graph = msgspec.structs.replace(read.graph, roots=dict(roots))
    shapes = shape_pairs((p for p in pairs if p not in failures), graph, tags.tags)
    return Shapes(shapes.of, {**failures, **shapes.failures}, shapes.skipped)


async def plan_run(
    pairs: Sequence[Pair],
    settings: Settings | None = None,
    policy: Policy = KEEP_GOING,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    places: Places = NO_PLACES,
) -> Planned:
    """Resolve, survey and plan; nothing is changed anywhere."""
    meter = meter or Meter()
    async with open_world(settings_for(settings, pairs), observer, meter, places=places) as world:
        planned = await Run(pairs, policy, observe=observer, meter=meter).plan(world)
        return msgspec.structs.replace(planned, policy=policy)


async def apply(
    saved: SavedPlan,
    settings: Settings | None = None,
    policy: Policy | None = None,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    run: Execution | None = None,
    places: Places = NO_PLACES,
) -> Report:
    """Carry out a saved plan: exactly its steps, but for those that the targets have by now.

    The sources are read by digest and asked for no tag, so nothing that moved there matters; what is gone
    from one fails its image. `policy`: in place of the plan's own. How bare layers are compressed is the
    plan's, whatever `settings` say. The rest, errors and cancellation are as with `mirror`.
    """
    meter = meter or Meter()
    run = run or Execution(saved, policy, observe=observer, meter=meter)
    settings = _as_planned(settings_for(settings, saved.pairs), saved)
    async with opened(settings, observer, meter, places=places) as (world, store):
        report = await run.go(world)
        await tidy(store, settings)
        return report


async def plan_rest(
    saved: SavedPlan,
    settings: Settings | None = None,
    policy: Policy | None = None,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    places: Places = NO_PLACES,
) -> Planned:
    """What `apply` would do now; nothing is changed anywhere."""
    meter = meter or Meter()
    settings = _as_planned(settings_for(settings, saved.pairs), saved)
    async with open_world(settings, observer, meter, places=places) as world:
        return await Execution(saved, policy, observe=observer, meter=meter).plan(world)


def _as_planned(settings: Settings, saved: SavedPlan) -> Settings:
    """The settings, with the plan's way to compress. Raises InvalidConfig for one that is not known."""
    if all(transport_of(pair.source.host) != DOCKER_ARCHIVE for pair in saved.pairs):
        return settings
    for mode in get_args(CompressMode):
        if mode == saved.compress:
            return msgspec.structs.replace(settings, compress=mode)
    raise InvalidConfig(f"the plan was made with --compress {saved.compress[:40]}, which is not known here")


async def inspect(
    reference: Reference,
    settings: Settings | None = None,
    *,
    alone: bool = False,
    observer: Observer = ignore,
    meter: Meter | None = None,
    places: Places = NO_PLACES,
) -> Inspection:
    """Read a reference's manifest and those under it, unless it is wanted `alone`. What a sparse index lists
    may lack. Raises what the source answers otherwise."""
    if settings is None:  # who only looks needs no store that can be written
        settings = msgspec.structs.replace(from_environment(sources={reference.host}), cache_dir=None)
    async with open_world(settings, observer, meter or Meter(), places=places) as world:
        with blame("source"):
            root = await world.source_at(site_of(reference)).resolve(reference.name)
        read = await read_graph(
            {reference: root},
            world.source_at,
            Lane(LANE),
            choices={reference: [Choice(index="only")]} if alone else {},
            sparse=True,
            reader=Reader(world.source_at, documents=world.documents, observe=world.observe),
        )
        for error in read.failures.values():
            raise error
        below = read.graph.closure(root.digest)[:-1]
        return Inspection(reference, read.graph.whole(root.digest), tuple(below))


async def try_login(
    host: str, login: Credentials, settings: Settings | None = None, *, observer: Observer = ignore
) -> bool:
    """Ask `host[:port]` to let us in with a login; False if it lets anybody in. Raises Unauthorized."""
    settings = settings_for(settings)
    own = msgspec.structs.replace(settings.hosts.get(host, HostSettings()), credentials=login)
    settings = msgspec.structs.replace(settings, hosts={**settings.hosts, host: own})
    async with open_registries(settings, observer) as registries:
        return await registries.enter(host)


@asynccontextmanager
async def open_registries(
    settings: Settings | None = None, observer: Observer = ignore, meter: Meter | None = None
) -> AsyncIterator[Registries]:
    """The registries alone, without a store and its memory of earlier runs, closed at the end."""
    used = settings_for(settings)
    logins = logins_of(used)
    registries = Registries(
        lambda host: access_to(host, used, logins),
        observer=observer,
        meter=meter,
        trace=used.trace,
        user_agent=f"blobflow/{__version__}",
    )
    try:
        yield registries
    finally:
        await registries.close()


async def probe(
    host: str,
    repository: str,
    settings: Settings | None = None,
    *,
    largest: int = LARGEST,
    observer: Observer = ignore,
) -> Findings:
    """Find out by trying what `host[:port]` takes; what that pushes to the repository is deleted again.

    `largest`: bytes of the largest request. Raises what the registry answers where nothing can be pushed.
    """
    settings = settings_for(settings)
    access = access_to(host, settings, logins_of(settings))
    return await probe_host(
        host,
        repository,
        access,
        largest=largest,
        observer=observer,
        trace=settings.trace,
        user_agent=f"blobflow/{__version__}",
    )


@asynccontextmanager
async def open_world(
    settings: Settings | None,
    observer: Observer,
    meter: Meter,
    *,
    looking: bool = False,
    places: Places = NO_PLACES,
) -> AsyncIterator[World]:
    """Everything outside the plan: registries, store and journal, closed at the end.

    `looking`: archives that are targets are read, not written.
    """
    async with opened(settings_for(settings), observer, meter, looking=looking, places=places) as (world, _):
        yield world


@asynccontextmanager
async def opened(
    settings: Settings,
    observer: Observer,
    meter: Meter,
    *,
    looking: bool = False,
    places: Places = NO_PLACES,
) -> AsyncIterator[tuple[World, Store]]:
    """As `open_world`, with the store that is behind it."""
    if settings.compress == "gzip-portable":
        from blobflow.transports.archive import codec

        codec(settings.compress)  # raises where it can't be had, before anything is moved
    with _open_store(settings, observer) as store:
        journal: Journal = NullJournal() if settings.cache == "off" else StoreJournal(store)
        logins = logins_of(settings)
        registries = Registries(
            lambda host: access_to(host, settings, logins),
            observer=observer,
            meter=meter,
            journal=journal,
            trace=settings.trace,
            user_agent=f"blobflow/{__version__}",
            bytes_per_second=settings.bytes_per_second,
        )

        def limits(host: str) -> Limits:
            if transport_of(host):
                return Limits(blobs=settings.concurrency)
            now = registries.room(host)
            return Limits(now.blobs, now.small) if now is not None else Limits(settings.concurrency)

        room = room_in(store, settings.cache_size)
        kept = StoreCache(store)
        cache: Cache = KeepsAll(store, kept, room) if settings.cache == "all" else MayDoWithout(store, kept)
        aside = StoreAside(store)
        local = _LocalWhenWanted(lambda make: make(store, meter, compress=settings.compress, looking=looking))
        own_sources, own_sinks = MadeOnce(places.sources), MadeOnce(places.sinks)

        def ours(site: Site) -> LocalPlaces | Registries:
            return local() if transport_of(site.registry) else registries

        def source_at(site: Site) -> Source:
            own = own_sources.at(site)
            return ours(site).source(site) if own is None else own

        def sink_at(site: Site) -> Sink:
            own = own_sinks.at(site)
            return ours(site).sink(site) if own is None else own

        world = World(
            source_at=source_at,
            sink_at=sink_at,
            cache=cache,
            journal=journal,
            observe=observer,
            meter=meter,
            limits=limits,
            allowance_of=registries.allowance,
            cache_mode=settings.cache,
            shelf_bytes=room,
            shelf_blobs=_most_on_shelf(),
            complete=local.complete,
            documents=Documents(aside),
        )
        try:
            yield world, store
        finally:
            local.close()
            aside.close()
            await registries.close()


def _most_on_shelf() -> int | None:
    """How many blobs may pass through the store at once: each has two files open, and half of those that this
    process may have are left for its connections."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if most == resource.RLIM_INFINITY else max(1, most // 4)


class _LocalWhenWanted:
    """Layouts and archives, with their codecs: imported and opened when the first of them is asked for."""

    def __init__(self, make: Callable[[type[LocalPlaces]], LocalPlaces]) -> None:
        self._make = make
        self._places: LocalPlaces | None = None

    def __call__(self) -> LocalPlaces:
        if self._places is None:
            from blobflow.transports.local import LocalPlaces

            self._places = self._make(LocalPlaces)
        return self._places

    async def complete(self) -> Mapping[Site, BlobflowError]:
        return {} if self._places is None else await self._places.complete()

    def close(self) -> None:
        if self._places is not None:
            self._places.close()


async def tidy(store: Store, settings: Settings) -> None:
    """Leave in the store what it may hold; that this failed fails no run."""
    try:
        await gc(store, settings.cache_size)
    except StorageError as error:
        store.tell_failed(error)


@contextmanager
def _open_store(settings: Settings, observer: Observer) -> Iterator[Store]:
    with ExitStack() as stack:
        root = settings.cache_dir
        if root is None or settings.cache == "off":
            root = Path(stack.enter_context(TemporaryDirectory(prefix="blobflow-"))) / "store"
        yield stack.enter_context(closing(Store.open(root, observer=observer)))
