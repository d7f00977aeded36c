"""Layouts that oras, notation and cosign wrote, with what hangs on their images: to a registry and on."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from blobflow.engine.pairs import Pair
from blobflow.engine.results.report import ImageRecord
from blobflow.oci import Digest, Reference, parse_manifest
from blobflow.oci.referrers import cosign_tags
from blobflow.settings import Settings
from tests.library import mirror
from tests.scenarios.registries import registries
from tests.signature_vectors import signature_vectors

NOTATION = (
    "e2e-valid-signature",
    "e2e-valid-multiple-signatures",
    "e2e-invalid-signature",
    "e2e-expired-signature",
    "e2e-with-expired-cert",
    "e2e-with-timestamped-signature",
    "e2e-with-invalid-timestamped-signature",
)


def subjects_in(layout: Path) -> dict[str, str]:
    """The subject of every manifest of a layout that has one, read without blobflow's transports."""
    found = {}
    for path in (layout / "blobs/sha256").iterdir():
        try:
            document = json.loads(path.read_bytes())
        except ValueError:
            continue
        if isinstance(document, dict) and document.get("subject"):
            found[f"sha256:{path.name}"] = document["subject"]["digest"]
    return found


def below(root: str, subjects: dict[str, str], layout: Path) -> set[str]:
    """What refers to a manifest, to what it lists, and to these in turn."""
    found, waiting = set[str](), [root]
    while waiting:
        digest = waiting.pop()
        raw = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
        hanging = [each for each, subject in subjects.items() if subject == digest]
        found.update(hanging)
        waiting += hanging + [child.digest for child in parse_manifest(raw).manifests]
    return found


async def there_and_back(layout: Path, name: str, tmp_path: Path) -> list[ImageRecord]:
    """From the layout into a registry, and from there into a layout of our own."""
    async with registries(tmp_path, ["there"]) as [there]:
        way = [
            Reference(f"oci:{layout}", "", name),
            Reference(there.host, "app", "1"),
            Reference(f"oci:{tmp_path}/back", "", "1"),
        ]
        records = []
        for source, target in pairwise(way):
            report = await mirror([Pair(source, target)], Settings(cache_dir=tmp_path / "cache"))
            assert report.ok, report.images[0].error
            records.append(report.images[0])
        return records


@pytest.mark.parametrize(
    ("name", "count"), [("multi", 3), ("v1.3.8", 3), ("foobar", 2), ("unnamed", 0), ("config", 0)]
)
async def test_what_oras_attached_to_an_image_goes_with_it(tmp_path: Path, name: str, count: int) -> None:
    layout = signature_vectors("oras-referrers")
    into, back = await there_and_back(layout, name, tmp_path)
    wanted = below(into.digest, subjects_in(layout), layout)
    assert len(wanted) == count
    for record in (into, back):
        assert {each.digest for each in record.referrers} == wanted
        assert not any(each.left for each in record.referrers)


@pytest.mark.parametrize("name", NOTATION)
async def test_what_notation_signed_goes_with_its_signatures(tmp_path: Path, name: str) -> None:
    layout = signature_vectors("notation") / "oci_layout" / name
    into, back = await there_and_back(layout, "", tmp_path)
    wanted = below(into.digest, subjects_in(layout), layout)
    assert wanted
    for record in (into, back):
        assert {each.digest for each in record.referrers} == wanted
        assert {each.artifact_type for each in record.referrers} == {"application/vnd.cncf.notary.signature"}


@pytest.mark.parametrize("version", ["v1.4.0", "v2.1.0"])
async def test_what_cosign_saved_without_its_large_blobs_says_which_is_missing(
    tmp_path: Path, version: str
) -> None:
    layout = signature_vectors("slsa-container-layouts") / version / "container_workflow_dispatch"
    root = Digest((layout.parent / f"{layout.name}.digest").read_text().strip())
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    async with registries(tmp_path, ["there"]) as [there]:
        pair = Pair(Reference(f"oci:{layout}", ""), Reference(there.host, "app", "1"))
        report = await mirror([pair], Settings(cache_dir=tmp_path / "cache"))
        [image] = report.images
        assert (image.status, image.source_digest) == ("failed", root)
        missing = image.error.partition("has no blob ")[2][:71]
        assert missing.startswith("sha256:") and not (layout / "blobs" / missing.replace(":", "/")).exists()
        [attestations] = image.referrers
        assert (attestations.digest, attestations.how) == (entries[1]["digest"], "cosign")
        assert there.store.repositories.resolve("app", "1") is None
        assert there.store.repositories.resolve("app", cosign_tags(root)[1]) in (None, attestations.digest)
