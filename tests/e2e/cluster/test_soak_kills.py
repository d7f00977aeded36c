"""Workers that are killed one after another through a whole run, and replaced: `pytest -m soak`.

The short form is `test_faults.py`, where two of four die.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster.conftest import (
    SOME,
    Field,
    assert_whole,
    open_sessions,
    read_again,
    told,
)
from tests.e2e.conftest import StartsRegistries

KILLS = 24
SEED = 20


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_a_set_arrives_although_a_worker_dies_every_few_blobs(
    field: Field, start_registry: StartsRegistries, home: Path
) -> None:
    """Each death costs its worker's blob once more, and nothing else."""
    draw = random.Random(SEED)
    field.have(4)
    layout, target = field.filled.fill(images=40), start_registry("target")
    killed = 0
    async with field.syncing(layout, [target], home) as run:
        for number in range(KILLS):
            name = draw.choice(list(field.workers))
            # In mid-blob, or wherever it is: at the gate only if something comes there before the run ends.
            field.gates[name].hold_after(draw.randrange(SOME))
            arrived = (number + 1) * len(layout.blobs) // (KILLS + 2)
            await run.until(partial(_has, arrived))
            await asyncio.to_thread(field.kill, name)
            killed += 1
            await asyncio.to_thread(field.add, 1)
        assert await run.ended() == 0, told(run)
    again = read_again(field.source, layout)
    assert again.total() <= killed
    uploads = target.requests().uploads()
    assert uploads.keys() == layout.blobs.keys()
    assert (uploads - Counter(layout.blobs.keys())).total() <= killed
    assert_whole(target, layout)
    assert open_sessions(target) <= killed, "those of the dead alone"


def _has(least: int, events: list[dict[str, Any]]) -> bool:
    """Whether so many blobs have arrived."""
    return len([event for event in events if event["event"] == "done"]) >= least
