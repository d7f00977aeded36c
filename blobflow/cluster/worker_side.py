"""All of blobflow in one Dask worker: the parts of the runs that it works for, each with services of its own.

It is a plugin of the worker: made by `blobflow worker` or by `preload`, or when a run first comes to a worker
that knows nothing of it. Its end is the worker's: what is under way is stopped, and taken back or journaled.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
from distributed import Worker, WorkerPlugin

from blobflow.cluster.progress import TOPIC, News, pack_news, shown_name
from blobflow.cluster.run_on_worker import RunOnWorker, open_run
from blobflow.cluster.shares import Shares
from blobflow.cluster.terms import RunTerms
from blobflow.engine.transfer.arrival_codec import pack_arrivals, unpack_carriage
from blobflow.environment import from_environment
from blobflow.errors import BlobflowError
from blobflow.settings import Settings

PLUGIN = "blobflow"
# Seconds after which a run's part that nobody asked for anything is closed: its coordinator is gone. One that
# is not opens it again.
IDLE_SECONDS = 15 * 60.0
# What a task says of its carriage.
ARRIVED, GIVEN_UP, NO_RUN = "arrived", "given up", "no run"


class WorkerOptions(msgspec.Struct, frozen=True):
    """How a worker works. `store`: its store's root; None: the one of this user and machine. `settings`: in
    place of those of the worker's own environment and files. `ignores_interrupts`: Ctrl-C at its terminal is
    for the coordinator, which stops it."""

    store: Path | None = None
    settings: Settings | None = None
    ignores_interrupts: bool = False


class WorkerSide(WorkerPlugin):
    """What a worker has of blobflow. Used from the worker's event loop."""

    name = PLUGIN
    idempotent = True

    def __init__(self, options: WorkerOptions = WorkerOptions()) -> None:  # noqa: B008  frozen
        self._options = options
        self._runs: dict[str, _OpenRun] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._worker: Any = None
        self._leaving = False

    def setup(self, worker: Worker) -> None:
        """The worker has started."""
        self._worker = worker
        if self._options.ignores_interrupts and threading.current_thread() is threading.main_thread():
            for interrupt in (signal.SIGINT, signal.SIGHUP):
                signal.signal(interrupt, signal.SIG_IGN)

    async def teardown(self, worker: Worker) -> None:
        """The worker ends."""
        await self.close()

    async def close(self) -> None:
        """Stop all that is under way, and take it back or journal it."""
        self._leaving = True
        runs, self._runs = self._runs, {}
        await asyncio.gather(*(each.close() for each in runs.values()))

    async def open(self, terms: RunTerms, shares: Shares) -> str:
        """Begin a run's part here, or share anew where it has begun. Returns why it can't, "" if it does."""
        if self._leaving:
            return "is stopping"
        async with self._opening.setdefault(terms.run, asyncio.Lock()):
            if (open_already := self._runs.get(terms.run)) is not None:
                open_already.touch().share(shares)
                return ""
            await self._close_idle()
            stack = AsyncExitStack()
            try:
                settings = await asyncio.to_thread(self._settings, terms)
                run = await stack.enter_async_context(
                    open_run(terms, shares, settings, self._name, self._publish)
                )
            except BlobflowError as error:
                return str(error)
            run.leaving = self._leaving
            self._runs[terms.run] = _OpenRun(run, stack)
            return ""

    def share(self, run: str, shares: Shares) -> None:
        """Keep these limits for a run from now on."""
        if (found := self._runs.get(run)) is not None:
            found.touch().share(shares)

    async def carry(
        self, run: str, parcel: Sequence[tuple[str, bytes]]
    ) -> tuple[dict[str, tuple[str, bytes]], str]:
        """Bring packed carriages, by their keys. Returns what became of each, with the packed arrivals if it
        ARRIVED, and the packed news: whoever has the last carriage of a run has all figures of it."""
        found = self._runs.get(run)
        if found is None:
            return {key: (NO_RUN, b"") for key, _ in parcel}, ""
        bringing = (found.touch().bring(key, unpack_carriage(packed)) for key, packed in parcel)
        brought = await asyncio.gather(*bringing)
        said = {
            key: (GIVEN_UP, b"") if arrivals is None else (ARRIVED, pack_arrivals(arrivals))
            for (key, _), arrivals in zip(parcel, brought, strict=True)
        }
        return said, pack_news(found.run.news())

    async def stop(self, run: str, keys: tuple[str, ...]) -> None:
        """See `RunOnWorker.stop`."""
        if (found := self._runs.get(run)) is not None:
            await found.touch().stop(keys)

    async def end(self, run: str, *, complete: bool) -> str:
        """A run is over; `complete`: by itself, so that upload sessions of workers that were killed here are
        of no use any more. Returns the last news of it, packed; "" for a run that is not here."""
        found = self._runs.pop(run, None)
        self._opening.pop(run, None)
        if found is None:
            return ""
        if complete:
            found.run.cancel_abandoned_uploads()
        await found.close()
        return pack_news(found.run.news())

    async def drain(self, grace: float) -> None:
        """Take no more carriages, and wait until those under way have arrived, `grace` seconds at most."""
        self._leaving = True
        for each in self._runs.values():
            each.run.leaving = True
        if tasks := [task for each in self._runs.values() for task in each.run.under_way]:
            await asyncio.wait(tasks, timeout=grace)

    @property
    def runs(self) -> int:
        """How many runs it works for."""
        return len(self._runs)

    @property
    def _name(self) -> str:
        return shown_name(self._worker.name)

    def _settings(self, terms: RunTerms) -> Settings:
        """This worker's own settings."""
        if self._options.settings is not None:
            return self._options.settings
        own = from_environment(sources=terms.sources, targets=terms.targets)
        return msgspec.structs.replace(own, cache_dir=self._options.store or store_of_machine(own.cache_dir))

    def _publish(self, news: News) -> None:
        self._worker.log_event(TOPIC, pack_news(news))

    async def _close_idle(self) -> None:
        """Close what coordinators have left behind."""
        now = time.monotonic()
        for run, each in list(self._runs.items()):
            if not each.run.under_way and now - each.asked >= IDLE_SECONDS:
                del self._runs[run]
                await each.close()


class _OpenRun:
    """A run's part, and what closes it. `asked`: when somebody asked for something, by time.monotonic."""

    def __init__(self, run: RunOnWorker, stack: AsyncExitStack) -> None:
        self.run = run
        self._stack = stack
        self.asked = time.monotonic()

    async def close(self) -> None:
        """Stop what is under way, and take it back or journal it."""
        await self._stack.aclose()

    def touch(self) -> RunOnWorker:
        """Somebody asks for something."""
        self.asked = time.monotonic()
        return self.run


def store_of_machine(cache: Path | None) -> Path | None:
    """A worker's store below the user's: of this machine alone, as a home may be on several, and what locks
    a store does not work across them."""
    return None if cache is None else cache / "workers" / socket.gethostname().partition(".")[0]


async def side_of(worker: Worker) -> WorkerSide:
    """What that worker has of blobflow, made if it has none yet."""
    found = worker.plugins.get(PLUGIN)
    if found is None:
        await worker.plugin_add(WorkerSide(), name=PLUGIN)
        found = worker.plugins[PLUGIN]
    assert isinstance(found, WorkerSide), f"another plugin of a worker is called {PLUGIN}"
    return found
