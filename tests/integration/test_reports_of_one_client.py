"""What a client's reports count, where it does several things."""

from __future__ import annotations

import asyncio
from pathlib import Path

from blobflow.client import Client
from blobflow.engine.pairs import Pair
from blobflow.events import Meter
from blobflow.oci import parse_reference
from blobflow.oci.sample_images import sample_set
from blobflow.planfile import load_plan, save_plan
from tests.scenarios.registries import fill, registries


async def test_each_report_counts_its_own_run(tmp_path: Path) -> None:
    async with registries(tmp_path, ["source", "first", "second"]) as [source, first, second]:
        images = sample_set(3, images=1)
        fill(source.store, images)
        [name] = images.images
        meter = Meter()
        async with Client(meter=meter) as client:
            looked_at = parse_reference(f"{source.host}/{name}")
            await client.inspect(looked_at)
            pairs = [Pair(looked_at, parse_reference(f"{to.host}/{name}")) for to in (first, second)]
            whole = [await client.mirror(pairs[:1]), await client.mirror(pairs[1:])]
            journals = [len(target.journal) for target in (first, second)]
            again = await client.execute(load_plan(save_plan(await client.plan(pairs[:1])), "plan"))
    for report, target, requests in zip(whole, (first, second), journals, strict=True):
        assert report.totals.bytes_written == report.targets[0].bytes_written > 0
        assert [each.host for each in report.run.hosts] == [source.host, target.host]
        assert report.run.hosts[1].requests == requests
    assert again.totals.bytes_written == 0
    assert meter.bytes_written == sum(report.totals.bytes_written for report in whole), (
        "the client's is of all"
    )


async def test_runs_of_one_client_at_the_same_time_are_in_nobodys_way(tmp_path: Path) -> None:
    async with registries(tmp_path, ["source", "first", "second"]) as [source, first, second]:
        images = sample_set(3, images=2)
        fill(source.store, images)
        async with Client() as client:
            pairs = [
                Pair(parse_reference(f"{source.host}/{name}"), parse_reference(f"{target.host}/{name}"))
                for name, target in zip(images.images, (first, second), strict=True)
            ]
            reports = await asyncio.gather(*(client.mirror([pair]) for pair in pairs))
    assert [[each.status for each in report.images] for report in reports] == [["done"], ["done"]]
