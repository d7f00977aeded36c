"""What registries were asked, in words: for tests that count requests."""

from __future__ import annotations

from collections import Counter

from tools.registry.journal import Exchange, Journal


def kind_of(exchange: Exchange) -> str:
    """A request in words: `GET blobs`, `POST mount`."""
    for part in ("uploads", "blobs", "manifests", "tags", "referrers"):
        if f"/{part}/" in exchange.path:
            return f"{exchange.method} {'mount' if 'mount' in exchange.query else part}"
    return f"{exchange.method} {exchange.path}"


def counted(journal: Journal) -> Counter[str]:
    """How many requests of each kind there were."""
    return Counter(map(kind_of, journal))
