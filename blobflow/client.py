"""The client: all operations on images, over registries and a store that are opened once.

    async with Client(settings, observer=show) as client:
        report = await client.mirror(pairs, policy)

    pairs ─► plan (resolve, survey, plan) ─► execute (transfer, verify) ─► Report

What is needed less often takes a client: `blobflow.operations`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Self, get_args

import msgspec

from blobflow.cluster.address import Engine
from blobflow.composition import (
    NO_CUSTOM_TRANSPORTS,
    Opened,
    open_registries,
    open_services,
    open_shared,
)
from blobflow.custom_transports import CustomTransports
from blobflow.engine.execution import Run, run_of_pairs
from blobflow.engine.pairs import Lookup, Pair
from blobflow.engine.plan.planned import Planned
from blobflow.engine.planning import PairPlanning, plan
from blobflow.engine.policy import KEEP_GOING, Policy, VerifyLevel
from blobflow.engine.results.report import Report
from blobflow.engine.saved.plan import SavedPlan
from blobflow.engine.services import Services
from blobflow.environment import from_environment
from blobflow.errors import BlobflowError, InvalidConfig, StorageError
from blobflow.events import Meter, Observer, ignore
from blobflow.oci import Reference
from blobflow.oci.local_reference import DOCKER_ARCHIVE, transport_of
from blobflow.oci.media import CompressMode
from blobflow.operations.inspection import Inspection, inspect
from blobflow.settings import Settings, host_access, logins_of
from blobflow.transports.registry import Credentials, HostSettings, Registries
from blobflow.transports.registry.probe.questions import LARGEST_REQUEST, ProbeResult, probe_host
from blobflow.transports.store.gc import collect_garbage
from blobflow.version import USER_AGENT

OnStart = Callable[[Run], None]


def _watched_by_nobody(run: Run) -> None:
    """For who waits for the report."""


class Client:
    """What blobflow does with images. Opens the store and connections when they are first needed, shares them
    among all that is done, at the same time too, and closes them at the end of `async with`.

    May be used in any thread, on any event loop, by one of them at a time.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        observer: Observer = ignore,
        meter: Meter | None = None,
        transports: CustomTransports = NO_CUSTOM_TRANSPORTS,
        engine: str | Engine | None = None,
    ) -> None:
        """Without `settings` those of this machine hold, as on the command line: see
        `blobflow.from_environment`; BLOBFLOW_SOURCE_CREDS and BLOBFLOW_TARGET_CREDS are then for the hosts of
        what is asked for first. `meter` counts bytes and requests. `transports`: hosts with a Source or a
        Sink of the caller's own. `engine`: who carries the blobs of runs, where they don't say: see `mirror`.
        """
        self._given = settings
        self._settings = settings
        self.observer = observer
        self.meter = meter or Meter()
        self._transports = transports
        self._engine = engine
        self._registries: Registries | None = None
        self._opened: Opened | None = None
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close connections and the store, which nothing may use meanwhile. What is used again after that is
        opened again."""
        self._registries = self._opened = None
        await self._closing.aclose()

    @property
    def settings(self) -> Settings:
        """The settings given, or those of this machine. Raises UsageError and InvalidConfig for what can't be
        used."""
        return self._settings_for()

    # Images

    async def mirror(
        self,
        pairs: Sequence[Pair],
        policy: Policy = KEEP_GOING,
        *,
        engine: str | Engine | None = None,
        on_start: OnStart = _watched_by_nobody,
    ) -> Report:
        """Bring every pair's image to its target and say what became of each.

        Failures of images are in the report, not raised; what is raised concerns the whole run (StorageError:
        no store). On cancel, what is under way is taken back or journaled before CancelledError goes on.
        `on_start` is given the run, which can be asked for its report at any time, also after that, and wound
        down. Requests and bytes count from there on; those of what the client does at the same time too.

        `engine`: workers that carry the blobs between registries, as with --engine: "dask://HOST:8786",
        "tls://…" or "local:4"; None: the client's, else this process does. Then also ConnectFailed is raised
        where no scheduler answers, and EngineLost where none of its workers is of use, or it is lost later.
        """
        self._settings_for(pairs)
        run = run_of_pairs(pairs, policy, observe=self.observer, meter=self.meter)
        on_start(run)
        return await self._execute(run, pairs, engine)

    async def plan(self, pairs: Sequence[Pair], policy: Policy = KEEP_GOING) -> Planned:
        """Resolve, survey and plan; nothing is changed anywhere, so that a cancellation leaves nothing.

        Images that can't be planned are in the plan's `failures`; what is raised concerns the whole plan
        (StorageError: no store).
        """
        self._settings_for(pairs)
        async with self.services() as services:
            return await plan(PairPlanning(pairs, policy, self.observer), services)

    async def execute(
        self,
        saved: SavedPlan,
        policy: Policy | None = None,
        *,
        engine: str | Engine | None = None,
        on_start: OnStart = _watched_by_nobody,
    ) -> Report:
        """Carry out a saved plan: exactly its steps, but for those that the targets have by now.

        The sources are read by digest and asked for no tag, so nothing that moved there matters; what is gone
        from one fails its image. `policy`: in place of the plan's own. How bare layers are compressed is the
        plan's, whatever the settings say. The rest, engine, errors and cancellation are as with `mirror`.
        """
        from blobflow.engine.saved.planning import run_of_saved

        self._settings_for(saved.pairs)
        run = run_of_saved(saved, policy, observe=self.observer, meter=self.meter)
        on_start(run)
        async with self._as_planned(saved) as client:
            return await client._execute(run, saved.pairs, engine)

    async def plan_saved(self, saved: SavedPlan, policy: Policy | None = None) -> Planned:
        """What `execute` would do now; nothing is changed anywhere. Errors are as with `plan`, and those of a
        plan that can't be carried out here: UsageError, InvalidConfig."""
        from blobflow.engine.saved.planning import SavedPlanning

        self._settings_for(saved.pairs)
        async with self._as_planned(saved) as client, client.services() as services:
            return await plan(SavedPlanning(saved, policy, self.observer), services)

    async def verify(
        self, pairs: Sequence[Pair], level: VerifyLevel, *, referrers: Lookup | None = None
    ) -> dict[Pair, BlobflowError | None]:
        """Ask every pair's target whether it is what the source names now, as closely as `level` says; and
        whether it has what refers to that, but for `referrers` "off" (None: as each pair says).

        Nothing is changed anywhere. Returns for each pair, in the order given, what is wrong (None: nothing),
        and NoSuchPlatform also for one that may lack its platforms; a later run does not take what was found
        wrong for whole because an earlier one put it there. What is raised concerns all pairs (StorageError:
        no store).
        """
        from blobflow.operations.verification import verify_pairs

        settings = self._settings_for(pairs)
        async with self.services(reading=True) as services:
            at_once = settings.blobs_at_once
            return await verify_pairs(services, pairs, level, read_at_once=at_once, referrers=referrers)

    async def inspect(self, reference: Reference, *, alone: bool = False) -> Inspection:
        """Read a reference's manifest and those under it, unless it is wanted `alone`. What a sparse index
        lists may lack. Raises what the source answers otherwise (RegistryError), or does not (NetworkError),
        UnsupportedContent, and StorageError: no store, where settings were given."""
        self._settings_for(sources={reference.host})
        if self._given is not None:
            async with self.services() as services:
                return await inspect(services, reference, alone=alone)
        # Who only looks needs no store that can be written.
        async with self.using(cache_dir=None) as client, client.services() as services:
            return await inspect(services, reference, alone=alone)

    # Registries

    async def login(self, host: str, credentials: Credentials) -> bool:
        """Ask `host[:port]` to let us in with a login, which is kept nowhere; False if it lets anybody in.
        Raises Unauthorized for one that it does not accept, and NetworkError."""
        hosts = self.settings.hosts
        own = msgspec.structs.replace(hosts.get(host, HostSettings()), credentials=credentials)
        async with self.using(hosts={**hosts, host: own}) as client:
            return await client.registries.ping(host)

    async def probe(self, host: str, repository: str, *, largest: int = LARGEST_REQUEST) -> ProbeResult:
        """Find out by trying what `host[:port]` takes, in the repository and in `REPOSITORY-mounts`.

        `largest`: bytes of the largest request. Whatever ends it, cancellation too, what was pushed is
        deleted first, as far as the registry allows; `left` has the rest, or a warning, where no result comes
        of it. Raises what the registry answers where nothing can be pushed, and NetworkError.
        """
        settings = self.settings
        return await probe_host(
            host,
            repository,
            host_access(host, settings, logins_of(settings)),
            largest=largest,
            observer=self.observer,
            meter=self.meter.hosts[host],
            trace=settings.trace,
            user_agent=USER_AGENT,
        )

    # What operations are made of

    @property
    def registries(self) -> Registries:
        """The registries alone, without a store and its memory of earlier runs."""
        if self._registries is None:
            self._registries = open_registries(self.settings, self.observer, self.meter)
            self._closing.push_async_callback(self._registries.close)
        return self._registries

    @asynccontextmanager
    async def services(self, *, reading: bool = False) -> AsyncIterator[Services]:
        """Everything outside its plan that one run touches. Layouts and archives are opened for it alone.

        `reading`: archives that are targets are read, not written. Raises StorageError: no store.
        """
        opened, settings = await self.open(), self.settings
        async with open_services(
            opened, settings, self.observer, self.meter, reading=reading, transports=self._transports
        ) as services:
            yield services

    async def open(self) -> Opened:
        """The store, with what it remembers, and the registries of runs. Raises StorageError: no store."""
        if self._opened is None:
            opening = open_shared(self.settings, self.observer, self.meter)
            self._opened = await self._closing.enter_async_context(opening)
        return self._opened

    @asynccontextmanager
    async def using(self, **changes: Any) -> AsyncIterator[Client]:
        """A client like this one with other settings, for a while: with connections, and a store, of its
        own. `changes`: fields of `Settings`."""
        settings = msgspec.structs.replace(self.settings, **changes)
        async with Client(
            settings,
            observer=self.observer,
            meter=self.meter,
            transports=self._transports,
            engine=self._engine,
        ) as client:
            yield client

    async def tidy(self) -> None:
        """Leave in the store what it may hold; that this failed fails no run."""
        store = (await self.open()).store
        try:
            with self.meter.waits.begin("work", "", "tidying the store"):
                await collect_garbage(store, self.settings.cache_size)
        except StorageError as error:
            store.report_failure(error)

    async def _execute(self, run: Run, pairs: Sequence[Pair], engine: str | Engine | None) -> Report:
        async with self.services() as services:
            async with self._carried(services, pairs, self._engine if engine is None else engine) as carried:
                report = await run.execute(carried)
            await self.tidy()
            return report

    @asynccontextmanager
    async def _carried(
        self, services: Services, pairs: Sequence[Pair], engine: str | Engine | None
    ) -> AsyncIterator[Services]:
        """The services, with an engine's workers to carry blobs, if there is one."""
        if engine is None:
            yield services
            return
        from blobflow.cluster.address import parse_engine
        from blobflow.cluster.extra import with_extra

        named = parse_engine(engine) if isinstance(engine, str) else engine
        with with_extra("an engine"):
            from blobflow.cluster.coordinator import RunHosts, open_carrier
            from blobflow.cluster.shares import COORDINATORS_PART
        own = {*self._transports.sources, *self._transports.sinks}
        hosts = RunHosts(
            frozenset(pair.source.host for pair in pairs),
            frozenset(pair.target.host for pair in pairs),
            lambda site: site.registry not in own,
        )
        registries = (await self.open()).registries
        opening = open_carrier(named, self.settings, self.observer, self.meter, hosts)
        async with opening as carrier:
            registries.change_limits(bytes_per_second=self.settings.bytes_per_second, part=COORDINATORS_PART)
            try:
                yield msgspec.structs.replace(services, carrier=carrier)
            finally:
                registries.change_limits(bytes_per_second=self.settings.bytes_per_second)

    def _settings_for(self, pairs: Collection[Pair] = (), *, sources: Collection[str] = ()) -> Settings:
        """The settings; where none were given, those of this machine for what is asked for first."""
        if self._settings is None:
            self._settings = from_environment(
                sources={*sources, *(pair.source.host for pair in pairs)},
                targets={pair.target.host for pair in pairs},
            )
        return self._settings

    @asynccontextmanager
    async def _as_planned(self, saved: SavedPlan) -> AsyncIterator[Client]:
        """A client that compresses as a plan says. Raises InvalidConfig for a way that is not known."""
        compress = self.settings.compress
        if any(transport_of(pair.source.host) == DOCKER_ARCHIVE for pair in saved.pairs):
            compress = _compress_mode(saved.compress)
        if compress == self.settings.compress:
            yield self
            return
        async with self.using(compress=compress) as client:
            yield client


def _compress_mode(name: str) -> CompressMode:
    modes: tuple[CompressMode, ...] = get_args(CompressMode)
    for mode in modes:
        if mode == name:
            return mode
    raise InvalidConfig(f"the plan was made with --compress {name[:40]}, which is not known here")
