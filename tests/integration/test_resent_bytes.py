"""How much of a blob goes again where its uploads break, what ends that, and how the report tells it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from blobflow.cli.output.report_text import summary_lines
from blobflow.content import BlobReader, Site
from blobflow.engine.execution import run_of_pairs
from blobflow.engine.policy import KEEP_GOING
from blobflow.engine.results.report import Report
from blobflow.errors import BlobflowError, ConnectionLost, TimedOut
from blobflow.events import Meter
from blobflow.oci import Descriptor
from blobflow.oci.sample_images import sample_set
from blobflow.settings import Settings
from blobflow.transports.registry import HostSettings, Profile
from blobflow.transports.store import Store
from tests.fakes.memory_registry import MemoryPlace
from tests.library import mirror
from tests.scenarios.custom_transports import pairs_of
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.registries import fill
from tools.registry.faulty import Fault, ForgetBroken, Reset, journalling

MIB = 1024 * 1024
LARGE = sample_set(11, images=1, architectures=("amd64",), layer_size=2 * MIB)
LARGEST = max(LARGE.blobs.values(), key=len)


class Breaking(MemoryPlace):
    """Takes large blobs whole and loses them, so many times each."""

    def __init__(
        self, bench: MirrorScenario, site: Site, losses: dict[str, int], error: BlobflowError
    ) -> None:
        super().__init__(bench.targets[site.registry], site)
        self._losses = losses
        self._error = error

    async def push(self, blob: Descriptor, body: BlobReader) -> None:
        if blob.size < MIB or not self._losses.setdefault(blob.digest, 2):
            return await super().push(blob, body)
        self._losses[blob.digest] -= 1
        async with body.open(0) as chunks:
            async for _ in chunks:
                pass
        raise self._error


async def losing(tmp_path: Path, times: int, error: BlobflowError) -> tuple[Report, Meter]:
    """Mirror one image to a target that loses each of its large blobs so many times."""
    store = Store.open(tmp_path / "store")
    try:
        bench = MirrorScenario(store, LARGE)
        bench.target()
        losses = dict.fromkeys(LARGE.blobs, times)
        services = msgspec.structs.replace(
            bench.services(), sink_at=lambda site: Breaking(bench, site, losses, error)
        )
        run = run_of_pairs(bench.pairs, KEEP_GOING, meter=services.meter)
        return await run.execute(services), services.meter
    finally:
        store.close()


@pytest.mark.parametrize("error", [ConnectionLost("cut", received=2 * MIB), TimedOut("silent")], ids=str)
async def test_a_blob_that_is_lost_twice_arrives_and_the_report_tells_what_that_cost(
    tmp_path: Path, error: BlobflowError
) -> None:
    report, meter = await losing(tmp_path, 2, error)
    assert report.ok
    again = sum(2 * len(each) for each in LARGE.blobs.values() if len(each) >= MIB)
    assert report.totals.bytes_resent == meter.bytes_resent == again > 0
    assert any("of it again)" in line for line in summary_lines(report))


async def test_a_blob_is_not_sent_a_fourth_time_and_the_reason_is_told(tmp_path: Path) -> None:
    report, meter = await losing(tmp_path, 10**6, ConnectionLost("cut", received=2 * MIB))
    (image,) = report.images
    assert image.status == "failed"
    sent = len(LARGEST) / 1e6
    assert f"given up after {3 * sent:.1f} MB were sent for {sent:.1f} MB" in image.error
    assert f"`blobflow probe {image.target.rpartition(':')[0]}-probe`" in image.error
    large = sum(len(each) for each in LARGE.blobs.values() if len(each) >= MIB)
    assert meter.bytes_resent == 2 * large
    assert report.totals.bytes_resent == 2 * large


async def test_a_run_without_breaks_says_nothing_of_them(tmp_path: Path) -> None:
    report, _ = await losing(tmp_path, 0, ConnectionLost("cut"))
    assert report.ok and report.totals.bytes_resent == 0
    assert not any("again" in line for line in summary_lines(report))


@pytest.mark.parametrize("after", [300_000, 600_000, 1_500_000])
async def test_a_way_that_lets_little_through_costs_three_times_the_blob_at_most(
    tmp_path: Path, after: int
) -> None:
    """A registry that forgets what breaks, behind what resets every request after so many bytes."""
    faults = [
        Fault("*", "/uploads/", times=0, act=ForgetBroken()),
        Fault("PATCH", "", times=0, act=Reset(after=after)),
        Fault("PUT", "digest=", times=0, act=Reset(after=after)),
    ]
    async with journalling(tmp_path / "s") as source, journalling(tmp_path / "t", faults) as target:
        fill(source.store, LARGE)
        profile = Profile("p", least_chunk_bytes=128 * 1024)
        settings = Settings(
            cache_dir=tmp_path / "cache", concurrency=1, hosts={target.host: HostSettings(profile=profile)}
        )
        report = await mirror(pairs_of(source.host, target.host, LARGE), settings)
    whole = sum(map(len, LARGE.blobs.values()))
    assert report.totals.bytes_written <= 3 * whole
    assert report.ok
