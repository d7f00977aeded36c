"""The limits of hosts, shared out to the workers of a run: together they keep what one machine would.

Where a user set a limit it holds for the whole cluster, and a worker may get none of a host's connections;
then no blob of that host goes there. All hosts are shared out in one order of the workers, so that those with
connections to a source have some to its target. Where nothing was set each worker gets `LEAST` at least: a
registry that objects to as many closes the window of each (`HostLimiter`). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from blobflow.settings import CONCURRENCY, FAR_CONCURRENCY, Settings

# Blobs each way at once at a host that nobody limited, of each worker: one streams while another is begun.
LEAST = 2
# Of the requests a second that a host may be sent: the coordinator asks for manifests, tags and mounts, which
# are about as many as a worker's for blobs.
COORDINATORS_PART = 0.5


class HostShare(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one worker has of one host; as in `HostAccess`. `connections` 0: nothing is to be asked there."""

    connections: int
    far_connections: int = 0
    requests_per_second: float = 0
    bytes_per_second: float = 0

    @property
    def streams(self) -> int:
        """Blobs each way at once, at most."""
        return max(self.connections, self.far_connections)


class Shares(msgspec.Struct, frozen=True):
    """What one worker has: of the hosts with settings of their own, and of every other one (`usual`).
    `bytes_per_second`: of all its blobs together; 0: no limit."""

    usual: HostShare
    hosts: dict[str, HostShare] = {}
    bytes_per_second: float = 0

    def at(self, host: str) -> HostShare:
        """What it has of a host."""
        return self.hosts.get(host, self.usual)


def share_out(settings: Settings, workers: Sequence[str]) -> dict[str, Shares]:
    """The shares of the workers, by their names; the first ones have what is not divisible."""
    number = len(workers)
    limited = {
        host: own
        for host, own in settings.hosts.items()
        if own.connections or own.requests_per_second or own.bytes_per_second
    }
    return {
        worker: Shares(
            _host_share(settings.concurrency, 0, 0, at, number),
            {
                host: _host_share(
                    own.connections or settings.concurrency,
                    own.requests_per_second,
                    own.bytes_per_second,
                    at,
                    number,
                )
                for host, own in limited.items()
            },
            settings.bytes_per_second / number,
        )
        for at, worker in enumerate(workers)
    }


def _host_share(
    connections: int | None, requests_per_second: float, bytes_per_second: float, at: int, number: int
) -> HostShare:
    """The share of the worker `at` that place among a `number` of them."""
    if connections is None:
        near = _part(max(CONCURRENCY, LEAST * number), at, number)
        far = _part(max(FAR_CONCURRENCY, 2 * LEAST * number), at, number)
        having = number
    else:
        near, far = _part(connections, at, number), 0
        having = min(connections, number)
    workers = 1 - COORDINATORS_PART
    return HostShare(near, far, requests_per_second * workers / having, bytes_per_second / having)


def _part(whole: int, at: int, number: int) -> int:
    return whole // number + (at < whole % number)
