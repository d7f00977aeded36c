"""Events of a run, as frozen values, and the plain counters that the console samples.

Events are for things that happen once a step or once a phase, never once a chunk. Bytes are counted in
`Meter`, a plain object that transports add to and that anyone may read at any time; what the run waits for
is there too (`Meter.waits`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Protocol

import msgspec

from blobflow.waits import HostWaits, Waits


class Event(msgspec.Struct, frozen=True, tag_field="event"):
    """Root of the events. Each serialises as one JSON object with its kind under `event`."""


class RunStarted(Event, frozen=True, tag="run"):
    """A run begins: by which version of blobflow, of which command line (a word each, with `***` in place of
    what may be secret), and between which hosts."""

    blobflow: str
    command: tuple[str, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]


class PhaseStarted(Event, frozen=True, tag="phase"):
    """resolve, survey, transfer or verify begins; `images` in the run."""

    phase: str
    images: int


class PlanMade(Event, frozen=True, tag="plan"):
    """The plan's prices: bytes at most, for what the survey could not know."""

    images: int
    copies: int
    mounts: int
    puts: int
    bytes_to_read: int
    bytes_to_write: int


class StepStarted(Event, frozen=True, tag="start"):
    """A step began. `kind` is copy, mount, put, attach or backup; `size` in bytes. `image`: the source of an
    image that it is for, "" if that is not known; it may be for others too. `worker`: who does it, where an
    engine carries blobs; "": this process. A copy begins again where its worker was lost."""

    step: int
    kind: str
    digest: str
    target: str
    size: int
    image: str = ""
    worker: str = ""


class StepDone(Event, frozen=True, tag="done"):
    step: int
    kind: str
    digest: str
    target: str
    size: int


class StepFailed(Event, frozen=True, tag="failed"):
    step: int
    kind: str
    digest: str
    target: str
    error: str


class WorkersChanged(Event, frozen=True, tag="workers"):
    """So many `workers` carry the run's blobs from now on; `joined` and `left` name those who came and
    went."""

    workers: int
    joined: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


class Retrying(Event, frozen=True, tag="retry"):
    """A request or body failed with something retryable and is tried again after `delay` seconds. `attempt`
    is the one that failed, of `attempts` (0: their number is not fixed)."""

    what: str
    error: str
    attempt: int
    delay: float
    attempts: int = 0


class Waiting(Event, frozen=True, tag="wait"):
    """The run waits: told when a wait of several seconds begins, and then rarely.

    `kind`, `host` and `what`: see `waits`. `seconds` it has lasted so far, `left` of it (None: as long as it
    takes). `attempt` of `attempts` is what comes then; 0: none is counted. `waiting`: how many wait for the
    same; `message`: all of it in a sentence.
    """

    kind: str
    host: str
    what: str
    message: str
    seconds: float
    left: float | None = None
    attempt: int = 0
    attempts: int = 0
    waiting: int = 1


class ImageDone(Event, frozen=True, tag="image"):
    """An image is settled: `status` is done, present, failed or skipped; `reason`: why it was skipped.
    `platforms` as in the report."""

    source: str
    target: str
    digest: str
    status: str
    error: str
    done: int
    images: int
    reason: str = ""
    platforms: tuple[str, ...] = ()


class Warned(Event, frozen=True, tag="warning"):
    """Something the user should know that fails nothing; `message` is one sentence."""

    message: str


class Traced(Event, frozen=True, tag="http"):
    """One HTTP exchange, without headers that carry secrets and without query values. `seconds` to the
    response's headers."""

    method: str
    url: str
    status: int
    seconds: float


class RangeRead(Event, frozen=True, tag="range"):
    """A range of a blob was read beside others: `size` bytes from `offset` on, in so many `seconds` that end
    now. `lane`: one of those that a blob is read by at once, from 1."""

    host: str
    digest: str
    lane: int
    offset: int
    size: int
    seconds: float


class Observer(Protocol):
    """Takes events. Called on the loop's thread, must return at once and never raise."""

    def __call__(self, event: Event, /) -> None: ...


def ignore(event: Event, /) -> None:
    """The observer that looks away."""


class RangeMeter:
    """Counters of blobs that were read by several ranges at once: `blobs`, the `requests` for ranges and the
    `bytes` that came by them. `fallbacks`: how often one was read by one stream after all, by its reason."""

    __slots__ = ("blobs", "bytes", "fallbacks", "requests")

    def __init__(self) -> None:
        self.blobs = 0
        self.requests = 0
        self.bytes = 0
        self.fallbacks: Counter[str] = Counter()

    def add(self, other: RangeMeter) -> None:
        """Count what another has counted, too."""
        self.blobs += other.blobs
        self.requests += other.requests
        self.bytes += other.bytes
        self.fallbacks.update(other.fallbacks)

    def since(self, before: RangeMeter) -> RangeMeter:
        """What was counted beyond what an earlier state had."""
        counted = RangeMeter()
        counted.blobs = self.blobs - before.blobs
        counted.requests = self.requests - before.requests
        counted.bytes = self.bytes - before.bytes
        counted.fallbacks = self.fallbacks - before.fallbacks
        return counted


class HostMeter:
    """Counters of one host, and what is waited for there. Bytes are body bytes of blobs and manifests;
    requests are HTTP requests sent."""

    __slots__ = ("bytes_read", "bytes_written", "ranges", "requests", "waits")

    def __init__(self, waits: HostWaits | None = None) -> None:
        self.waits = waits or HostWaits()
        self.ranges = RangeMeter()
        self.requests = 0
        self.bytes_read = 0
        self.bytes_written = 0

    def since(self, before: HostMeter) -> HostMeter:
        """What was counted beyond what an earlier state had."""
        counted = HostMeter(self.waits)
        counted.ranges = self.ranges.since(before.ranges)
        counted.requests = self.requests - before.requests
        counted.bytes_read = self.bytes_read - before.bytes_read
        counted.bytes_written = self.bytes_written - before.bytes_written
        return counted


class WorkerMeter:
    """What one worker of an engine has brought: `copies`, with so many `bytes` of blobs; and of how many it
    said that they `failed`."""

    __slots__ = ("bytes", "copies", "failed")

    def __init__(self) -> None:
        self.copies = 0
        self.bytes = 0
        self.failed = 0

    def since(self, before: WorkerMeter) -> WorkerMeter:
        """What was counted beyond what an earlier state had."""
        counted = WorkerMeter()
        counted.copies = self.copies - before.copies
        counted.bytes = self.bytes - before.bytes
        counted.failed = self.failed - before.failed
        return counted


class PhaseCount:
    """How far something is: `done` of `total` things."""

    __slots__ = ("done", "total")

    def __init__(self) -> None:
        self.done = 0
        self.total = 0


class _HostMeters(dict[str, HostMeter]):
    """One meter a host, made when it is first asked for."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __missing__(self, host: str) -> HostMeter:
        self[host] = made = HostMeter(self._waits.at(host))
        return made


class Meter:
    """What went over the wire so far, by host. `active`: bytes moved so far of each copy step under way.
    `bytes_resent`: bytes of blobs that a target was sent beyond their sizes, since its uploads broke.
    `counts`: how far the parts of planning and verifying are, by their names; `waits`: what is waited for;
    `workers`: what those brought who carry blobs for this process, by their names."""

    def __init__(self) -> None:
        self.waits = Waits()
        self.hosts: dict[str, HostMeter] = _HostMeters(self.waits)
        self.active: dict[int, int] = {}
        self.bytes_resent = 0
        self.counts: defaultdict[str, PhaseCount] = defaultdict(PhaseCount)
        self.workers: defaultdict[str, WorkerMeter] = defaultdict(WorkerMeter)

    @property
    def requests(self) -> int:
        """HTTP requests sent."""
        return sum(host.requests for host in self.hosts.values())

    @property
    def bytes_read(self) -> int:
        """Of bodies of blobs and manifests, as is `bytes_written`."""
        return sum(host.bytes_read for host in self.hosts.values())

    @property
    def bytes_written(self) -> int:
        """Of bodies of blobs and manifests, as is `bytes_read`."""
        return sum(host.bytes_written for host in self.hosts.values())

    @property
    def ranges(self) -> RangeMeter:
        """Of all hosts together."""
        together = RangeMeter()
        for host in self.hosts.values():
            together.add(host.ranges)
        return together

    def since(self, before: Meter) -> Meter:
        """What was counted beyond what an earlier state had, without hosts and workers of which nothing was.
        Of `Meter()`: a copy."""
        counted = Meter()
        counted.bytes_resent = self.bytes_resent - before.bytes_resent
        for host, now in self.hosts.items():
            made = now.since(before.hosts.get(host) or HostMeter())
            if host not in before.hosts or made.requests or made.bytes_read or made.bytes_written:
                counted.hosts[host] = made
        for worker, done in self.workers.items():
            work = done.since(before.workers.get(worker) or WorkerMeter())
            if worker not in before.workers or work.copies or work.failed:
                counted.workers[worker] = work
        return counted
