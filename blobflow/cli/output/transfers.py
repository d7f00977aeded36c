"""The blobs that are under way, as samples of the meter show them: how far each is, how fast, and since when
it stands still. Sans-IO; `clock` in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from blobflow.cli.output.event_text import image_name, registry_of
from blobflow.cli.output.pace import Rate, Stillness
from blobflow.cli.output.units import one_line, short_digest, size_text
from blobflow.cli.output.wait_text import span_text
from blobflow.events import Event, Meter, StepDone, StepFailed, StepStarted
from blobflow.oci.local_reference import transport_of
from blobflow.waits import Wait, WaitKind

# Whoever waits for one of these at a host moves no byte there, which is no stall then.
_REASONS: frozenset[WaitKind] = frozenset({"rest", "retry", "rate", "connect", "tls", "quota"})


class BlobTransfer:
    """One blob on its way to one target. `moved` bytes so far."""

    def __init__(self, event: StepStarted, now: float) -> None:
        self.step = event.step
        self.digest = event.digest
        self.size = event.size
        self.name = one_line(image_name(event.image) if event.image else short_digest(event.digest))
        self.source = one_line(registry_of(event.image) or "its source")
        self.target = one_line(registry_of(event.target))
        self.moved = 0
        self._rate = Rate()
        self._stillness = Stillness(now)

    def saw(self, moved: int, now: float) -> None:
        """So many bytes have moved by now."""
        self.moved = min(moved, self.size)
        self._rate.saw(self.moved, now)
        self._stillness.saw(self.moved, now)

    def stalled(self, now: float) -> float:
        """Seconds for which no byte has moved that was to; 0: bytes move, or all have."""
        return self._stillness.seconds(now) if self.moved < self.size else 0.0

    def speed_text(self, now: float) -> str:
        """`3.2 MB/s`, `0 B/s for 14 s`; what is done but for the target's answer has none."""
        if self.moved >= self.size:
            return "not confirmed yet"
        if still := self.stalled(now):
            return f"0 B/s for {span_text(int(still))}"
        return f"{size_text(int(self._rate.value))}/s" if self._rate.value else ""

    def amount_text(self) -> str:
        """`250 kB of 1.0 MB`."""
        return f"{size_text(self.moved)} of {size_text(self.size)}"


class Transfers:
    """The blobs under way, the oldest first."""

    def __init__(self, meter: Meter, clock: Callable[[], float]) -> None:
        self._meter = meter
        self._clock = clock
        self._under_way: dict[int, BlobTransfer] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def __iter__(self) -> Iterator[BlobTransfer]:
        return iter(self._under_way.values())

    def first(self, most: int) -> list[BlobTransfer]:
        """The oldest."""
        return list(islice(self, most))

    def take(self, event: Event) -> None:
        """Learn of copies that begin and end."""
        match event:
            case StepStarted(kind="copy"):
                self._under_way[event.step] = BlobTransfer(event, self._clock())
            case StepDone() | StepFailed():
                self._under_way.pop(event.step, None)

    def look(self) -> None:
        """Take the meter's figures."""
        now, active = self._clock(), self._meter.active
        for each in self:
            each.saw(active.get(each.step, 0), now)

    def stalls(self, waits: Iterable[Wait]) -> list[Wait]:
        """Those that stand still, as waits for who keeps them. `waits`: all others; what one of these is
        about is explained by it."""
        now, found, about = self._clock(), [], list(waits)
        excused = {wait.host for wait in about if wait.kind in _REASONS}
        for each in self:
            if (still := each.stalled(now)) and not excused & {each.source, each.target}:
                own = [wait for wait in about if each.digest in wait.what]
                kind = _stall_of(each, own)
                if kind is not None:
                    host = each.source if kind == "source-stall" else each.target
                    found.append(Wait(kind, host, f"{each.name} ({each.amount_text()})", now - still))
        return found


def _stall_of(blob: BlobTransfer, waits: Sequence[Wait]) -> WaitKind | None:
    """Who keeps a blob that stands still, of which these waits are; None: they say it themselves."""
    kinds = {wait.kind for wait in waits}
    if kinds - {"send", "pull"}:
        return None
    if "send" in kinds:
        return "target-stall"
    # A small blob is read whole before anything is sent. Of what happens in files nothing is known.
    return "source-stall" if kinds or not transport_of(blob.target) else "stall"
