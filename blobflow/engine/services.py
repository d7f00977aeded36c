"""Services: everything that planning and execution touch outside the plan itself, as one value."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal

import msgspec

from blobflow.content import AllowanceOf, Cache, Journal, SinkAt, Site, Sleep, SourceAt
from blobflow.engine.sources.manifests import ManifestBudget
from blobflow.engine.sources.pull_quota import no_allowance
from blobflow.engine.transfer.carrying import Carrier
from blobflow.errors import BlobflowError
from blobflow.events import Meter, Observer
from blobflow.oci import Digest, Reference
from blobflow.permits import Limiter
from blobflow.signatures.contract import ClaimedImage

# Which blobs are staged in the store: those that gain by it, all, or none (see `transfer.staging`).
CacheMode = Literal["auto", "all", "off"]

# Seconds. Healthy targets differ by less, or have so much to answer that waiting for them is no use.
PATIENCE = 2.0


async def _nothing_to_complete() -> Mapping[Site, BlobflowError]:
    return {}


def claims_of(source: Reference, digest: Digest) -> tuple[ClaimedImage, ...]:
    """What an image claims to be: what its source is called where it was asked for, be it at a mirror."""
    return (ClaimedImage(source.transport or "docker", source, digest),)


class Services(msgspec.Struct, frozen=True):
    """Everything outside the plan that a run touches; `blobflow.composition` fills it in.

    `limiter_at`: the limiter of a host whose Sources and Sinks have none of their own.
    `staging_bytes`: how many bytes of blobs may be staged in the store at once, and `staging_blobs`: how many
    blobs; None: no bound.
    `complete` finishes targets that appear only when they are whole (archives), and returns the sites where
    that failed.
    `patience`: how many seconds the targets that have answered wait for the others, to be planned as one.
    `claims`: what a source's image, or a manifest below it, claims to be, for signature policies: several
    images where it was made of them, each of which has to be accepted.
    `carrier`: what copies the blobs between registries in place of this process; None: nothing does.
    `retry_times`: how often what failed is tried again; None: as the tables say.
    `sleep` takes seconds; `random` gives 0 ≤ r < 1: tests replace them.
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
    claims: Callable[[Reference, Digest], Sequence[ClaimedImage]] = claims_of
    carrier: Carrier | None = None
    retry_times: int | None = None
    sleep: Sleep = asyncio.sleep
    random: Callable[[], float] = random.random
    manifest_budget: ManifestBudget = msgspec.field(default_factory=ManifestBudget)
