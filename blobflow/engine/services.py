"""Services: everything that planning and execution touch outside the plan itself, as one value."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import msgspec

from blobflow.content import AllowanceOf, Cache, Journal, SinkAt, Site, Sleep, SourceAt
from blobflow.engine.sources.manifests import ManifestBudget
from blobflow.engine.sources.pull_quota import no_allowance
from blobflow.errors import BlobflowError
from blobflow.events import Meter, Observer
from blobflow.permits import Limiter

# Which blobs go through the store: those that gain by it, all, or none (see `transfer.staging`).
CacheMode = Literal["auto", "all", "off"]

# Seconds. Targets that are well differ by less, or have so much to be asked that waiting for it is in vain.
PATIENCE = 2.0


async def _nothing_to_complete() -> Mapping[Site, BlobflowError]:
    return {}


class Services(msgspec.Struct, frozen=True):
    """Everything outside the plan that a run touches; `blobflow.composition` fills it in.

    `limiter_at`: the limiter of a host whose Sources and Sinks have none of their own.
    `staging_bytes`: what blobs may take in the store at once while they pass through it, and `staging_blobs`:
    how many of them; None: no bound.
    `complete` ends what is only there when it is whole (archives), and says of which sites it could not.
    `patience`: so many seconds the targets that have answered wait for the others, so that the plan is one.
    `sleep` takes seconds; `random` gives 0 ≤ r < 1: tests put their own there.
    """

    source_at: SourceAt
    sink_at: SinkAt
    cache: Cache
    journal: Journal
    observe: Observer
    meter: Meter
    limiter_at: Callable[[str], Limiter]
    allowance_of: AllowanceOf = no_allowance
    cache_mode: CacheMode = "auto"
    staging_bytes: int | None = None
    staging_blobs: int | None = None
    complete: Callable[[], Awaitable[Mapping[Site, BlobflowError]]] = _nothing_to_complete
    patience: float = PATIENCE
    sleep: Sleep = asyncio.sleep
    random: Callable[[], float] = random.random
    manifest_budget: ManifestBudget = msgspec.field(default_factory=ManifestBudget)
