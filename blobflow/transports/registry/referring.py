"""What is known of one host's way with referrers, between the requests about them. Plain state."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from blobflow.oci import Digest


class Referring:
    """What is known of one host: whether it lists referrers, of which of them it took note, and the tags of
    its repositories with when they were told (seconds of the loop). One for all its repositories."""

    def __init__(self) -> None:
        self.lists: bool | None = None
        self.first = asyncio.Lock()
        self.locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self.tags: dict[str, tuple[float, frozenset[str] | None]] = {}
        self._noted: set[tuple[str, Digest]] = set()

    def put(self, repository: str, manifest: Digest, *, noted: bool) -> None:
        """Take in that a manifest was put; `noted`: the registry says that it took note of its subject."""
        self.tags.pop(repository, None)
        if noted:
            self.lists = True
            self._noted.add((repository, manifest))

    def noted(self, repository: str, manifest: Digest) -> bool:
        return (repository, manifest) in self._noted
