"""What discovery finds out about pairs: a value, which planning reads."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from blobflow.engine.pairs import Pair
from blobflow.engine.plan.desired import DesiredImage
from blobflow.engine.plan.inventory import Inventory, merge_inventories
from blobflow.errors import BlobflowError, NoSuchPlatform, own_copy


class Discovered(msgspec.Struct, frozen=True):
    """What is known about some pairs: their desired images, and what their targets have.

    `failures`: pairs that can't be planned, and why; `skipped`: pairs whose images have none of the wanted
    platforms. `current`: pairs that count as complete because an earlier run put them there.
    """

    pairs: tuple[Pair, ...]
    desired_images: dict[Pair, DesiredImage]
    inventory: Inventory
    failures: dict[Pair, BlobflowError]
    current: frozenset[Pair]
    skipped: dict[Pair, NoSuchPlatform] = {}

    @property
    def good(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair not in self.failures and pair not in self.skipped]


def join_discovered(answers: Sequence[Discovered]) -> Discovered:
    """Join what is known about several groups of pairs, each with a target host of its own."""
    desired_images: dict[Pair, DesiredImage] = {}
    failures: dict[Pair, BlobflowError] = {}
    skipped: dict[Pair, NoSuchPlatform] = {}
    for each in answers:
        desired_images |= each.desired_images
        failures |= each.failures
        skipped |= each.skipped
    return Discovered(
        pairs=tuple(pair for each in answers for pair in each.pairs),
        desired_images=desired_images,
        inventory=merge_inventories(each.inventory for each in answers),
        failures=failures,
        current=frozenset[Pair]().union(*(each.current for each in answers)),
        skipped=skipped,
    )


def undiscovered(pairs: Sequence[Pair], error: BlobflowError) -> Discovered:
    """What is known about pairs whose discovery failed with `error`."""
    failures = {pair: own_copy(error) for pair in pairs}
    return Discovered(tuple(pairs), {}, Inventory({}, {}, {}), failures, frozenset())
