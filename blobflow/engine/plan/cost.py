"""The cost of a plan, in bytes and requests, before the first byte moves. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping

import msgspec

from blobflow.content import Site
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import DesiredImage
from blobflow.engine.plan.inventory import Inventory
from blobflow.engine.plan.steps import Attach, Backup, Copy, Goal, Mount, Plan, Put
from blobflow.engine.sources.graph import Graph
from blobflow.oci import Descriptor, Digest
from blobflow.oci.local_reference import transport_of

# Requests of one step when nothing goes wrong: a blob is one GET at the source and, with the most common
# upload method, a POST and a PUT at the target; a mount is one POST; a manifest is one PUT a tag.
_UPLOAD_REQUESTS = 2
# Where the target keeps no list of referrers itself, the one under the fallback tag is read and put, and
# looked at again.
_ATTACH_REQUESTS = 3
# What the tag names now is asked, read, and put under the other tag.
_BACKUP_REQUESTS = 3


class TargetCost(msgspec.Struct, frozen=True):
    """What one target registry will receive. `bytes_if_mounts_fail`: what its mounts add if they are refused,
    since each then becomes an upload."""

    copies: int = 0
    mounts: int = 0
    manifests: int = 0
    bytes_to_write: int = 0
    bytes_if_mounts_fail: int = 0


class Cost(msgspec.Struct, frozen=True):
    """Counts of a plan, over all pairs.

    `bytes_to_read` are those of blobs, `bytes_to_write` those of blobs and manifests. `manifests`: how many
    are put, one for each of its tags.
    `blobs_unique`: blobs of the images that were read; `blobs_shared`: those of them that more than one image
    manifest names; `blobs_present`: those that need not be read for any target.
    `bytes_to_read_if_mounts_fail`: what is read more if mounts are refused of blobs that nothing copies.
    `images_current`: pairs with nothing to do. `requests`: by registry, for the transfer alone. `targets`: by
    host, also those with nothing to do.
    """

    images: int
    images_current: int
    blobs_unique: int
    blobs_shared: int
    blobs_present: int
    bytes_to_read: int
    bytes_to_write: int
    mounts: int
    manifests: int
    requests: dict[str, int]
    targets: dict[str, TargetCost]
    bytes_to_read_if_mounts_fail: int = 0

    @property
    def current(self) -> bool:
        """Whether there is nothing to do."""
        return self.images == self.images_current

    @property
    def copies(self) -> int:
        """Blobs that are uploaded, each once for each registry."""
        return sum(target.copies for target in self.targets.values())


class RunningCost:
    """The cost of the steps, added up part by part, so that many late targets take no longer to add up than
    one plan of the whole set."""

    def __init__(self) -> None:
        self.copies = self.mounts = self.manifests = 0
        self.bytes_to_read = self.bytes_to_write = 0
        self._read: set[Digest] = set()

    def add(self, part: Plan) -> None:
        """Add a part of the plan to what is there."""
        for step in part.steps:
            match step:
                case Copy():
                    self.copies += 1
                    self.bytes_to_write += step.blob.size
                    self.bytes_to_read += step.blob.size * (step.blob.digest not in self._read)
                    self._read.add(step.blob.digest)
                case Mount():
                    self.mounts += 1
                case Put():
                    count = max(1, len(step.tags))
                    self.manifests += count
                    self.bytes_to_write += count * step.manifest.size
                case Backup():
                    self.manifests += 1
                    self.bytes_to_write += step.manifest.size


def cost_of(plan: Plan, graph: Graph, failed: Iterable[Pair] = ()) -> Cost:
    """Add up the plan. Manifests that only pairs in `failed` have do not count."""
    mentions: Counter[Digest] = Counter()
    left_out = _only_of(failed, plan, graph)
    for digest, manifest in graph.manifests.items():
        if digest not in left_out:
            mentions.update({blob.digest for blob in manifest.blobs})
    read: dict[Digest, Descriptor] = {}
    mounted: dict[Digest, Descriptor] = {}
    requests: Counter[str] = Counter()
    targets = {goal.pair.target.host: Counter[str]() for goal in plan.goals}
    for step in plan.steps:
        host = step.target.registry
        sums = targets[host]
        match step:
            case Copy():
                if step.blob.digest not in read:
                    requests[step.source.registry] += 1
                read[step.blob.digest] = step.blob
                requests[host] += _UPLOAD_REQUESTS
                sums.update(copies=1, bytes_to_write=step.blob.size)
            case Mount():
                mounted[step.blob.digest] = step.blob
                requests[host] += 1
                sums.update(mounts=1, bytes_if_mounts_fail=step.blob.size)
            case Put():
                count = max(1, len(step.tags))
                requests[host] += count
                sums.update(manifests=count, bytes_to_write=count * step.manifest.size)
            case Attach():
                requests[host] += _ATTACH_REQUESTS
            case Backup():
                requests[host] += _BACKUP_REQUESTS
                sums.update(manifests=1, bytes_to_write=step.manifest.size)
    return Cost(
        images=len(plan.goals),
        images_current=sum(not goal.steps for goal in plan.goals),
        blobs_unique=len(mentions),
        blobs_shared=sum(count > 1 for count in mentions.values()),
        blobs_present=len(mentions) - len(read),
        bytes_to_read=sum(blob.size for blob in read.values()),
        bytes_to_write=sum(sums["bytes_to_write"] for sums in targets.values()),
        mounts=sum(sums["mounts"] for sums in targets.values()),
        manifests=sum(sums["manifests"] for sums in targets.values()),
        requests={host: count for host, count in sorted(requests.items()) if not transport_of(host)},
        targets={host: TargetCost(**sums) for host, sums in sorted(targets.items())},
        bytes_to_read_if_mounts_fail=sum(blob.size for d, blob in mounted.items() if d not in read),
    )


def _only_of(failed: Iterable[Pair], plan: Plan, graph: Graph) -> set[Digest]:
    """The manifests that only failed pairs have."""
    theirs = _below(failed, graph)
    return theirs - _below((goal.pair for goal in plan.goals), graph) if theirs else theirs


def _below(pairs: Iterable[Pair], graph: Graph) -> set[Digest]:
    roots = {graph.roots[pair.source].digest for pair in pairs if pair.source in graph.roots}
    found: set[Digest] = set()
    todo = list(roots)
    while todo:
        digest = todo.pop()
        if digest not in found and digest in graph.manifests:
            found.add(digest)
            todo += [child.digest for child in graph.manifests[digest].manifests]
    return found


def blobs_present(
    goals: Iterable[Goal],
    desired_images: Mapping[Pair, DesiredImage],
    inventory: Inventory,
    brought: Container[tuple[Site, Digest]] = (),
) -> int:
    """How many blobs the survey found where they are wanted, each counted once a target repository.

    `brought`: what is not counted, as this run has moved it there itself."""
    found: set[tuple[Site, Digest]] = set()
    for goal in goals:
        site = site_of(goal.pair.target)
        for manifest in desired_images[goal.pair].everything:
            found.update((site, b.digest) for b in manifest.blobs if inventory.has(site, b.digest))
    return sum(each not in brought for each in found)
