"""Layouts as `cosign save` and hauler write them: what hangs on an image is told apart, and found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blobflow.content import Referrer, Site, Source
from blobflow.events import Meter
from blobflow.oci import Digest, digest_of, media
from blobflow.oci.referrers import cosign_tags
from blobflow.transports.local import LocalTransports
from blobflow.transports.store import Store
from tests.fakes.archives import tar_of

Descriptor = dict[str, Any]


class Saved:
    """What `cosign save` leaves of one image after another."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        self.entries: list[Descriptor] = []

    def manifest(self, words: str, **more: Any) -> Descriptor:
        config = self.blob(json.dumps({"words": words}).encode(), media.OCI_CONFIG)
        document = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": []}
        return self.blob(json.dumps(document | more).encode(), media.OCI_MANIFEST)

    def blob(self, raw: bytes, kind: str) -> Descriptor:
        digest = digest_of(raw)
        self.files[f"blobs/{digest.replace(':', '/')}"] = raw
        return {"mediaType": kind, "digest": digest, "size": len(raw)}

    def entry(self, of: Descriptor, kind: str, name: str = "") -> Descriptor:
        annotations = {"kind": f"dev.cosignproject.cosign/{kind}"}
        if name:
            annotations["org.opencontainers.image.ref.name"] = name
        self.entries.append(of | {"annotations": annotations})
        return of

    def place(self, folder: Path, form: str) -> str:
        files = self.files | {
            "index.json": json.dumps({"schemaVersion": 2, "manifests": self.entries}).encode()
        }
        if form == "archive":
            (folder / "saved.tar").write_bytes(tar_of(list(files.items())))
            return f"oci-archive:{folder}/saved.tar"
        for path, raw in files.items():
            (folder / "saved" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "saved" / path).write_bytes(raw)
        return f"oci:{folder}/saved"


@pytest.fixture(params=["layout", "archive"])
def form(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalTransports]:
    with closing(Store.open(tmp_path / "store")) as store, closing(LocalTransports(store, Meter())) as places:
        yield places


def source_at(local: LocalTransports, place: str) -> Any:
    source: Source = local.source(Site(place, ""))
    return source


async def hanging(source: Any, subject: Descriptor) -> dict[str, str]:
    """What refers to a manifest, by its tag, or how it is known."""
    found: list[Referrer] = await source.referrers(Digest(subject["digest"]))
    return {each.tag or each.how: each.manifest.digest for each in found}


@pytest.mark.parametrize("image_kind", ["image", "imageIndex"])
async def test_what_cosign_saved_hangs_on_the_image_before_it(
    tmp_path: Path, local: LocalTransports, form: str, image_kind: str
) -> None:
    saved = Saved()
    image = saved.entry(saved.manifest("app"), image_kind)
    signatures = saved.entry(saved.manifest("signatures"), "sigs")
    attestations = saved.entry(saved.manifest("attestations"), "atts")
    source = source_at(local, saved.place(tmp_path, form))
    assert (await source.resolve("")).digest == image["digest"]
    sig, att, _ = cosign_tags(image["digest"])
    assert await hanging(source, image) == {sig: signatures["digest"], att: attestations["digest"]}
    assert await source.has_referrers()


async def test_bundles_that_cosign_left_out_of_its_index_are_found(
    tmp_path: Path, local: LocalTransports, form: str
) -> None:
    saved = Saved()
    image = saved.entry(saved.manifest("app"), "image")
    bundle = saved.manifest(
        "bundle", subject=image, artifactType="application/vnd.dev.sigstore.bundle.v0.3+json"
    )
    saved.manifest("of another", subject=saved.blob(b"elsewhere", media.OCI_MANIFEST))
    source = source_at(local, saved.place(tmp_path, form))
    assert await hanging(source, image) == {"index": bundle["digest"]}


async def test_what_other_tools_leave_out_of_their_index_is_not_looked_for(
    tmp_path: Path, local: LocalTransports, form: str
) -> None:
    saved = Saved()
    image = saved.manifest("app")
    saved.entries.append(image)
    saved.manifest("untagged", subject=image)
    source = source_at(local, saved.place(tmp_path, form))
    assert await hanging(source, image) == {} and not await source.has_referrers()


async def test_of_hauler_s_images_each_has_its_own(tmp_path: Path, local: LocalTransports, form: str) -> None:
    """Their signatures have their names, and need not stand behind them."""
    saved = Saved()
    one = saved.entry(saved.manifest("one"), "image", "library/one:1")
    two = saved.entry(saved.manifest("two"), "image", "library/two:1")
    of_one = saved.entry(saved.manifest("signatures of one"), "sigs", "library/one:1")
    of_two = saved.entry(saved.manifest("signatures of two"), "sigs", "library/two:1")
    sbom = saved.entry(saved.manifest("sbom of two"), "sboms", "library/two:1")
    source = source_at(local, saved.place(tmp_path, form))
    assert await source.tags() == ["library/one:1", "library/two:1"]
    assert (await source.resolve("library/two:1")).digest == two["digest"]
    assert await hanging(source, one) == {cosign_tags(one["digest"])[0]: of_one["digest"]}
    sig, _, sboms = cosign_tags(two["digest"])
    assert await hanging(source, two) == {sig: of_two["digest"], sboms: sbom["digest"]}


async def test_signatures_without_an_image_are_what_they_are(
    tmp_path: Path, local: LocalTransports, form: str
) -> None:
    saved = Saved()
    lone = saved.entry(saved.manifest("signatures"), "sigs")
    source = source_at(local, saved.place(tmp_path, form))
    assert (await source.resolve("")).digest == lone["digest"]
    assert not await source.has_referrers()
