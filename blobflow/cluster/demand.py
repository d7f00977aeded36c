"""What tells an adaptive cluster that more workers would be worth it.

Dask scales by the tasks that wait at the scheduler, and carriages wait at the coordinator, which knows what
hosts can take. So as many empty tasks as carriages wait there, for a worker that never comes; nothing runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from distributed import Client

from blobflow.cluster import tasks

# Seconds between two looks at what waits: adaptive clusters look every second.
LOOK_SECONDS = 1.0
# More waiting tasks ask for no more workers than these do.
MAX_WANTED = 100
# A host that no worker is on: the name is reserved (RFC 6761).
NOWHERE = "wanted.blobflow.invalid"


async def show_demand(client: Client, run: str, wanting: Callable[[], int]) -> None:
    """Keep as many tasks waiting as carriages are `wanting`. Runs until it is cancelled, and takes them back
    then."""
    waiting: list[Any] = []
    number = 0
    try:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            wanted = min(wanting(), MAX_WANTED)
            while len(waiting) < wanted:
                number += 1
                key = ("wanted", run, number)
                waiting.append(client.submit(tasks.nothing, key=key, workers=[NOWHERE], priority=-1))
            for future in waiting[wanted:]:
                future.release()
            del waiting[wanted:]
    finally:
        for future in waiting:
            future.release()
