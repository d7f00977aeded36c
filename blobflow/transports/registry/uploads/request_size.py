"""How large a request's body to one host may be, as learned from refusals and breaks. No I/O.

Reverse proxies bound bodies (nginx: 1 MiB unless it is told otherwise), and end a longer one with 413, with
502, or by closing the connection; others drop a long upload now and then. What is too large for the way goes
by chunks: half as large after every lesson, down to `least_chunk_bytes`. All uploads to the host share what
one of them learns, and go by it with their next request.
"""

from __future__ import annotations

import re

from blobflow.content import COSTLY_SECONDS, LineRate
from blobflow.transports.registry.capabilities.profiles import (
    CHUNK_BYTES,
    WORTHWHILE_CHUNK_BYTES,
    LearnedLimits,
    Profile,
)

# Of a body that was cut, this much passed at least; less says nothing, since kept connections end at any
# time.
TELLING = 512 * 1024
# Two requests that ended within so much of one another ended for one reason.
_ALIKE = 8
# Squid (seen with 5.7) drops an upload at random once its request buffer, 512 KiB by default, is full, which
# takes a fast sender and a slow registry. Requests that fit into the buffer are safe.
_SQUID = re.compile(r"\(squid\b", re.IGNORECASE)
SQUID_BUFFER = 512 * 1024


class RequestSize:
    """The size of chunks at one host, and from which size on a body has to go by chunks. In bytes.

    Starts from what an earlier run noted, and notes a size that a chunk had to have, and that passed.
    """

    def __init__(self, profile: Profile, limits: LearnedLimits) -> None:
        self._limits = limits
        self._chunk = profile.chunk_bytes
        self._fixed = profile.bounded or profile.chunk_bytes != CHUNK_BYTES
        self._least = min(profile.least_chunk_bytes, profile.chunk_bytes)
        self._limited = False
        self._reason = ""
        self._noted = False
        self._ended_at: int | None = None
        noted = limits.body_limit()
        if noted is not None:
            self._chunk = max(self._least, min(self._chunk, noted))
            self._limited = self._noted = True

    @property
    def chunk_bytes(self) -> int:
        """The size of a chunk, now."""
        return self._chunk

    def chunk_for(self, line: LineRate) -> int:
        """The size of a chunk that is worth a request on this line: what passes in COSTLY_SECONDS, where its
        rate is known, and nothing that is known of the host asks for another size."""
        rate = line.bytes_per_second
        if rate is None or self._fixed or self._limited:
            return self._chunk
        return max(int(rate * COSTLY_SECONDS), WORTHWHILE_CHUNK_BYTES)

    @property
    def limit(self) -> int | None:
        """The largest body that is worth trying; None if any may pass."""
        return self._chunk if self._limited else None

    def passed_by(self, via: str | None) -> None:
        """Take in a Via header (RFC 9110, 7.6.3), which names the proxies on the way."""
        if (safe := safe_through(via)) is not None:
            self._lower(safe + 1)

    def refused(self, size: int) -> None:
        """A body of `size` was refused because of its size (413). If no smaller one can be had, that says
        nothing."""
        if size > self._least:
            self._reason = "413"
            self._lower(size // 2 + 1)  # so that all that is refused is the blob twice, at most

    def broke(self, size: int, passed: int, reason: str = "") -> None:
        """A request of `size` ended after `passed` bytes had left us, and what it brought is lost. `reason`:
        what it ended with, where that speaks of its size."""
        self._reason = reason or self._reason
        self._lower(max(min(size, passed) // 2, self._least) + 1)

    def shrink_most(self) -> None:
        """Breaks cost too much to look for the largest size that passes."""
        self._lower(0)

    def ended_alike(self, passed: int) -> bool:
        """A request's connection ended after `passed` bytes; whether the one before that did there too."""
        before, self._ended_at = self._ended_at, passed
        if before is None or passed < TELLING or abs(before - passed) > max(before, passed) // _ALIKE:
            return False
        self._reason = self._reason or "the connection closed"
        return True

    def passed(self, size: int) -> str:
        """A chunk of `size` arrived. Returns why chunks are as small, once, if that was learned from
        refusals."""
        if not self._reason or self._noted or size != self._chunk:
            return ""
        self._noted = True
        self._limits.limit_bodies(size)
        return self._reason

    def _lower(self, below: int) -> None:
        """Halve the chunk until it is smaller than `below`, or as small as it may be."""
        while self._chunk >= below and self._chunk > self._least:
            self._chunk = max(self._chunk // 2, self._least)
            self._noted = False
        self._limited = True


def safe_through(via: str | None) -> int | None:
    """The largest body, in bytes, that passes the proxies of a Via header safely; None if any does."""
    return SQUID_BUFFER if via and _SQUID.search(via) else None
