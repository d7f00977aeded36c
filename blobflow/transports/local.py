"""Layouts and archives of one run, by their sites: each is opened once, and closed or completed at the end."""

from __future__ import annotations

from pathlib import Path

from blobflow.content import Site
from blobflow.events import Meter
from blobflow.oci.location import LAYOUT, path_of, transport_of
from blobflow.transports.layout import Layout


class LocalPlaces:
    """The places of a run that are no registries."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._layouts: dict[Site, Layout] = {}

    def source(self, site: Site) -> Layout:
        return self._layout(site)

    def sink(self, site: Site) -> Layout:
        return self._layout(site)

    def _layout(self, site: Site) -> Layout:
        assert transport_of(site.registry) == LAYOUT
        if site not in self._layouts:
            self._layouts[site] = Layout(site, Path(path_of(site.registry)), self._meter.hosts[site.registry])
        return self._layouts[site]
