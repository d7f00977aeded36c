"""The result of planning: a plan, what it was made from, and what could not be planned."""

from __future__ import annotations

import msgspec

from blobflow.content import Allowance
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.cost import Cost, cost_of
from blobflow.engine.plan.desired import DesiredImage
from blobflow.engine.plan.inventory import Inventory, merge_inventories
from blobflow.engine.plan.steps import Goal, Plan, appended
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.sources.graph import Graph
from blobflow.errors import BlobflowError


class PlanPart(msgspec.Struct, frozen=True):
    """What the answers of some targets add to a plan.

    `plan`: its steps are numbered after those that were planned before. `failures`: pairs that can't be
    planned; `skipped`: pairs that are skipped, and why. `unrecorded`: goals that need no step, and that the
    journal does not record as complete yet.
    """

    plan: Plan
    desired_images: dict[Pair, DesiredImage]
    inventory: Inventory
    failures: dict[Pair, BlobflowError]
    skipped: dict[Pair, str] = {}
    unrecorded: tuple[Goal, ...] = ()


class Planned(msgspec.Struct, frozen=True):
    """A plan with what it was made from.

    `failures`: pairs that could not be planned, and why; `skipped`: pairs that may lack the wanted platforms,
    and do. `reads`: how many manifests planning read, by host; a run of the plan reads as many.
    `allowances`: the pull quotas that their hosts reported last. `policy`: the policy that it was made under.
    `counted`: its cost, where the graph does not cover all of it; `along`: how many referrers go along, where
    the desired images don't have them.
    """

    pairs: tuple[Pair, ...]
    plan: Plan
    graph: Graph
    desired_images: dict[Pair, DesiredImage]
    inventory: Inventory
    failures: dict[Pair, BlobflowError]
    reads: dict[str, int] = {}
    allowances: dict[str, Allowance] = {}
    policy: Policy = KEEP_GOING
    counted: Cost | None = None
    skipped: dict[Pair, str] = {}
    along: int = 0

    @property
    def cost(self) -> Cost:
        """The cost of the plan."""
        return self.counted or cost_of(self.plan, self.graph, (*self.failures, *self.skipped))

    @property
    def referrers_along(self) -> int:
        """How many referrers go along with the images."""
        return self.along + sum(len(desired.attached) for desired in self.desired_images.values())

    def with_part(self, part: PlanPart) -> Planned:
        """The same with a further part."""
        return msgspec.structs.replace(
            self,
            plan=appended(self.plan, part.plan),
            desired_images=self.desired_images | part.desired_images,
            inventory=merge_inventories((self.inventory, part.inventory)),
            failures=self.failures | part.failures,
            skipped=self.skipped | part.skipped,
        )
