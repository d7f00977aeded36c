"""A soak: a mirror through a registry that fails one request in twenty, in whatever phase."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from blobflow.oci.sample_images import SampleSet, sample_set
from tests.deadlines import HANGS_AFTER
from tests.scenarios.child_process import wrong_blobs
from tests.scenarios.fault_rows import tag_at, untrue_tags
from tests.scenarios.registries import fill
from tools.checkout import TOP
from tools.registry.faulty import Fault, JournallingRegistry, Sometimes, journalling
from tools.registry.journal import Exchange

SEED = 41
# Of a hundred requests so many are drawn to fail; some breaks come after the end of a body, so that five do.
PERCENT = 6
MIB = 1024 * 1024
# The second part of a soak has nine times the images of the first, and may hold so much more memory: what a
# run knows of its images is some kilobytes each, and freed pages are not all given back.
GROWTH = 24 * MIB


async def soaked(
    images: SampleSet, source: JournallingRegistry, target: JournallingRegistry, cache: Path
) -> list[dict[str, Any]]:
    """Mirror a tenth of the images, then the rest; what the child tells of each."""
    names = [*images.images]
    child = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "tests.scenarios.soak_child",
            source.host,
            target.host,
            str(cache),
            str(len(names) // 10),
        ),
        cwd=TOP,
        stdin=PIPE,
        stdout=PIPE,
    )
    async with asyncio.timeout(HANGS_AFTER * 5):
        told, _ = await child.communicate("\n".join(names).encode())
    assert child.returncode == 0
    parts: list[dict[str, Any]] = json.loads(told)
    return parts


def completed_twice(exchanges: list[Exchange]) -> list[tuple[str, str]]:
    """Repositories and blobs whose upload was answered by 201 more than once."""
    seen: set[tuple[str, str]] = set()
    twice = []
    for each in exchanges:
        if (upload := each.completes) is not None:
            if upload in seen:
                twice.append(upload)
            seen.add(upload)
    return twice


@pytest.mark.parametrize("count", [30, pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
async def test_a_set_arrives_whole_through_registries_that_fail_one_request_in_twenty(
    tmp_path: Path, count: int
) -> None:
    images = sample_set(SEED, images=count, architectures=("amd64", "arm64"), layer_size=64 * 1024)
    often = [Fault("*", "/v2/", times=0, act=Sometimes(PERCENT, seed)) for seed in (SEED, SEED + 1)]
    async with (
        journalling(tmp_path / "s", often[:1]) as source,
        journalling(tmp_path / "t", often[1:]) as target,
    ):
        fill(source.store, images)
        parts = await soaked(images, source, target, tmp_path / "cache")
        struck = [each for each in (*source.journal, *target.journal) if each.struck]
        asked = len(source.journal) + len(target.journal)
        figures = {
            "images": count,
            "requests": asked,
            "struck": len(struck),
            "by": {
                kind: sum(kind in each.struck for each in struck)
                for kind in sorted({s for e in struck for s in e.struck})
            },
            "seconds": [part["seconds"] for part in parts],
            "resident": [part["resident"] // MIB for part in parts],
        }
        print(json.dumps(figures))
        assert [part["errors"] for part in parts] == [[], []]
        assert sum(part["arrived"] for part in parts) == count
        assert {name: tag_at(target.store, name) for name in images.images} == {
            name: index.digest for name, index in images.images.items()
        }
        assert not untrue_tags(images, target.store)
        assert not wrong_blobs(target.store.root)
        assert completed_twice([*target.journal]) == []
        assert len(struck) >= asked * 0.04, "or this was no soak"
        assert parts[1]["resident"] - parts[0]["resident"] < GROWTH
