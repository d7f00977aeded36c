"""Whole runs whose blobs workers of a Dask cluster carry, all of it in this process: by counts."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import msgspec
import pytest

from blobflow import Client, Pair, Settings
from blobflow.cluster import (
    connecting,
    coordinator,
    members,
    remote,
    run_on_worker,
    standing,
    worker_process,
)
from blobflow.cluster.address import parse_scheduler
from blobflow.cluster.shares import Shares
from blobflow.cluster.terms import Versions
from blobflow.cluster.worker_side import PLUGIN, WorkerOptions
from blobflow.content import Upload
from blobflow.errors import ConnectFailed, EngineLost
from blobflow.events import Event, StepStarted, Warned, WorkersChanged
from blobflow.oci import Digest
from blobflow.oci.sample_images import sample_set
from blobflow.transports.registry import HostSettings
from blobflow.transports.registry.http.proxies import single_proxy
from blobflow.transports.store import Store, StoreJournal
from tests.deadlines import HANGS_AFTER
from tests.scenarios.dask_cluster import DaskCluster, dask_cluster
from tests.scenarios.limited_registry import pairs_of
from tests.scenarios.registries import blobs_of, fill, registries
from tools.ports import reserve_port
from tools.registry.faulty import Corrupt, Crowded, Fault, JournallingRegistry, Stall
from tools.registry.journal import Exchange

SMALL = sample_set(31, images=3, architectures=("amd64", "arm64"), layer_size=20_000)


class Field:
    """A source that has the set, targets, a cluster, and what runs have told."""

    def __init__(
        self,
        source: JournallingRegistry,
        target: JournallingRegistry,
        cluster: DaskCluster,
        root: Path,
    ) -> None:
        self.source = source
        self.targets = [target]
        self.cluster = cluster
        self.events: list[Event] = []
        self._root = root

    @asynccontextmanager
    async def client(self, **settings: Any) -> AsyncIterator[Client]:
        own = Settings(cache_dir=self._root / "coordinator", **settings)
        async with Client(own, observer=self.events.append, engine=self.cluster.engine) as client:
            yield client

    @property
    def pairs(self) -> list[Pair]:
        return [pair for target in self.targets for pair in pairs_of(SMALL, self.source.host, target.host)]

    async def mirror(self, **settings: Any) -> Any:
        async with self.client(**settings) as client:
            return await client.mirror(self.pairs)

    def told(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


@pytest.fixture
async def field(tmp_path: Path) -> AsyncIterator[Field]:
    async with (
        registries(tmp_path, ("source", "target")) as (source, target),
        dask_cluster(tmp_path / "cluster") as cluster,
    ):
        fill(source.store, SMALL)
        yield Field(source, target, cluster, tmp_path)


def reads(registry: JournallingRegistry) -> Counter[str]:
    return Counter(each.blob[1] for each in registry.journal if each.method == "GET" and each.blob)


def uploads(registry: JournallingRegistry) -> Counter[str]:
    return Counter(each.completes[1] for each in registry.journal if each.completes)


def at_once(exchanges: Iterable[Exchange]) -> list[int]:
    """How many exchanges were under way when each began, itself included, in their order."""
    marks = [mark for each in exchanges for mark in ((each.begun, 1), (each.ended or each.begun, -1))]
    under_way, found = 0, []
    for _, step in sorted(marks):
        under_way += step
        if step > 0:
            found.append(under_way)
    return found


def stall_reads(field: Field, *, nth: int = 1, times: int = 1) -> tuple[asyncio.Event, asyncio.Event]:
    """Reads of blobs at the source stand still after a byte: which, as a `Fault` counts them. Returns what
    tells that one does, and what lets them go on."""
    reached, until = asyncio.Event(), asyncio.Event()
    stall = Stall(after=1, until=until, reached=reached)
    field.source.faults.add(Fault("GET", "/blobs/", nth=nth, times=times, act=stall))
    return reached, until


def sessions_left(registry: JournallingRegistry) -> int:
    """Upload sessions that were opened, and neither completed nor deleted."""
    uploads = [each for each in registry.journal if "/blobs/uploads/" in each.path]
    opened = sum(each.method == "POST" and each.status == 202 for each in uploads)
    deleted = sum(each.method == "DELETE" and each.status == 204 for each in uploads)
    return opened - deleted - sum(each.method == "PUT" and each.status == 201 for each in uploads)


def open_session(host: str) -> str:
    """Begin an upload by hand: its Location."""
    url = f"http://{host}/v2/app/blobs/uploads/"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=HANGS_AFTER) as answer:
        return urljoin(url, str(answer.headers["Location"]))


def worker_of(field: Field, digest: str) -> str:
    """The last worker that began with a blob."""
    workers = [e.worker for e in field.told(StepStarted) if e.kind == "copy" and e.digest == digest]
    return str(workers[-1])


def first_read(registry: JournallingRegistry) -> str:
    """The blob that was asked for first."""
    return next(each.blob[1] for each in registry.journal if each.method == "GET" and each.blob)


async def test_each_blob_is_read_once_and_uploaded_once_by_some_worker(field: Field) -> None:
    for name in ("one", "two"):
        await field.cluster.add(name)
    report = await field.mirror()
    assert report.ok
    assert reads(field.source) == uploads(field.targets[0]) == dict.fromkeys(SMALL.blobs, 1)
    workers = {event.worker for event in field.told(StepStarted) if event.kind == "copy"}
    assert workers == {"one", "two"}
    assert [event.workers for event in field.told(WorkersChanged)] == [2]
    assert report.totals.requests == len(list(field.source.journal)) + len(list(field.targets[0].journal))
    assert sum(each.bytes for each in report.run.workers) == sum(map(len, SMALL.blobs.values()))


async def test_a_worker_is_called_the_same_by_itself_and_by_the_run(field: Field) -> None:
    """Whatever somebody called it."""
    await field.cluster.add("w\x1b[31m" + 100 * "x")
    report = await field.mirror()
    told = {event.worker for event in field.told(StepStarted) if event.kind == "copy"}
    assert told == {each.worker for each in report.run.workers} == {*field.told(WorkersChanged)[0].joined}
    (name,) = told
    assert len(name) == 80 and name.isprintable()


async def test_two_targets_read_a_blob_once(field: Field, tmp_path: Path) -> None:
    async with registries(tmp_path, ("other",)) as (other,):
        field.targets.append(other)
        for name in ("one", "two"):
            await field.cluster.add(name)
        report = await field.mirror()
        assert report.ok
        assert reads(field.source) == uploads(other) == dict.fromkeys(SMALL.blobs, 1)


async def test_a_target_that_hangs_keeps_no_blob_from_another(
    field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the one has that works is whole while the other takes nothing; that one gets it from there."""
    monkeypatch.setattr(standing, "STANDS_SECONDS", 0.05)
    monkeypatch.setattr(members, "LOOK_SECONDS", 0.05)
    async with registries(tmp_path, ("hanging",)) as (hanging,), asyncio.TaskGroup() as tasks:
        until = asyncio.Event()
        for method in ("POST", "PUT", "PATCH"):
            hanging.faults.add(Fault(method, "/blobs/uploads/", times=0, act=Stall(after=0, until=until)))
        field.targets.append(hanging)
        for name in ("one", "two"):
            await field.cluster.add(name, threads=2)
        hosts = {hanging.host: HostSettings(connections=2)}
        run = tasks.create_task(field.mirror(hosts=hosts))
        while len(uploads(field.targets[0])) < len(SMALL.blobs):
            assert not run.done()
            await asyncio.sleep(0.01)
        assert not uploads(hanging)
        until.set()
    assert run.result().ok
    assert reads(field.source) == dict.fromkeys(SMALL.blobs, 1)
    for target in field.targets:
        assert uploads(target) == dict.fromkeys(SMALL.blobs, 1)


async def test_the_connections_of_a_host_are_those_of_all_workers_together(field: Field) -> None:
    for name in ("one", "two", "three"):
        await field.cluster.add(name)
    # Each read lasts longer than the way of the next one to another worker.
    field.source.faults.add(Fault("GET", "/blobs/", times=0, act=Crowded(100, turns=300)))
    hosts = {field.source.host: HostSettings(connections=2)}
    report = await field.mirror(hosts=hosts)
    assert report.ok
    assert max(at_once(each for each in field.source.journal if each.blob)) == 2
    workers = {event.worker for event in field.told(StepStarted) if event.kind == "copy"}
    assert len(workers) == 2, "the third one has no connection to the source"


async def test_what_a_killed_worker_had_is_carried_by_another(field: Field) -> None:
    reached, until = stall_reads(field)
    for name in ("one", "two"):
        await field.cluster.add(name)
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(field.mirror(concurrency=2))
        await asyncio.wait_for(reached.wait(), HANGS_AFTER)
        digest = first_read(field.source)
        killed = worker_of(field, digest)
        await field.cluster.kill(killed)
        until.set()
    assert run.result().ok
    assert uploads(field.targets[0]) == dict.fromkeys(SMALL.blobs, 1)
    assert reads(field.source) - Counter(SMALL.blobs.keys()) == {digest: 1}
    assert worker_of(field, digest) != killed


async def test_a_worker_that_stands_still_loses_what_it_has_and_its_late_result_changes_nothing(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blob is read once more by the other one, and is there twice at most; it is told of once."""
    standing: set[str] = set()

    async def ask(self: remote.RemoteRun, worker: str, *arguments: object) -> None:
        if worker in standing:
            raise remote.WorkerSilent("has not answered for 1 s")

    async def answers(self: remote.RemoteRun, seconds: float) -> bool:
        return True

    monkeypatch.setattr(remote.RemoteRun, "ping", ask)
    monkeypatch.setattr(remote.RemoteRun, "stop", ask)
    monkeypatch.setattr(remote.RemoteRun, "scheduler_answers", answers)
    monkeypatch.setattr(coordinator, "silence_seconds", lambda: 0.2)
    late, again, woken, arrive = (asyncio.Event() for _ in range(4))
    for name in ("one", "two"):
        await field.cluster.add(name)
    async with asyncio.TaskGroup() as tasks:
        field.source.faults.add(Fault("GET", "/blobs/", act=Stall(after=1, until=woken, reached=late)))
        run = tasks.create_task(field.mirror(concurrency=2))
        await asyncio.wait_for(late.wait(), HANGS_AFTER)
        digest = first_read(field.source)
        field.source.faults.add(Fault("GET", digest, act=Stall(after=1, until=arrive, reached=again)))
        stood = worker_of(field, digest)
        standing.add(field.cluster.workers[stood].address)
        await asyncio.wait_for(again.wait(), HANGS_AFTER)
        woken.set()
        while digest not in uploads(field.targets[0]):  # noqa: ASYNC110  the late result
            await asyncio.sleep(0.01)
        arrive.set()
    report = run.result()
    assert report.ok
    assert reads(field.source) - Counter(SMALL.blobs.keys()) == {digest: 1}
    assert uploads(field.targets[0]) - Counter(SMALL.blobs.keys()) <= Counter({digest: 1})
    assert sum(each.copies for each in report.run.workers) == len(SMALL.blobs)
    assert worker_of(field, digest) != stood
    (sentence,) = (event.message for event in field.told(Warned))
    assert sentence.startswith(f"worker {stood} has not answered for 0 s; what it had goes to others")


async def test_nobody_is_blamed_for_a_scheduler_that_stands_still(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(self: remote.RemoteRun, worker: str, *arguments: object) -> None:
        raise remote.WorkerSilent("has not answered for 1 s")

    async def answers(self: remote.RemoteRun, seconds: float) -> bool:
        return False

    monkeypatch.setattr(remote.RemoteRun, "ping", ask)
    monkeypatch.setattr(remote.RemoteRun, "scheduler_answers", answers)
    monkeypatch.setattr(coordinator, "silence_seconds", lambda: 0.1)
    until = asyncio.Event()
    field.source.faults.add(Fault("GET", "/blobs/", times=0, act=Stall(after=1, until=until)))
    await field.cluster.add("one")
    with pytest.raises(EngineLost, match=r"scheduler at .* has not answered for 1 s.*same command") as lost:
        await field.mirror()
    until.set()
    assert lost.value.exit_code == 4
    assert not field.told(Warned)


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "cancelled"])
async def test_what_a_killed_worker_left_open_is_cancelled_once_a_run_has_all_it_wanted(
    complete: bool, field: Field, tmp_path: Path
) -> None:
    """A run that was stopped leaves it: the next one may go on with it."""
    target, digest = field.targets[0], Digest("sha256:" + 64 * "a")
    with closing(Store.open(tmp_path / "cluster" / "one")) as store:
        location = await asyncio.to_thread(open_session, target.host)
        StoreJournal(store).record_upload(target.host, "app", digest, Upload(location, 0), held=True)
        store.state.write("UPDATE sessions SET pid = ?", 2**22 + 1)  # no process has that number
    reached, until = asyncio.Event(), asyncio.Event()
    if not complete:
        field.source.faults.add(
            Fault("GET", "/blobs/", times=0, act=Stall(after=1, until=until, reached=reached))
        )
    await field.cluster.add("one")
    run = asyncio.create_task(field.mirror())
    if complete:
        assert (await run).ok
    else:
        await asyncio.wait_for(reached.wait(), HANGS_AFTER)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        until.set()
    assert sessions_left(target) == (0 if complete else 1)


async def test_a_cancelled_run_leaves_nothing_under_way_at_its_workers(field: Field) -> None:
    reached, until = stall_reads(field, times=0)
    worker = await field.cluster.add("one")
    run = asyncio.create_task(field.mirror())
    await asyncio.wait_for(reached.wait(), HANGS_AFTER)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    until.set()
    assert worker.plugins[PLUGIN].runs == 0
    assert not uploads(field.targets[0])
    assert not sessions_left(field.targets[0])


async def test_a_worker_that_does_not_answer_is_waited_for_once_when_a_run_is_cancelled(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def silent(self: remote.RemoteRun, worker: str, *arguments: object, **named: object) -> str:
        asked.append(worker)
        raise remote.WorkerSilent("has not answered for 60 s")

    monkeypatch.setattr(remote.RemoteRun, "stop", silent)
    monkeypatch.setattr(remote.RemoteRun, "end", silent)
    reached, until = stall_reads(field, times=0)
    worker = await field.cluster.add("one")
    run = asyncio.create_task(field.mirror())
    await asyncio.wait_for(reached.wait(), HANGS_AFTER)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    until.set()
    assert asked == [worker.address]


async def test_a_lost_scheduler_ends_the_run_with_a_sentence_and_the_next_run_goes_on(
    field: Field, tmp_path: Path
) -> None:
    reached, until = stall_reads(field, nth=4)
    await field.cluster.add("one")
    run = asyncio.create_task(field.mirror(concurrency=1))
    await asyncio.wait_for(reached.wait(), HANGS_AFTER)
    await field.cluster.scheduler.close()
    with pytest.raises(EngineLost, match=r"is gone.*the same command goes on") as lost:
        await run
    until.set()
    assert lost.value.exit_code == 4
    async with dask_cluster(tmp_path / "next") as field.cluster:
        await field.cluster.add("one")
        assert (await field.mirror()).ok
    assert uploads(field.targets[0]) == dict.fromkeys(SMALL.blobs, 1)
    assert sum((reads(field.source) - Counter(SMALL.blobs.keys())).values()) <= 1


async def test_a_worker_that_comes_late_is_waited_for(field: Field) -> None:
    async with field.client() as client, asyncio.TaskGroup() as tasks:
        run = tasks.create_task(client.mirror(field.pairs))
        # A wait tells nobody that it begins.
        while not any("waiting for" in each.what for each in client.meter.waits.now()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while field.cluster.scheduler.adaptive_target() < 1:  # noqa: ASYNC110  it is asked every second
            await asyncio.sleep(0.05)
        await field.cluster.add("late")
    assert run.result().ok
    assert not client.meter.waits.now()


def cut_off(field: Field, own: Settings) -> Settings:
    """Settings by which nobody reaches the source."""
    nowhere = single_proxy("http://127.0.0.1:9", "proxy")
    return msgspec.structs.replace(own, hosts={field.source.host: HostSettings(proxies=nowhere)})


async def test_workers_that_can_not_reach_the_source_are_named_once_and_others_go_on(field: Field) -> None:
    """They fail before any other one has brought something."""
    astray = {"astray", "stray", "lost"}
    for name in astray:
        await field.cluster.add(name, settings=partial(cut_off, field))
    await field.cluster.add("fine")
    field.source.faults.add(Fault("GET", "/blobs/", times=0, act=Crowded(100, turns=300)))
    report = await field.mirror(retry_times=0)
    assert report.ok
    assert uploads(field.targets[0]) == dict.fromkeys(SMALL.blobs, 1)
    warned = [event.message for event in field.told(Warned)]
    assert 0 < len(warned) <= len(astray)
    assert all(field.source.host in each for each in warned)


async def test_the_only_connection_goes_to_a_worker_that_can_use_it(field: Field) -> None:
    added = [await field.cluster.add(name) for name in ("one", "two")]
    first = min(added, key=lambda each: each.address)  # as the scheduler lists them
    side = first.plugins[PLUGIN]
    side._options = WorkerOptions(settings=cut_off(field, side._options.settings))
    report = await field.mirror(retry_times=0, hosts={field.source.host: HostSettings(connections=1)})
    assert report.ok
    assert max(at_once(each for each in field.source.journal if each.blob)) == 1
    (warned,) = [event.message for event in field.told(Warned)]
    assert f"worker {first.name}" in warned


async def test_a_blob_that_stands_still_at_a_worker_and_nowhere_else_is_brought_by_another(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its upload session is given up there, and the way that it came by may stand as long as it likes."""
    monkeypatch.setattr(standing, "LOAD_STANDS_SECONDS", 1)
    monkeypatch.setattr(run_on_worker, "INTERVAL", 0.02)
    monkeypatch.setattr(standing, "MOVES_SECONDS", 0)
    reached, until = asyncio.Event(), asyncio.Event()
    field.source.faults.add(Fault("GET", "/blobs/", act=Stall(after=0, until=until, reached=reached)))
    for name in ("one", "two"):
        await field.cluster.add(name)
    report = await asyncio.wait_for(field.mirror(), HANGS_AFTER)
    assert report.ok and reached.is_set()
    digest = first_read(field.source)
    assert reads(field.source)[digest] == 2
    assert uploads(field.targets[0]).keys() == SMALL.blobs.keys()
    assert sessions_left(field.targets[0]) == 0
    (warned,) = [event.message for event in field.told(Warned) if digest in event.message]
    assert f"worker {worker_of(field, digest)} " not in warned
    until.set()


async def test_a_poisoned_blob_fails_its_images_alone_and_the_error_names_the_worker(field: Field) -> None:
    await field.cluster.add("one")
    name = next(iter(SMALL.images))
    others = set().union(*(blobs_of(SMALL, each) for each in SMALL.images if each != name))
    digest = next(iter(blobs_of(SMALL, name) - others))
    field.source.faults.add(Fault("GET", digest, times=0, act=Corrupt(at=0)))
    report = await field.mirror(retry_times=0)
    assert [image.status for image in report.images] == ["failed", "done", "done"]
    assert "worker one" in report.images[0].error
    assert digest in report.images[0].error


async def test_workers_of_another_version_end_the_run_with_a_sentence_that_names_them(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    await field.cluster.add("old")
    monkeypatch.setattr(remote, "versions_here", lambda: Versions("9.9.9", "3.11"))
    with pytest.raises(EngineLost, match=r"worker old has blobflow .*, and this is 9\.9\.9"):
        await field.mirror()


async def test_a_worker_that_does_not_answer_at_first_is_told_of_once_and_works_later(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, silences = remote.RemoteRun.open, [True, True]

    async def open_late(self: remote.RemoteRun, worker: str, shares: Shares) -> None:
        if silences:
            silences.pop()
            silent = remote.WorkerSilent("has not answered for 30 s")
            silent.late = True
            raise silent
        await opening(self, worker, shares)

    monkeypatch.setattr(remote.RemoteRun, "open", open_late)
    monkeypatch.setattr(members, "LOOK_SECONDS", 0.05)
    await field.cluster.add("one")
    report = await field.mirror()
    assert report.ok
    (sentence,) = (event.message for event in field.told(Warned))
    assert sentence == "worker one has not answered for 30 s; it gets no work before it does"


async def test_nobody_at_the_address_is_a_sentence(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.5)
    field.cluster.engine = f"dask://127.0.0.1:{reserve_port()}"
    with pytest.raises(ConnectFailed, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1"):
        await field.mirror()


async def test_who_takes_the_connection_and_says_nothing_is_no_scheduler(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(worker_process, "ATTEMPT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        field.cluster.engine = f"dask://{where}"
        with pytest.raises(ConnectFailed, match="no Dask scheduler answers"):
            await field.mirror()
        place = worker_process.WorkerPlace(patience=0)
        worker = worker_process.WorkerProcess(parse_scheduler(where), place, print)
        with pytest.raises(ConnectFailed, match="no Dask scheduler answers"):
            await worker.serve()
