"""Planning alone, as a program that can be measured from outside: no network, no disk.

    python -m bench.planning IMAGES

Makes a graph of so many images of 4 platforms x 8 layers, plans the mirror of all of it to one target, and
prints the seconds that the plan took, and its steps, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

from bench.graphs import NOTHING, synthetic
from blobflow.cli.runtime.startup import tune_gc
from blobflow.engine.plan.desired import build_desired_images
from blobflow.engine.plan.planner import make_plan


def main(images: int) -> None:
    tune_gc()  # as the command line does
    pairs, graph = synthetic(images)
    began = time.perf_counter()
    plan = make_plan(pairs, graph, NOTHING, build_desired_images(pairs, graph, {}).by_pair)
    seconds = time.perf_counter() - began
    if len(plan.goals) != images:
        raise SystemExit(f"the plan has {len(plan.goals)} goals for {images} images")
    print(json.dumps({"seconds": seconds, "steps": len(plan.steps)}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
