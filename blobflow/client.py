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
from blobflow.custom_transports import CustomTransports, OncePerSite
from blobflow.engine.concurrency.bounded import BoundedRunner
from blobflow.engine.execution import KEEP_GOING, MAX_SMALL_REQUESTS, Planned, Policy, Run
from blobflow.engine.plan.desired import DesiredImages, build_desired_images, choices_of
from blobflow.engine.plan.steps import Pair
from blobflow.engine.results.report import Report
from blobflow.engine.saved.execution import SavedRun
from blobflow.engine.saved.plan import SavedPlan
from blobflow.engine.sources.manifests import ManifestBudget
from blobflow.engine.sources.reader import read_graph
from blobflow.engine.sources.roots import resolve_roots
from blobflow.engine.targets.audit import mark_doubtful
from blobflow.engine.targets.survey import TargetLookups, survey_tags
from blobflow.engine.targets.verification import Verification, VerifyLevel
from blobflow.engine.transfer.runner import Services
from blobflow.environment import settings_for
from blobflow.errors import BlobflowError, InvalidConfig, StorageError
from blobflow.events import Meter, Observer, PhaseStarted, ignore
from blobflow.oci import Descriptor, Reference
from blobflow.oci.local_reference import DOCKER_ARCHIVE, transport_of
from blobflow.oci.media import CompressMode
from blobflow.permits import FixedLimiters
from blobflow.settings import Settings as Settings
from blobflow.settings import host_access, logins_of
from blobflow.transports.registry import Credentials, HostSettings, Registries
from blobflow.transports.registry.probe.questions import LARGEST_REQUEST, ProbeResult, probe_host
from blobflow.transports.store import (
    BestEffortCache,
    SpillFile,
    Store,
    StoreCache,
    StoreJournal,
    StrictCache,
    available_capacity,
)
from blobflow.transports.store.gc import collect_garbage

if TYPE_CHECKING:
    from blobflow.transports.local import LocalTransports

NO_PLACES = CustomTransports()


async def mirror(
    pairs: Sequence[Pair],
    settings: Settings | None = None,
    policy: Policy = KEEP_GOING,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    run: Run | None = None,
    places: CustomTransports = NO_PLACES,
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
    async with opened(settings, observer, meter, places=places) as (services, store):
        report = await run.go(services)
        await tidy(store, settings)
        return report


async def verify_run(
    pairs: Sequence[Pair],
    level: VerifyLevel,
    settings: Settings | None = None,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    places: CustomTransports = NO_PLACES,
) -> dict[Pair, BlobflowError | None]:
    """Ask every pair's target whether it is what the source names now, as closely as `level` says.

    Nothing is changed anywhere. Returns for each pair, in the order given, what is wrong (None: nothing), and
    NoSuchPlatform also for one that may lack its platforms; a later run does not take what was found wrong
    for whole because an earlier one put it there.
    """
    settings = settings_for(settings, pairs)
    async with open_services(settings, observer, meter or Meter(), looking=True, places=places) as services:
        observer(PhaseStarted("resolve", len(pairs)))
        resolved = await resolve_roots(
            (pair.source for pair in pairs), services.source_at, BoundedRunner(MAX_SMALL_REQUESTS)
        )
        good = [pair for pair in pairs if pair.source in resolved.roots]
        observer(PhaseStarted("verify", len(good)))
        desired_images = await _shapes_there(services, good, resolved.roots)
        roots = {pair: desired.root for pair, desired in desired_images.of.items()}
        verification = Verification(
            services.source_at,
            services.sink_at,
            BoundedRunner(MAX_SMALL_REQUESTS),
            read_at_once=settings.concurrency,
            documents=services.documents,
        )
        images = {pair: desired.images for pair, desired in desired_images.of.items()}
        wrong = await verification.check(roots, level, images)
        for pair in wrong:
            mark_doubtful(services.journal, pair, resolved.roots[pair.source].digest, roots[pair].digest)
    wrong = {**desired_images.failures, **desired_images.skipped, **wrong}
    return {pair: wrong.get(pair) or resolved.failures.get(pair.source) for pair in pairs}


async def _shapes_there(
    services: Services, pairs: Sequence[Pair], roots: Mapping[Reference, Descriptor]
) -> DesiredImages:
    """What each pair's target tag should name. Where only some platforms are wanted that may be a pruned
    index, and only reading the source's tells which."""
    runner = BoundedRunner(MAX_SMALL_REQUESTS)
    partial = [pair for pair in pairs if not pair.choice.whole]
    wanted = {pair.source: roots[pair.source] for pair in partial}
    read = await read_graph(
        wanted, services.source_at, runner, choices=choices_of(partial), documents=services.documents
    )
    tags = await survey_tags(partial, roots, TargetLookups(partial, services.sink_at), NullJournal(), runner)
    failures = {p: read.failures[p.source] for p in partial if p.source in read.failures} | tags.failures
    graph = msgspec.structs.replace(read.graph, roots=dict(roots))
    desired_images = build_desired_images((p for p in pairs if p not in failures), graph, tags.tags)
    return DesiredImages(desired_images.of, {**failures, **desired_images.failures}, desired_images.skipped)


async def plan_run(
    pairs: Sequence[Pair],
    settings: Settings | None = None,
    policy: Policy = KEEP_GOING,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    places: CustomTransports = NO_PLACES,
) -> Planned:
    """Resolve, survey and plan; nothing is changed anywhere."""
    meter = meter or Meter()
    async with open_services(settings_for(settings, pairs), observer, meter, places=places) as services:
        planned = await Run(pairs, policy, observe=observer, meter=meter).plan(services)
        return msgspec.structs.replace(planned, policy=policy)


async def apply(
    saved: SavedPlan,
    settings: Settings | None = None,
    policy: Policy | None = None,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    run: SavedRun | None = None,
    places: CustomTransports = NO_PLACES,
) -> Report:
    """Carry out a saved plan: exactly its steps, but for those that the targets have by now.

    The sources are read by digest and asked for no tag, so nothing that moved there matters; what is gone
    from one fails its image. `policy`: in place of the plan's own. How bare layers are compressed is the
    plan's, whatever `settings` say. The rest, errors and cancellation are as with `mirror`.
    """
    meter = meter or Meter()
    run = run or SavedRun(saved, policy, observe=observer, meter=meter)
    settings = _as_planned(settings_for(settings, saved.pairs), saved)
    async with opened(settings, observer, meter, places=places) as (services, store):
        report = await run.go(services)
        await tidy(store, settings)
        return report


async def plan_rest(
    saved: SavedPlan,
    settings: Settings | None = None,
    policy: Policy | None = None,
    *,
    observer: Observer = ignore,
    meter: Meter | None = None,
    places: CustomTransports = NO_PLACES,
) -> Planned:
    """What `apply` would do now; nothing is changed anywhere."""
    meter = meter or Meter()
    settings = _as_planned(settings_for(settings, saved.pairs), saved)
    async with open_services(settings, observer, meter, places=places) as services:
        return await SavedRun(saved, policy, observe=observer, meter=meter).plan(services)


def _as_planned(settings: Settings, saved: SavedPlan) -> Settings:
    """The settings, with the plan's way to compress. Raises InvalidConfig for one that is not known."""
    if all(transport_of(pair.source.host) != DOCKER_ARCHIVE for pair in saved.pairs):
        return settings
    for mode in get_args(CompressMode):
        if mode == saved.compress:
            return msgspec.structs.replace(settings, compress=mode)
    raise InvalidConfig(f"the plan was made with --compress {saved.compress[:40]}, which is not known here")


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
        lambda host: host_access(host, used, logins),
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
    largest: int = LARGEST_REQUEST,
    observer: Observer = ignore,
) -> ProbeResult:
    """Find out by trying what `host[:port]` takes; what that pushes to the repository is deleted again.

    `largest`: bytes of the largest request. Raises what the registry answers where nothing can be pushed.
    """
    settings = settings_for(settings)
    access = host_access(host, settings, logins_of(settings))
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
async def open_services(
    settings: Settings | None,
    observer: Observer,
    meter: Meter,
    *,
    looking: bool = False,
    places: CustomTransports = NO_PLACES,
) -> AsyncIterator[Services]:
    """Everything outside the plan: registries, store and journal, closed at the end.

    `looking`: archives that are targets are read, not written.
    """
    async with opened(settings_for(settings), observer, meter, looking=looking, places=places) as (
        services,
        _,
    ):
        yield services


@asynccontextmanager
async def opened(
    settings: Settings,
    observer: Observer,
    meter: Meter,
    *,
    looking: bool = False,
    places: CustomTransports = NO_PLACES,
) -> AsyncIterator[tuple[Services, Store]]:
    """As `open_services`, with the store that is behind it."""
    if settings.compress == "gzip-portable":
        from blobflow.transports.archive import codec

        codec(settings.compress)  # raises where it can't be had, before anything is moved
    with _open_store(settings, observer) as store:
        journal: Journal = NullJournal() if settings.cache == "off" else StoreJournal(store)
        logins = logins_of(settings)
        registries = Registries(
            lambda host: host_access(host, settings, logins),
            observer=observer,
            meter=meter,
            journal=journal,
            trace=settings.trace,
            user_agent=f"blobflow/{__version__}",
            bytes_per_second=settings.bytes_per_second,
        )

        room = available_capacity(store, settings.cache_size)
        kept = StoreCache(store)
        cache: Cache = (
            StrictCache(store, kept, room) if settings.cache == "all" else BestEffortCache(store, kept)
        )
        aside = SpillFile(store)
        local = _LocalWhenWanted(lambda make: make(store, meter, compress=settings.compress, looking=looking))
        own_sources, own_sinks = OncePerSite(places.sources), OncePerSite(places.sinks)

        def ours(site: Site) -> LocalTransports | Registries:
            return local() if transport_of(site.registry) else registries

        def source_at(site: Site) -> Source:
            own = own_sources.at(site)
            return ours(site).source(site) if own is None else own

        def sink_at(site: Site) -> Sink:
            own = own_sinks.at(site)
            return ours(site).sink(site) if own is None else own

        services = Services(
            source_at=source_at,
            sink_at=sink_at,
            cache=cache,
            journal=journal,
            observe=observer,
            meter=meter,
            limiter_at=FixedLimiters(settings.concurrency).at,
            allowance_of=registries.allowance,
            cache_mode=settings.cache,
            staging_bytes=room,
            staging_blobs=_most_on_shelf(),
            complete=local.complete,
            documents=ManifestBudget(aside),
        )
        try:
            yield services, store
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

    def __init__(self, make: Callable[[type[LocalTransports]], LocalTransports]) -> None:
        self._make = make
        self._places: LocalTransports | None = None

    def __call__(self) -> LocalTransports:
        if self._places is None:
            from blobflow.transports.local import LocalTransports

            self._places = self._make(LocalTransports)
        return self._places

    async def complete(self) -> Mapping[Site, BlobflowError]:
        return {} if self._places is None else await self._places.complete()

    def close(self) -> None:
        if self._places is not None:
            self._places.close()


async def tidy(store: Store, settings: Settings) -> None:
    """Leave in the store what it may hold; that this failed fails no run."""
    try:
        await collect_garbage(store, settings.cache_size)
    except StorageError as error:
        store.report_failure(error)


@contextmanager
def _open_store(settings: Settings, observer: Observer) -> Iterator[Store]:
    with ExitStack() as stack:
        root = settings.cache_dir
        if root is None or settings.cache == "off":
            root = Path(stack.enter_context(TemporaryDirectory(prefix="blobflow-"))) / "store"
        yield stack.enter_context(closing(Store.open(root, observer=observer)))
