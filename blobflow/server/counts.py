"""What the registry counts while it works: plain numbers, read when somebody asks for them."""

from __future__ import annotations

from collections import Counter


class Counts:
    """`requests` by method, room and status; bytes of bodies as they were announced, in and out."""

    __slots__ = ("received", "requests", "sent")

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.received = 0
        self.sent = 0
