"""Lines that break every few megabytes: what arrives, and how much of it had to pass twice.

The line is a relay (tools/network_path.py) that resets each connection after a number of bytes drawn from an
exponential distribution. The short forms run always; the long ones are soaks: `pytest -m soak`.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.e2e.conftest import StartsRegistries
from tools import imageset
from tools.imageset import Layout
from tools.network_path import LongPath, Shape, long_path
from tools.processes import Registry, Run, blobflow, blobflow_serve
from tools.registry.zeros import zero_registry

SOAK = pytest.mark.soak
MEAN = 12_000_000  # bytes that a connection carries, on average
# Bytes that pass at most, of each byte that must.
AT_MOST = 1.2


async def over_cut_lines(
    command: list[str], source: str, targets: list[str], *, mean: int, home: Path
) -> tuple[Run, LongPath, list[LongPath]]:
    """Run blobflow with `{source}` and `{0}`, `{1}` … standing for the hosts as seen through cut lines."""
    async with AsyncExitStack() as stack:
        desired_images = [Shape(cut_mean=mean, seed=number) for number in range(1 + len(targets))]
        paths = [
            await stack.enter_async_context(long_path(host, shape))
            for host, shape in zip([source, *targets], desired_images, strict=True)
        ]
        hosts = [path.host for path in paths[1:]]
        words = [word.format(*hosts, source=paths[0].host) for word in command]
        run = await asyncio.to_thread(blobflow, *words, home=home)
        return run, paths[0], paths[1:]


@pytest.mark.parametrize(
    "size",
    [192 << 20, pytest.param(2 << 30, marks=[SOAK, pytest.mark.timeout(300)])],
    ids=["192-mib", "2-gib"],
)
async def test_a_blob_much_larger_than_what_a_connection_carries_arrives(
    size: int, tmp_path: Path, home: Path
) -> None:
    """Down from its byte, up from what the registry confirms: little passes twice."""
    with zero_registry() as source, blobflow_serve(tmp_path / "target") as target:
        layer = source.hold_image(size)
        command = ["copy", "{source}/giant:1", "{0}/giant:1", "--cache", "all"]
        run, down, (up,) = await over_cut_lines(command, source.host, [target.host], mean=MEAN, home=home)
        assert run.code == 0, run.err
        assert target.digest_of("giant", "1") == source.tags["1"]
        assert target.ask("HEAD", f"/v2/giant/blobs/{layer}")[0] == 200
        print(f"read {down.down / size:.3f}, sent {up.up / size:.3f} of its size, {down.cuts + up.cuts} cuts")
        assert down.cuts and up.cuts
        assert down.down <= AT_MOST * size
        assert up.up <= AT_MOST * size


async def test_a_set_arrives_over_cut_lines_on_both_sides(
    start_registry: StartsRegistries, tmp_path: Path, home: Path
) -> None:
    """docker-registry 2.8.2 forgets an upload that breaks: such a blob is sent again, read once."""
    layout = imageset.synthetic(tmp_path / "set", seed=3)
    source, target = start_registry("source"), start_registry("target")
    imageset.push(layout.path, source.host)
    await assert_set_arrives(layout, source, target, mean=1_000_000, home=home)


@SOAK
@pytest.mark.timeout(900)
async def test_the_debian_set_arrives_over_cut_lines_on_both_sides(
    debian_set: Layout, debian_source: Registry, tmp_path: Path, home: Path
) -> None:
    """Its largest blobs are six times what a connection carries: the target has to keep what came of them."""
    with blobflow_serve(tmp_path / "target") as target:
        await assert_set_arrives(debian_set, debian_source, target, mean=MEAN, home=home)


async def assert_set_arrives(
    layout: Layout, source: Registry, target: Registry, *, mean: int, home: Path
) -> None:
    command = ["sync", "--from", "{source}", "--images", str(layout.path / "images.txt"), "--to", "{0}/m"]
    run, down, (up,) = await over_cut_lines(command, source.host, [target.host], mean=mean, home=home)
    assert run.code == 0, run.err
    print(f"{run.wall:.0f} s, {down.cuts + up.cuts} cuts, {down.down} bytes read, {up.up} bytes sent")
    assert down.cuts and up.cuts
    for image in layout.images.values():
        assert target.digest_of(f"m/{image.repository}", image.tag) == image.digest
