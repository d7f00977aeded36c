"""The lines to the sources of one transfer."""

from __future__ import annotations

from blobflow.content import Journal, LineRate, Site
from blobflow.oci.local_reference import transport_of

# The journal's key for the bytes a second that one blob was read with.
READ_RATE = "line.read"


class LineRates:
    """One `LineRate` a source registry, noted in the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lines: dict[str, LineRate] = {}

    def of(self, source: Site) -> LineRate | None:
        """The line to a source; None to what is on this machine's disks, and costs little to read again."""
        registry = source.registry
        if transport_of(registry):
            return None
        if registry not in self._lines:
            self._lines[registry] = LineRate(self._journal, registry, READ_RATE)
        return self._lines[registry]
