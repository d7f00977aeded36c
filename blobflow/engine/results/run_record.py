"""Which run a report is about: when it was, by which blobflow, which hosts it dealt with, and who carried
blobs for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from blobflow.engine.pairs import Pair
from blobflow.engine.results.report import HostRecord, RunRecord, WorkerRecord, sides_of
from blobflow.events import HostMeter, Meter
from blobflow.version import __version__


def utc_now() -> datetime:
    """Now, in UTC, to the millisecond: as finely as anybody compares logs."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def run_record(pairs: Sequence[Pair], meter: Meter, started: datetime) -> RunRecord:
    """The record of a run that began at `started`, as of now. Hosts of the pairs come first."""
    sides = sides_of(pairs)
    hosts = []
    for host in dict.fromkeys((*sides, *meter.hosts)):
        counted, own = meter.hosts.get(host) or HostMeter(), sides.get(host, ())
        hosts.append(HostRecord(host, own, counted.requests, counted.bytes_read, counted.bytes_written))
    workers = [
        WorkerRecord(name, each.copies, each.bytes, each.failed)
        for name, each in sorted(meter.workers.items())
    ]
    return RunRecord(started, utc_now(), __version__, hosts=tuple(hosts), workers=tuple(workers))
