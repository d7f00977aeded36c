"""How fast a mirror over a long path could be at best.

All bytes don't pass faster than all connections carry them, one way at a time; and a blob that is pushed is
one connection's, while one that is read may be several's, range by range. To that come the round trips that
follow on each other in the protocol, however many go side by side.
"""

from __future__ import annotations

from tools.imageset import Layout
from tools.network_path import Shape

# Each waits for the one before. The first are the source's, the others the target's; the last of the first is
# either's.
SOURCE_TRIPS = (
    "a connection",
    "the root manifest by its tag (GET tells its digest too)",
    "the manifests under it",
    "blobs: the first bytes asked for at the source, the upload opened at the target",
)
TARGET_TRIPS = (
    "the answer to an upload's last byte",
    "mounts of what was uploaded",
    "manifests",
    "the index under its tag",
)


def floor_seconds(layout: Layout, source: Shape | None, target: Shape | None, connections: int) -> float:
    """Seconds below which no client with so many connections a host can come; the ways are those to the
    registries (None: near)."""
    sizes = layout.blobs.values()
    largest, whole = max(sizes, default=0), sum(sizes)
    seconds, trips = [0.0], 0.0
    if source is not None:
        seconds.append(whole / (connections * source.rate))
        trips += len(SOURCE_TRIPS) * source.rtt
    if target is not None:
        seconds += [largest / target.rate, whole / (connections * target.rate)]
        trips += len(TARGET_TRIPS) * target.rtt
    return max(seconds) + trips
