"""Carrying: blobs of a plan that something else than this process copies: workers, here or elsewhere.

The coordinator of a run plans, mounts, puts manifests and tags; a `Carrier` brings the blobs. It is handed
one `Carriage` a blob, with every target that needs the blob now, so that whoever carries it reads it once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from blobflow.content import Site
from blobflow.errors import BlobflowError
from blobflow.oci import Descriptor


class Carriage(msgspec.Struct, frozen=True):
    """One blob that is to be read once, at `source`, and to arrive at every one of `targets`.

    Sites are registries: what lies in files of this machine is copied by the coordinator itself.
    """

    blob: Descriptor
    source: Site
    targets: tuple[Site, ...]


class Moved(msgspec.Struct, frozen=True):
    """How far a carriage is at one of its targets: `worker` has sent it so many `bytes`, of all attempts the
    last; 0 as it begins. Another worker begins anew where the first one died."""

    target: Site
    worker: str = ""
    bytes: int = 0


class Arrival(msgspec.Struct, frozen=True):
    """What became of a carriage at one of its targets. `error`: why it is not there, whole, with side and
    attempts, and with the carrier's name in its message; None: it is there. `worker`: who brought it."""

    target: Site
    error: BlobflowError | None
    worker: str = ""


Tell = Callable[[Moved | Arrival], None]


def tell_nobody(news: Moved | Arrival, /) -> None:
    """For who waits for the end."""


class Carrier(Protocol):
    """Copies blobs elsewhere, several at a time. Used from one event loop."""

    def capacity(self) -> int:
        """How many carriages are worth having under way now, those that wait at workers included. It follows
        the workers that come and go; 0: there is none just now, and one may come."""
        ...

    def on_room(self, call: Callable[[], None]) -> None:
        """Call whenever the capacity may have grown."""
        ...

    def takes(self, carriage: Carriage) -> bool:
        """Whether this carrier can bring it; what it can't, the coordinator copies."""
        ...

    async def carry(
        self, carriage: Carriage, *, size_left: int, tell: Tell = tell_nobody
    ) -> Sequence[Arrival]:
        """Bring the blob; one arrival a target. Failures are in the arrivals, never raised.

        `size_left`: bytes of the run that wait for a carrier, this carriage's among them, for who scales.
        `tell` may be called meanwhile, on the loop, with how far it is, and with each arrival as soon as it
        is known, so that a target that is done need not wait for a slow one; what nobody told is in the
        result. A carriage of which nothing was told yet has not begun.

        Raises BlobflowError only where the carrier as a whole is lost, which ends the run; on cancel the
        transfer is stopped, its upload session given up, before CancelledError goes on.
        """
        ...
