"""Plans that are saved, and carried out from what was saved."""

from __future__ import annotations

import msgspec

from blobflow.content import Site
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import Report
from blobflow.engine.saved.plan import SavedPlan
from blobflow.engine.saved.planning import run_of_saved
from blobflow.oci import Digest, Reference, digest_of, media
from blobflow.planfile import load_plan, save_plan
from tests.fakes.memory_registry import MemoryRegistry
from tests.library import plan_pairs
from tests.scenarios.mirror import MirrorScenario


async def saved_by(
    bench: MirrorScenario, policy: Policy = KEEP_GOING, pairs: list[Pair] | None = None
) -> SavedPlan:
    """What a file says that a plan was saved into; nothing is remembered of how it was made."""
    planned = await plan_pairs(pairs or bench.pairs, bench.services(), policy)
    content = save_plan(msgspec.structs.replace(planned, policy=policy))
    bench.forget_calls()
    return load_plan(content, "mirror.lock")


async def applied(bench: MirrorScenario, saved: SavedPlan, policy: Policy | None = None) -> Report:
    bench.forget_calls()
    return await run_of_saved(saved, policy).execute(bench.services())


def moved(registry: MemoryRegistry) -> int:
    """What was written to it."""
    return sum(registry.count(call) for call in ("push", "mount", "put", "attach"))


def statuses(report: Report) -> list[str]:
    return [image.status for image in report.images]


def put_something(registry: MemoryRegistry, place: Reference) -> Digest:
    """Have a tag name another manifest."""
    raw = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    site, digest = Site(registry.name, place.repository), digest_of(raw)
    registry.manifests.setdefault(site, {})[digest] = (media.OCI_INDEX, raw)
    registry.tags[site, place.tag] = digest
    return digest
