"""Custom transports: a user's own hosts, whose Sources and Sinks the user provides.

A host is the first part of a Reference, and can be any name: `Reference("shelf", "team/app", "1.0")` is at
the host `shelf`. `Client(transports=CustomTransports(sources={"shelf": ShelfSource}))` then reads what is
there through `ShelfSource(site)`, made once a run for each `Site` (the host and a repository).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from blobflow.content import SinkAt, Site, SourceAt

_Made = TypeVar("_Made")


class CustomTransports(msgspec.Struct, frozen=True):
    """What is made for a `Site`, by host: a class whose only argument that is, or a function.

    `blobflow.content` says what a Source and a Sink promise. A host may be in one of the two, or in both.
    What they read and write is in the report's bytes if they count it: in `meter.hosts[host]`, of the Meter
    that `mirror` was given.
    """

    sources: Mapping[str, SourceAt] = {}
    sinks: Mapping[str, SinkAt] = {}


class OncePerSite(Generic[_Made]):
    """What was made for each site, for one run."""

    def __init__(self, makers: Mapping[str, Callable[[Site], _Made]]) -> None:
        self._makers = makers
        self._made: dict[Site, _Made] = {}

    def at(self, site: Site) -> _Made | None:
        """None: the host is none of these."""
        if site.registry not in self._makers:
            return None
        if site not in self._made:
            self._made[site] = self._makers[site.registry](site)
        return self._made[site]
