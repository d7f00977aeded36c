"""A mirror of many images between places in memory, as programs that can be measured from outside.

    python -m bench.carrying IMAGES                     # by this process alone
    python -m bench.carrying IMAGES dask://HOST:PORT    # by workers of that scheduler
    python -m bench.carrying --worker dask://HOST:PORT NAME

Nothing is moved over a network but what coordinator, scheduler and workers say to each other, so that all of
the time is overhead. Prints as JSON the blobs that were copied, the seconds of the transfer and of all, and
the milliseconds a blob.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import msgspec
import uvloop

from bench.memory_places import memory_services, pairs
from blobflow.cli.runtime.startup import tune_gc
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.services import Services
from blobflow.events import Event, Meter, PhaseStarted
from blobflow.settings import Settings
from blobflow.transports.store import Store


async def mirror(images: int, engine: str) -> None:
    """Carry it out, and print what it took."""
    meter, began = Meter(), time.perf_counter()
    transfer_began = began

    def observe(event: Event) -> None:
        nonlocal transfer_began
        if isinstance(event, PhaseStarted) and event.phase == "transfer":
            transfer_began = time.perf_counter()

    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = stack.enter_context(closing(Store.open(folder / "store")))
        services = memory_services(store, observe, meter)
        if engine:
            from blobflow.cluster.address import parse_engine
            from blobflow.cluster.coordinator import open_carrier

            opening = open_carrier(parse_engine(engine), Settings(cache_dir=folder), observe, meter)
            carrier = await stack.enter_async_context(opening)
            services = msgspec.structs.replace(services, carrier=carrier)
        report = await run_of_pairs(pairs(images), observe=observe, meter=meter).execute(services)
    ended, copied = time.perf_counter(), report.totals.blobs_copied
    if report.totals.failed or not copied:
        raise SystemExit(f"{report.totals.failed} of {images} images failed")
    seconds = ended - transfer_began
    print(
        json.dumps(
            {
                "blobs": copied,
                "seconds": seconds,
                "whole_seconds": ended - began,
                "ms_per_blob": seconds * 1000 / copied,
            }
        )
    )


def work(engine: str, name: str) -> None:
    """`blobflow worker`, whose registries are those in memory."""
    from blobflow.cli import main as run_command_line
    from blobflow.cluster import run_on_worker

    @asynccontextmanager
    async def in_memory(
        settings: Settings, limits: run_on_worker.WorkerLimits, meter: Meter
    ) -> AsyncIterator[Services]:
        with (
            tempfile.TemporaryDirectory() as folder,
            closing(Store.open(Path(folder) / "store")) as store,
        ):
            yield memory_services(store, limits.observe, meter)

    run_on_worker._open_services = in_memory
    sys.argv = ["blobflow", "worker", engine, "--name", name]
    run_command_line()


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        work(*sys.argv[2:])
    else:
        tune_gc()  # as the command line does
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(mirror(int(sys.argv[1]), *(sys.argv[2:] or [""])))
