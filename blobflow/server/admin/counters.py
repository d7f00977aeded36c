"""Counters of the registry: plain numbers, read by the metrics and the overview page."""

from __future__ import annotations

from collections import Counter

# What clients can send as a method has no bound, and what is counted once is held for good.
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"})


class Counters:
    """`requests` by method ("other": one that HTTP does not have), endpoint and status; bytes of bodies as
    they were announced, in and out."""

    __slots__ = ("received", "requests", "sent")

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.received = 0
        self.sent = 0

    def count(self, method: str, endpoint: str, status: int, *, received: int, sent: int) -> None:
        """Count a request and the bytes of its body and of its answer's."""
        self.requests[method if method in _METHODS else "other", endpoint, status] += 1
        self.received += received
        self.sent += sent
