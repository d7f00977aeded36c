"""For Dask's own command line: `dask worker --preload blobflow.cluster.preload`, and for schedulers the same.

A worker has blobflow ready from the start then, with the store that BLOBFLOW_WORKER_STORE names. Without it
the first run makes it ready, in the store of this user and machine.
"""

from __future__ import annotations

from typing import Any

from distributed import Worker

from blobflow.cluster.worker_side import PLUGIN, WorkerOptions, WorkerSide
from blobflow.environment import worker_store


async def dask_setup(server: Any) -> None:
    """Called by Dask when a worker, a nanny or a scheduler starts."""
    if isinstance(server, Worker) and PLUGIN not in server.plugins:
        await server.plugin_add(WorkerSide(WorkerOptions(store=worker_store())), name=PLUGIN)
