"""Carries out a Backup: keeps what a tag names under another tag, before the first one is overwritten."""

from __future__ import annotations

from blobflow.content import Reads
from blobflow.engine.plan.steps import Backup
from blobflow.engine.services import Services
from blobflow.engine.transfer.admission import StepPermits
from blobflow.errors import NotFound


async def back_up(step: Backup, permits: StepPermits, services: Services) -> None:
    """Put what the tag names under the other one, byte for byte; its blobs are there.

    What it names now may be something else than when the plan was made. If it is gone by now, or names what
    it is to name, there is nothing to keep: what was kept before stays. Raises what the target raises.
    """
    place, site = services.sink_at(step.target), step.target
    try:
        named = await permits.writing(place).resolve(step.tag)
    except NotFound:
        return
    if named.digest == step.replaced_by:
        return
    async with services.manifest_budget.moving(site.registry, named, before_waiting=permits.release):
        sink = permits.writing(place)
        reader = sink if isinstance(sink, Reads) else permits.reading(services.source_at(site))
        await sink.put(named, await reader.read(named), (step.kept,))
