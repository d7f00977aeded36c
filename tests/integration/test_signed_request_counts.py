"""What a signature may cost at most, in requests, beside what its image costs (test_request_counts)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from blobflow.engine.pairs import Pair
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.oci import Reference
from blobflow.settings import Settings
from tests.fakes.signature_judge import FakeJudge
from tests.library import mirror
from tests.scenarios.registries import registries
from tests.scenarios.request_kinds import counted
from tests.scenarios.signed_images import Content, How
from tests.scenarios.signed_registries import load
from tools.registry.faulty import JournallingRegistry

IMAGES = 6
JUDGED = Policy(signatures=FakeJudge())


@asynccontextmanager
async def filled(folder: Path, how: How | None) -> AsyncIterator[list[JournallingRegistry]]:
    """A source of images in repositories of their own, signed in some way or not at all, and an empty
    target."""
    async with registries(folder, ["source", "target"]) as found:
        for name in map(str, range(IMAGES)):
            content = Content()
            made = content.image(name)
            content.tags["1"] = made.descriptor.digest
            if how is not None:
                content.signature(made, how)
            load(found[0].store, f"app{name}", content)
        yield found


async def cost(folder: Path, how: How | None, policy: Policy = KEEP_GOING) -> list[Counter[str]]:
    """The requests at the source and at the target of one run into an empty registry."""
    async with filled(folder, how) as [source, target]:
        names = [f"app{name}" for name in range(IMAGES)]
        pairs = [
            Pair(Reference(source.host, name, "1"), Reference(target.host, f"mirror/{name}", "1"))
            for name in names
        ]
        report = await mirror(pairs, Settings(cache_dir=folder / "cache"), policy)
        assert report.ok, [image.error for image in report.images]
        assert all(bool(image.signatures) == (policy is JUDGED) for image in report.images)
        return [counted(source.journal), counted(target.journal)]


@pytest.mark.parametrize("policy", [KEEP_GOING, JUDGED], ids=["not judged", "judged"])
@pytest.mark.parametrize("how", ["sig", "subject"])
async def test_a_signature_is_read_in_two_requests_and_written_in_four(
    tmp_path: Path, how: How, policy: Policy
) -> None:
    plain, signed = await cost(tmp_path / "plain", None), await cost(tmp_path / "signed", how, policy)
    source, target = signed[0] - plain[0], signed[1] - plain[1]
    assert source.pop("GET blobs") == IMAGES + 1, "the payloads, and a config that is the same for all"
    assert source.pop("GET manifests") == IMAGES, "the manifest comes with what the tag names"
    assert source.pop("GET referrers") <= IMAGES, "whether the signature is signed in turn"
    assert not source
    assert target == {
        "POST uploads": IMAGES + 1,
        "PUT uploads": IMAGES + 1,
        "POST mount": IMAGES - 1,
        "PUT manifests": IMAGES,
    }
    assert not (plain[0] - signed[0]) + (plain[1] - signed[1])
