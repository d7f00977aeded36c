"""What a run over pairs and the execution of a saved plan have in common: how they are asked, and ended."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from blobflow.engine.closing import image_done
from blobflow.engine.concurrency.batches import Batches
from blobflow.engine.plan.steps import Pair
from blobflow.engine.policy import Policy
from blobflow.engine.results.collector import ResultCollector
from blobflow.engine.results.report import ImageRecord, Report
from blobflow.engine.transfer.runner import Transfer
from blobflow.errors import BlobflowError
from blobflow.events import Meter, Observer

Answer = TypeVar("Answer")


class Undertaking(Generic[Answer]):
    """One of them. Its targets answer in waves; what they allow is carried out by one transfer."""

    def __init__(self, pairs: Sequence[Pair], policy: Policy, observe: Observer, meter: Meter | None) -> None:
        self._policy = policy
        self._observe = observe
        self._meter = meter or Meter()
        self._tally = ResultCollector(pairs)
        self._told = 0
        self._transfer: Transfer | None = None
        self._batches: Batches[Answer] | None = None
        self._started = time.monotonic()

    def report(self) -> Report:
        """What has become of every image so far."""
        return self._tally.report(
            bytes_read=self._meter.bytes_read,
            written={host: meter.bytes_written for host, meter in self._meter.hosts.items()},
            resent=self._meter.bytes_resent,
            requests=self._meter.requests,
            seconds=time.monotonic() - self._started,
        )

    @property
    def errors(self) -> Mapping[Pair, BlobflowError]:
        """Why each failed image failed; a verb about one image exits with its code."""
        return self._tally.errors

    def wind_down(self) -> bool:
        """Start nothing new: what is under way ends, and `go` returns. False if nothing is under way yet."""
        if self._transfer is None or self._batches is None:
            return False
        self._batches.stop()
        self._transfer.wind_down()
        return True

    def _tell(self, record: ImageRecord) -> None:
        self._told += 1
        self._observe(image_done(record, self._told, self._tally.images))
