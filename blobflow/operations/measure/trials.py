"""Trials, their measurements, and the settings that these recommend. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, TypeVar

import msgspec

from blobflow.errors import UsageError
from blobflow.transports.registry.capabilities.profiles import UploadMethod

Way = Literal["up", "down", "copy"]
Setting = TypeVar("Setting", bound=Hashable)

MIB = 1024 * 1024
# From the fewest requests to the most.
FORMS: tuple[UploadMethod, ...] = ("single", "stream", "chunked")
# A rate that near the best is as good: no measurement over a network is more exact.
AS_GOOD = 0.95
# Blobs of a batch for each one under way at once, so that the end, with fewer under way, matters little;
# and how many there are at least, so that one slow answer matters little.
TURNS = 4
AT_LEAST = 16


class Batch(msgspec.Struct, frozen=True):
    """`blobs` of `size` bytes, `at_once` in parallel: what the trials between two cleanups move."""

    size: int
    at_once: int
    blobs: int


class TrialMatrix(msgspec.Struct, frozen=True):
    """The trials to run. `sizes` in bytes; `volume`: how many bytes one trial moves at most."""

    sizes: tuple[int, ...] = (MIB, 8 * MIB, 32 * MIB)
    at_once: tuple[int, ...] = (1, 4, 16)
    forms: tuple[UploadMethod, ...] = FORMS
    volume: int = 128 * MIB

    def lots(self) -> tuple[Batch, ...]:
        """The batches in order, without those that would move more than `volume`. Raises UsageError for
        none."""
        found = tuple(
            Batch(size, at_once, min(self.volume // size, max(TURNS * at_once, AT_LEAST)))
            for size in self.sizes
            for at_once in self.at_once
            if self.volume >= size * at_once
        )
        if not found:
            raise UsageError(f"no size fits into {self.volume} bytes a leg as often as it is to move at once")
        return found

    def bytes_to_move(self, *, copies: bool) -> int:
        """The bytes of all trials together; `copies`: a source is filled and read for the copies too."""
        ways = len(self.forms) * (2 if copies else 1) + 1 + copies
        return sum(lot.size * lot.blobs * ways for lot in self.lots())


class Trial(msgspec.Struct, frozen=True):
    """The measurement of one trial, from its first request to its last answer.

    `seconds` of wall time, `cpu` of this process. `p50` and `p99` of the seconds to an answer's headers, of
    requests that carry no blob. `failed` is a sentence, and then there are no numbers.
    """

    way: Way
    form: UploadMethod | Literal[""]
    size: int
    at_once: int
    blobs: int
    seconds: float = 0.0
    cpu: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    requests: int = 0
    failed: str = ""

    @property
    def rate(self) -> float:
        """Bytes per second."""
        return self.size * self.blobs / self.seconds if self.seconds else 0.0

    @property
    def cpu_a_gb(self) -> float:
        """CPU seconds per 10⁹ bytes."""
        return self.cpu * 1e9 / (self.size * self.blobs)


class Recommendation(msgspec.Struct, frozen=True):
    """The settings to use: blobs at once each way, and the upload methods that worked, the best one first."""

    up: int
    down: int
    forms: tuple[UploadMethod, ...]


class LeftBehind(msgspec.Struct, frozen=True):
    """What a registry would not delete: so many blobs of so many bytes in all."""

    site: str
    blobs: int
    size: int


class Measurements(msgspec.Struct, frozen=True):
    """The result of a run. `choice`: None if no upload method worked."""

    target: str
    legs: tuple[Trial, ...]
    choice: Recommendation | None
    left: tuple[LeftBehind, ...]


def recommend(legs: Sequence[Trial]) -> Recommendation | None:
    """The lowest concurrency, and the method with the fewest requests, that are as good as the best."""
    up = [leg for leg in legs if leg.way == "up" and not leg.failed]
    down = [leg for leg in legs if leg.way == "down" and not leg.failed]
    if not up:
        return None
    by_form = scores(up, lambda leg: leg.form or FORMS[0])
    worked = [form for form in FORMS if form in by_form]
    first = next(form for form in worked if by_form[form] >= AS_GOOD * max(by_form.values()))
    rest = tuple(form for form in worked if form != first)
    most_up = _fewest(up)
    return Recommendation(most_up, _fewest(down) if down else most_up, (first, *rest))


def _fewest(legs: Sequence[Trial]) -> int:
    by_number = scores(legs, lambda leg: leg.at_once)
    return min(number for number, score in by_number.items() if score >= AS_GOOD * max(by_number.values()))


def scores(legs: Sequence[Trial], setting: Callable[[Trial], Setting]) -> dict[Setting, float]:
    """The share of each size's best rate that a setting reached, the mean over the sizes that it ran with."""
    best: dict[int, float] = {}
    reached: dict[Setting, dict[int, float]] = {}
    for leg in legs:
        best[leg.size] = max(best.get(leg.size, 0.0), leg.rate)
        mine = reached.setdefault(setting(leg), {})
        mine[leg.size] = max(mine.get(leg.size, 0.0), leg.rate)
    return {
        value: sum(rate / best[size] for size, rate in rates.items()) / len(rates)
        for value, rates in reached.items()
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the values do not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0
