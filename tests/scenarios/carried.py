"""Mirrors between places in memory whose blobs workers in this process bring."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from blobflow.engine.execution import Run, run_of_pairs
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import Report
from blobflow.engine.services import Services
from blobflow.engine.transfer.copy_worker import CopyWorker
from blobflow.events import Event, Observer, StepStarted, ignore
from tests.fakes.carrier import WorkersHere
from tests.scenarios.mirror import MirrorScenario


@asynccontextmanager
async def workers_here(bench: MirrorScenario, number: int = 2, **changes: Any) -> AsyncIterator[WorkersHere]:
    """So many workers with services of their own, over the scenario's registries. `changes` of those."""
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(CopyWorker(bench.services(**changes), f"w{each}"))
            for each in range(1, number + 1)
        ]
        yield WorkersHere(workers)


def run_with(
    bench: MirrorScenario,
    carrier: WorkersHere,
    policy: Policy = KEEP_GOING,
    *,
    observe: Observer = ignore,
    **changes: Any,
) -> tuple[Run, Services]:
    """A run of the scenario's pairs, and the services that it is to be executed with."""
    services = bench.services(carrier=carrier, **changes)
    services = type(services)(**{**_fields(services), "observe": observe})
    return run_of_pairs(bench.pairs, policy, observe=observe, meter=services.meter), services


async def mirrored(bench: MirrorScenario, carrier: WorkersHere, policy: Policy = KEEP_GOING) -> Report:
    """The report of a run that is carried."""
    run, services = run_with(bench, carrier, policy)
    return await run.execute(services)


def _fields(services: Services) -> dict[str, Any]:
    return {name: getattr(services, name) for name in services.__struct_fields__}


class Begun:
    """An observer that keeps which steps began, by whom."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event, /) -> None:
        self.events.append(event)

    @property
    def copies(self) -> list[StepStarted]:
        return [each for each in self.events if isinstance(each, StepStarted) and each.kind == "copy"]
