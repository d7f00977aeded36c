"""What a client and the engine do, each in one call: for tests that do one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blobflow.client import Client
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.planned import Planned
from blobflow.engine.planning import PairPlanning
from blobflow.engine.planning import plan as plan_with
from blobflow.engine.policy import KEEP_GOING, Policy, VerifyLevel
from blobflow.engine.results.report import Report
from blobflow.engine.saved.plan import SavedPlan
from blobflow.engine.saved.planning import SavedPlanning
from blobflow.engine.services import Services
from blobflow.errors import BlobflowError
from blobflow.events import Observer, ignore
from blobflow.oci import Reference
from blobflow.operations.inspection import Inspection
from blobflow.settings import Settings


async def mirror(
    pairs: Sequence[Pair],
    settings: Settings | None = None,
    policy: Policy = KEEP_GOING,
    *,
    on_start: Any = ignore,
    **client: Any,
) -> Report:
    """Mirror the pairs with a client of their own; `client` says how it is made."""
    async with Client(settings, **client) as opened:
        return await opened.mirror(pairs, policy, on_start=on_start)


async def plan(
    pairs: Sequence[Pair], settings: Settings | None = None, policy: Policy = KEEP_GOING, **client: Any
) -> Planned:
    """Plan the pairs with a client of their own."""
    async with Client(settings, **client) as opened:
        return await opened.plan(pairs, policy)


async def verify(
    pairs: Sequence[Pair], level: VerifyLevel, settings: Settings | None = None, **client: Any
) -> dict[Pair, BlobflowError | None]:
    """Verify the pairs with a client of their own."""
    async with Client(settings, **client) as opened:
        return await opened.verify(pairs, level)


async def execute(saved: SavedPlan, settings: Settings | None = None, **client: Any) -> Report:
    """Carry out a saved plan with a client of its own."""
    async with Client(settings, **client) as opened:
        return await opened.execute(saved)


async def plan_pairs(
    pairs: Sequence[Pair], services: Services, policy: Policy = KEEP_GOING, observe: Observer = ignore
) -> Planned:
    """Plan the pairs over services that are open."""
    return await plan_with(PairPlanning(pairs, policy, observe), services)


async def plan_saved(saved: SavedPlan, services: Services) -> Planned:
    """Plan what is left of a saved plan over services that are open."""
    return await plan_with(SavedPlanning(saved), services)


async def inspect(reference: Reference, settings: Settings | None = None, **client: Any) -> Inspection:
    """Inspect a reference with a client of its own."""
    async with Client(settings, **client) as opened:
        return await opened.inspect(reference)
