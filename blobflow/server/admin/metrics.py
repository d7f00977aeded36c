"""A registry's metrics for Prometheus, made from its counters at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from blobflow.server.registry import Registry
from blobflow.transports.store.stats import StoreStats

CONTENT_TYPE = CONTENT_TYPE_LATEST


class RegistryMetrics:
    """The metrics of one registry; `stats`: what its store held when it was counted last."""

    def __init__(self, registry: Registry, stats: StoreStats) -> None:
        self._registry = registry
        self._census = stats
        self._collectors = CollectorRegistry()
        self._collectors.register(self)
        ProcessCollector(registry=self._collectors)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._collectors)

    def describe(self) -> list[Metric]:
        """Nothing: the metrics are known when they are collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        counters = self._registry.counters
        requests = CounterMetricFamily(
            "blobflow_requests", "Requests answered.", labels=("method", "route", "status")
        )
        for (method, endpoint, status), number in dict(counters.requests).items():
            requests.add_metric((method, endpoint, str(status)), number)
        yield requests
        yield CounterMetricFamily(
            "blobflow_received_bytes", "Bytes of requests' bodies, as announced.", value=counters.received
        )
        yield CounterMetricFamily(
            "blobflow_sent_bytes", "Bytes of answers' bodies, as announced.", value=counters.sent
        )
        yield GaugeMetricFamily(
            "blobflow_upload_sessions", "Upload sessions that are open.", value=len(self._registry.sessions)
        )
        yield GaugeMetricFamily(
            "blobflow_store_blobs", "Blobs and manifests in the store.", value=self._census.blobs
        )
        yield GaugeMetricFamily(
            "blobflow_store_bytes", "Bytes of blobs and manifests.", value=self._census.size
        )
        yield from self._upstream()

    def _upstream(self) -> Iterator[Metric]:
        pullthrough = self._registry.pullthrough
        if pullthrough is None:
            return
        asked = CounterMetricFamily(
            "blobflow_upstream_requests",
            "What was asked for that is pulled through: it was here (hit), was fetched (miss), could not be "
            "asked about (stale), could not be had (failed), or is not accepted by the policy (refused).",
            labels=("upstream", "kind", "outcome"),
        )
        for labels, number in pullthrough.outcomes.items():
            asked.add_metric(labels, number)
        yield asked
        read = CounterMetricFamily(
            "blobflow_upstream_read_bytes", "Bytes read from an upstream.", labels=("upstream",)
        )
        for host, number in pullthrough.bytes_read.items():
            read.add_metric((host,), number)
        yield read
