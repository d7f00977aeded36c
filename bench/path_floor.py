"""How fast a mirror over a long path could be at best.

A blob is one connection's: the largest can't arrive faster than one connection carries it, and all of them
not faster than all connections do, one way at a time. To that come the round trips that follow on each other
in the protocol, however many go side by side.
"""

from __future__ import annotations

from tools.imageset import Layout
from tools.network_path import Shape

# Each waits for the one before.
ROUND_TRIPS = (
    "a connection",
    "the root manifest by its tag (GET tells its digest too)",
    "the manifests under it",
    "blobs: the first bytes asked for at the source, the upload opened at the target",
    "the answer to an upload's last byte",
    "mounts of what was uploaded",
    "manifests",
    "the index under its tag",
)


def floor_seconds(layout: Layout, shape: Shape, connections: int) -> float:
    """Seconds below which no client with so many connections a host can come."""
    sizes = layout.blobs.values()
    largest, whole = max(sizes, default=0), sum(sizes)
    return max(largest / shape.rate, whole / (connections * shape.rate)) + len(ROUND_TRIPS) * shape.rtt
