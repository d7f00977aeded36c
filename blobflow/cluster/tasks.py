"""The functions that run in workers. They are found there by their names, so that no other version of Python
unpacks code of ours; and all that they take and return are plain values.

`carry` is a task, the others are called beside the tasks, on the worker's event loop.
"""

from __future__ import annotations

from typing import Any

import msgspec
from distributed import get_worker

from blobflow.cluster.shares import Shares
from blobflow.cluster.terms import RunTerms, Versions, versions_here
from blobflow.cluster.worker_side import side_of


async def carry(run: str, parcel: list[tuple[str, bytes]]) -> tuple[dict[str, tuple[str, bytes]], str]:
    """See `WorkerSide.carry`."""
    return await (await side_of(get_worker())).carry(run, parcel)


async def open_run(versions: dict[str, Any], terms: bytes, shares: bytes, dask_worker: Any) -> str:
    """See `WorkerSide.open`. The versions come first, as values that every version reads."""
    try:
        there = msgspec.convert(versions, Versions)
    except msgspec.ValidationError:
        return "does not know this version of blobflow"
    if difference := there.difference(versions_here()):
        return difference
    side = await side_of(dask_worker)
    return await side.open(
        msgspec.msgpack.decode(terms, type=RunTerms), msgspec.msgpack.decode(shares, type=Shares)
    )


async def share_run(run: str, shares: bytes, dask_worker: Any) -> None:
    """See `WorkerSide.share`."""
    (await side_of(dask_worker)).share(run, msgspec.msgpack.decode(shares, type=Shares))


async def stop_carriages(run: str, keys: tuple[str, ...], dask_worker: Any) -> None:
    """See `WorkerSide.stop`."""
    await (await side_of(dask_worker)).stop(run, keys)


async def end_run(run: str, complete: bool, dask_worker: Any) -> str:
    """See `WorkerSide.end`."""
    return await (await side_of(dask_worker)).end(run, complete=complete)


def scheduler_versions(dask_scheduler: Any) -> dict[str, Any]:
    """What the scheduler's process has, as it has to import what it passes on."""
    versions: dict[str, Any] = msgspec.to_builtins(versions_here())
    return versions


def nothing() -> None:
    """What shows that a worker answers; and the task of `demand`, which never runs."""
