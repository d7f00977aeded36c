"""A Dask cluster in this process: a scheduler, and workers with a store and settings of their own each."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import dask
from distributed import Scheduler, Worker

from blobflow.cluster.worker_side import WorkerOptions, WorkerSide
from blobflow.settings import Settings


class DaskCluster:
    """`engine`: what runs are given. `workers`: those that were added, by their names."""

    def __init__(self, scheduler: Any, root: Path) -> None:
        self.scheduler = scheduler
        self.engine = scheduler.address
        self.workers: dict[str, Any] = {}
        self._root = root

    async def add(
        self,
        name: str,
        threads: int = 8,
        *,
        settings: Callable[[Settings], Settings] = lambda settings: settings,
    ) -> Any:
        """A worker, whose own settings are changed by `settings`."""
        own = settings(Settings(cache_dir=self._root / name))
        side = WorkerSide(WorkerOptions(settings=own))
        worker = Worker(
            self.engine,
            name=name,
            nthreads=threads,
            host="127.0.0.1",
            memory_limit=0,
            local_directory=str(self._root / f"{name}-dask"),
            plugins=(side,),
        )
        self.workers[name] = await worker
        return worker

    async def kill(self, name: str) -> None:
        """A worker is gone at once, as by SIGKILL: what it had under way is cut off."""
        worker = self.workers.pop(name)
        await self.scheduler.remove_worker(worker.address, stimulus_id="killed", close=False, expected=False)
        await worker.close()

    async def close(self) -> None:
        """Everybody leaves."""
        for worker in self.workers.values():
            await worker.close()


@contextlib.asynccontextmanager
async def dask_cluster(root: Path) -> AsyncIterator[DaskCluster]:
    """A cluster on loopback, without pages."""
    quiet: dict[str, Any] = {"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}
    with dask.config.set(quiet):
        async with Scheduler(
            host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0"
        ) as scheduler:
            cluster = DaskCluster(scheduler, root)
            try:
                yield cluster
            finally:
                await cluster.close()
