"""Composition: the flow on one page. What the command line and library users call.

    pairs ─► resolve ─► survey ─► plan ─► transfer ─► report

Here, and only here, the engine meets the transports.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from blobflow import __version__
from blobflow.content import Cache, Journal, NullJournal, Site
from blobflow.engine.audit import doubt
from blobflow.engine.bodies import blame
from blobflow.engine.flow import KEEP_GOING, LANE, Planned, Policy, Run
from blobflow.engine.lane import Lane
from blobflow.engine.plan import Pair, Plan, site_of
from blobflow.engine.price import Price
from blobflow.engine.report import Report
from blobflow.engine.resolve import read_graph, resolve_roots
from blobflow.engine.road import CacheMode
from blobflow.engine.schedule import Limits
from blobflow.engine.shape import Shapes, choices_of, shape_pairs
from blobflow.engine.survey import Targets, survey_tags
from blobflow.engine.transfer import World
from blobflow.engine.verify import Level, Verification
from blobflow.errors import BlobflowError, InvalidConfig, StorageError
from blobflow.events import Meter, Observer, PhaseStarted, ignore
from blobflow.oci import Descriptor, Manifest, Reference
from blobflow.oci.location import transport_of
from blobflow.oci.reference import is_loopback
from blobflow.transports.registry import (
    DIRECT,
    Credentials,
    HostAccess,
    HostSettings,
    KeyPair,
    Logins,
    Proxies,
    Registries,
    Trust,
)
from blobflow.transports.registry.probe import LARGEST, Findings, probe_host
from blobflow.transports.registry.trust import context_of, trust_in
from blobflow.transports.store import KeepsAll, MayDoWithout, Store, StoreCache, StoreJournal, room_in
from blobflow.transports.store.keeping import gc

if TYPE_CHECKING:
    from blobflow.transports.archive import CompressMode
    from blobflow.transports.local import LocalPlaces

PLAN_VERSION = 1


class Settings(msgspec.Struct, frozen=True):
    """How the world is reached, and what a run may use.

    `plain_http`: hosts (`host[:port]`) that speak http; loopback hosts do anyway unless in `https`.
    `tls_verify`: False accepts any certificate, and http from a host that has no TLS. `concurrency`: blobs
    whose bytes move at once at a host. `cache`: see `engine.road`. `cache_dir`: the store's root; None: a
    temporary one that is gone after the run. `cache_size`: bytes of blobs that the store may hold; None: what
    it holds, and half of what is free on its disk. In mode `auto` blobs go through the store while it has
    room, and past it otherwise; in mode `all` a run that would keep more than there is room for is not begun
    (StorageError). What is over it after a run goes, the least recently used first. `docker_config`: the
    folder of docker's config.json, for credentials; `auth_files`: files of that format to look into after it.
    `ca` and `pairs`: certificates that are trusted, and shown, everywhere; `certs`: folders in the shape of
    docker's certs.d. `hosts`: what is to be different at one host. `bytes_per_second`: so many are read, and
    as many written, at most; 0: no limit. `trace`: every HTTP exchange becomes an event. `compress`: how bare
    layers of docker archives are compressed.
    """

    plain_http: frozenset[str] = frozenset()
    https: frozenset[str] = frozenset()
    tls_verify: bool = True
    concurrency: int = 8
    cache: CacheMode = "auto"
    cache_dir: Path | None = None
    cache_size: int | None = None
    docker_config: Path | None = None
    auth_files: tuple[Path, ...] = ()
    ca: tuple[Path, ...] = ()
    pairs: tuple[KeyPair, ...] = ()
    certs: tuple[Path, ...] = ()
    proxies: Proxies = DIRECT
    hosts: dict[str, HostSettings] = {}
    bytes_per_second: float = 0
    trace: bool = False
    compress: CompressMode = "gzip"


ANY_HOST = Settings()


class Inspection(msgspec.Struct, frozen=True):
    """A reference's manifest and, if it is an index, the manifests under it that could be read."""

    reference: Reference
    root: Manifest
    manifests: tuple[Manifest, ...]


async def mirror(
    pairs: Sequence[Pair],
    settings: Settings = ANY_HOST,
    policy: Policy = KEEP_GOING,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    run: Run | None = None,
) -> Report:
    """Bring every pair's image to its target and say what became of each.

    Failures of images are in the report, not raised; what is raised concerns the whole run (StorageError: no
    store). On cancel, what is under way is taken back or journaled before CancelledError goes on; a `Run` of
    the caller's own can be asked for its report also then.
    """
    meter = meter or Meter()
    run = run or Run(pairs, policy, observe=observer, meter=meter)
    async with opened(settings, observer, meter) as (world, store):
        report = await run.go(world)
        await tidy(store, settings)
        return report


async def verify_run(
    pairs: Sequence[Pair],
    level: Level,
    settings: Settings = ANY_HOST,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
) -> dict[Pair, BlobflowError | None]:
    """Ask every pair's target whether it is what the source names now, as closely as `level` says.

    Nothing is changed anywhere. Returns for each pair, in the order given, what is wrong (None: nothing); a
    later run does not take what was found wrong for whole because an earlier one put it there.
    """
    async with open_world(settings, observer, meter or Meter(), looking=True) as world:
        observer(PhaseStarted("resolve", len(pairs)))
        resolved = await resolve_roots((pair.source for pair in pairs), world.source_at, Lane(LANE))
        good = [pair for pair in pairs if pair.source in resolved.roots]
        observer(PhaseStarted("verify", len(good)))
        shapes = await _shapes_there(world, good, resolved.roots)
        roots = {pair: shape.root for pair, shape in shapes.of.items()}
        verification = Verification(
            world.source_at, world.sink_at, Lane(LANE), read_at_once=settings.concurrency
        )
        wrong = await verification.check(roots, level)
        for pair in wrong:
            doubt(world.journal, pair, resolved.roots[pair.source].digest, roots[pair].digest)
    wrong = {**shapes.failures, **wrong}
    return {pair: wrong.get(pair) or resolved.failures.get(pair.source) for pair in pairs}


async def _shapes_there(world: World, pairs: Sequence[Pair], roots: Mapping[Reference, Descriptor]) -> Shapes:
    """What each pair's target tag should name. Where only some platforms are wanted that may be a pruned
    index, and only reading the source's tells which."""
    lane = Lane(LANE)
    partial = [pair for pair in pairs if not pair.choice.whole]
    wanted = {pair.source: roots[pair.source] for pair in partial}
    read = await read_graph(wanted, world.source_at, lane, choices=choices_of(partial))
    tags = await survey_tags(partial, roots, Targets(partial, world.sink_at), NullJournal(), lane)
    failures = {p: read.failures[p.source] for p in partial if p.source in read.failures} | tags.failures
    graph = msgspec.structs.replace(read.graph, roots=dict(roots))
    shapes = shape_pairs((p for p in pairs if p not in failures), graph, tags.tags)
    return Shapes(shapes.of, {**failures, **shapes.failures})


async def plan_run(
    pairs: Sequence[Pair],
    settings: Settings = ANY_HOST,
    policy: Policy = KEEP_GOING,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
) -> Planned:
    """Resolve, survey and plan; nothing is changed anywhere."""
    meter = meter or Meter()
    async with open_world(settings, observer, meter) as world:
        return await Run(pairs, policy, observe=observer, meter=meter).plan(world)


class _SavedPlan(msgspec.Struct, frozen=True):
    """A plan file: the pairs with their digests pinned, and for a person the steps as they were planned."""

    version: int
    pairs: tuple[Pair, ...]
    price: Price
    plan: Plan


def save_plan(planned: Planned) -> bytes:
    """The plan as a file's content: a lock file for mirrors. Pairs that failed to plan are not in it.

    What is chosen of an image stays as it was chosen, and is chosen from the digest that the source had.
    """
    pinned = []
    for goal in planned.plan.goals:
        source, digest = goal.pair.source, planned.graph.roots[goal.pair.source].digest
        pinned.append(
            msgspec.structs.replace(goal.pair, source=msgspec.structs.replace(source, digest=digest))
        )
    saved = _SavedPlan(PLAN_VERSION, tuple(pinned), planned.price, planned.plan)
    return msgspec.json.format(msgspec.json.encode(saved), indent=1) + b"\n"


def load_plan(content: bytes, name: str) -> tuple[Pair, ...]:
    """The pairs of a saved plan, each source pinned to its digest; `mirror` runs them as saved.

    What is already at a target is skipped; content that vanished from its source fails its image.
    `name` is the file's, for messages. Raises InvalidConfig.
    """
    try:
        saved = msgspec.json.decode(content, type=_SavedPlan)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidConfig(f"{name} is not a plan saved by blobflow: {error}") from None
    if saved.version != PLAN_VERSION:
        raise InvalidConfig(
            f"{name} is a plan of version {saved.version}; this blobflow reads version {PLAN_VERSION}"
        )
    return saved.pairs


async def apply(
    pairs: Sequence[Pair],
    settings: Settings = ANY_HOST,
    policy: Policy = KEEP_GOING,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    run: Run | None = None,
) -> Report:
    """Run a saved plan's pinned pairs. As `mirror`; the sources are asked by digest, so no tag can move."""
    return await mirror(pairs, settings, policy, observer=observer, meter=meter, run=run)


async def inspect(
    reference: Reference,
    settings: Settings = ANY_HOST,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
) -> Inspection:
    """Read a reference's manifest and those under it. Raises what the source answers."""
    async with open_world(settings, observer, meter or Meter()) as world:
        with blame("source"):
            root = await world.source_at(site_of(reference)).resolve(reference.name)
        read = await read_graph({reference: root}, world.source_at, Lane(LANE))
        for error in read.failures.values():
            raise error
        closure = read.graph.closure(root.digest)
        return Inspection(reference, closure[-1], tuple(closure[:-1]))


async def try_login(
    host: str, login: Credentials, settings: Settings = ANY_HOST, *, observer: Observer = ignore
) -> bool:
    """Ask `host[:port]` to let us in with a login; False if it lets anybody in. Raises Unauthorized."""
    own = msgspec.structs.replace(settings.hosts.get(host, HostSettings()), credentials=login)
    settings = msgspec.structs.replace(settings, hosts={**settings.hosts, host: own})
    async with open_registries(settings, observer) as registries:
        return await registries.enter(host)


@asynccontextmanager
async def open_registries(
    settings: Settings, observer: Observer = ignore, meter: Meter | None = None
) -> AsyncIterator[Registries]:
    """The registries alone, without a store and its memory of earlier runs, closed at the end."""
    logins = logins_of(settings)
    registries = Registries(
        lambda host: access_to(host, settings, logins),
        observer=observer,
        meter=meter,
        trace=settings.trace,
        user_agent=f"blobflow/{__version__}",
    )
    try:
        yield registries
    finally:
        await registries.close()


async def probe(
    host: str,
    repository: str,
    settings: Settings = ANY_HOST,
    *,
    largest: int = LARGEST,
    observer: Observer = ignore,
) -> Findings:
    """Find out by trying what `host[:port]` takes; what that pushes to the repository is deleted again.

    `largest`: bytes of the largest request. Raises what the registry answers where nothing can be pushed.
    """
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
    settings: Settings, observer: Observer, meter: Meter, *, looking: bool = False
) -> AsyncIterator[World]:
    """Everything outside the plan: registries, store and journal, closed at the end.

    `looking`: archives that are targets are read, not written.
    """
    async with opened(settings, observer, meter, looking=looking) as (world, _):
        yield world


@asynccontextmanager
async def opened(
    settings: Settings, observer: Observer, meter: Meter, *, looking: bool = False
) -> AsyncIterator[tuple[World, Store]]:
    """As `open_world`, with the store that is behind it."""
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
        local = _LocalWhenWanted(
            lambda places: places(store, meter, compress=settings.compress, looking=looking)
        )
        world = World(
            source_at=lambda site: (local() if transport_of(site.registry) else registries).source(site),
            sink_at=lambda site: (local() if transport_of(site.registry) else registries).sink(site),
            cache=cache,
            journal=journal,
            observe=observer,
            meter=meter,
            limits=limits,
            allowance_of=registries.allowance,
            cache_mode=settings.cache,
            shelf_bytes=room,
            complete=local.complete,
        )
        try:
            yield world, store
        finally:
            local.close()
            await registries.close()


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


def logins_of(settings: Settings) -> Logins:
    """Where the logins of a run come from."""
    docker = (settings.docker_config / "config.json",) if settings.docker_config else ()
    return Logins((*docker, *settings.auth_files))


def access_to(host: str, settings: Settings, logins: Logins) -> HostAccess:
    """How `host[:port]` is reached. Raises InvalidConfig for a certificate that can't be used.

    Loopback hosts speak plain HTTP, unless TLS was spoken of: for the host itself, which then speaks it, or
    for every host, and then it is tried.
    """
    own = settings.hosts.get(host, HostSettings())
    verify = settings.tls_verify if own.verify is None else own.verify
    named = trust_in(settings.certs, host)
    trust = Trust(
        verify,
        ca=(*own.trust.ca, *settings.ca, *named.ca),
        pairs=(*settings.pairs, *own.trust.pairs, *named.pairs),
    )
    local = is_loopback(host) and not (host in settings.https or own.trust or named)
    plain = host in settings.plain_http or (local and not trust if own.http is None else own.http)
    return HostAccess(
        scheme="http" if plain else "https",
        tls=context_of(trust),
        tls_optional=not verify or (local and own.http is None),
        connections=own.connections or settings.concurrency,
        requests_per_second=own.requests_per_second,
        bytes_per_second=own.bytes_per_second,
        credentials=own.credentials or partial(logins.find, host),
        profile=own.profile,
        proxies=settings.proxies if own.proxies is None else own.proxies,
        mirrors=own.mirrors,
    )
