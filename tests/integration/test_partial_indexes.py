"""A part of an index in a layout, copied to a registry: what is there goes on, and is not taken for all."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from blobflow import Pair, Reference
from blobflow.engine.saved.plan import to_saved_plan
from blobflow.events import Event, Warned
from blobflow.oci import parse_manifest
from blobflow.oci.sample_images import sample_set
from blobflow.settings import Settings
from tests.library import execute, mirror, plan
from tests.scenarios.fault_rows import tag_at
from tests.scenarios.registries import registries
from tools.registry.faulty import JournallingRegistry

IMAGES = sample_set(5, images=1, architectures=("amd64", "arm64", "arm"), layer_size=8192)
[(NAME, ROOT)] = IMAGES.images.items()
REPOSITORY, _, TAG = NAME.rpartition(":")
CHILDREN = parse_manifest(ROOT.raw, ROOT.media_type).manifests


def layouts(tmp_path: Path) -> tuple[Path, Path]:
    """A layout with the whole index, and one with the first of its images alone."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    (whole / "blobs" / "sha256").mkdir(parents=True)
    contents: Mapping[str, bytes] = {
        **IMAGES.blobs,
        **{digest: stored.raw for digest, stored in IMAGES.manifests.items()},
    }
    for digest, raw in contents.items():
        (whole / "blobs" / digest.replace(":", "/")).write_bytes(raw)
    (whole / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (whole / "index.json").write_text(
        f'{{"schemaVersion":2,"manifests":[{{"mediaType":"{ROOT.media_type}","digest":"{ROOT.digest}",'
        f'"size":{len(ROOT.raw)}}}]}}'
    )
    shutil.copytree(whole, part)
    for child in CHILDREN[1:]:
        (part / "blobs" / child.digest.replace(":", "/")).unlink()
    return whole, part


def pair(source: Path, target: JournallingRegistry) -> Pair:
    return Pair(Reference(f"oci:{source}", ""), Reference(target.host, REPOSITORY, TAG))


def there(target: JournallingRegistry) -> list[bool]:
    return [target.store.blobs.size_of(child.digest) is not None for child in CHILDREN]


async def test_the_rest_comes_when_a_source_has_it(tmp_path: Path) -> None:
    whole, part = layouts(tmp_path)
    settings, events = Settings(cache_dir=tmp_path / "cache"), list[Event]()
    async with registries(tmp_path, ["target"]) as [target]:
        for _ in range(2):
            report = await mirror([pair(part, target)], settings, observer=events.append)
            assert report.ok and tag_at(target.store, NAME) == ROOT.digest
            assert there(target) == [True, False, False]
        assert [event.message for event in events if isinstance(event, Warned)] == [
            f"oci:{part} has only a part of its index {ROOT.digest}, linux/amd64 goes on: "
            "2 that it does not have are left out"
        ] * 2
        report = await mirror([pair(whole, target)], settings)
        assert [image.status for image in report.images] == ["done"]
        assert there(target) == [True, True, True]


async def test_a_saved_plan_says_no_more_than_was_done(tmp_path: Path) -> None:
    whole, part = layouts(tmp_path)
    settings = Settings(cache_dir=tmp_path / "cache")
    async with registries(tmp_path, ["target"]) as [target]:
        saved = to_saved_plan(await plan([pair(part, target)], settings))
        assert (await execute(saved, settings)).ok
        assert there(target) == [True, False, False]
        assert (await mirror([pair(whole, target)], settings)).ok
        assert there(target) == [True, True, True]
