"""Signatures that lie beside their images in layouts and archives: carried to registries, or told of."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from blobflow import Pair, Reference
from blobflow.engine.policy import Policy
from blobflow.oci import Digest, digest_of, media
from blobflow.oci.referrers import cosign_tags, fallback_tag
from blobflow.settings import Settings
from tests.library import mirror
from tests.scenarios.registries import registries

Descriptor = dict[str, Any]


class Layout:
    """A layout with one image, `x`, and whatever is put beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self.entries: list[Descriptor] = []
        config = self.blob(b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}')
        self.image = self.manifest(config | {"mediaType": media.OCI_CONFIG})
        self.list(self.image, "x")

    def blob(self, raw: bytes, kind: str = "application/x-proof") -> Descriptor:
        digest = digest_of(raw)
        (self.folder / "blobs" / digest.replace(":", "/")).write_bytes(raw)
        return {"mediaType": kind, "digest": digest, "size": len(raw)}

    def manifest(self, config: Descriptor, **more: Any) -> Descriptor:
        document = {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": config,
            "layers": [],
            **more,
        }
        return self.blob(json.dumps(document).encode(), media.OCI_MANIFEST)

    def proof(self, text: str, subject: Descriptor | None) -> Descriptor:
        more = {"subject": subject} if subject else {}
        return self.manifest(self.blob(text.encode()), **more)

    def list(self, entry: Descriptor, name: str = "") -> None:
        named = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
        self.entries.append(entry | named)
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.entries}))

    def archive(self, path: Path) -> str:
        with tarfile.open(path, "w") as tar:
            tar.add(self.folder, ".")
        return f"oci-archive:{path}"


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Layout, list[Digest]]:
    """Signed as oras, regctl and cosign do it, and a signature signed for in turn; all that refers to it."""
    layout = Layout(tmp_path / "in")
    by_oras, by_regctl = layout.proof("oras", layout.image), layout.proof("regctl", layout.image)
    counter, by_cosign = layout.proof("counter", by_oras), layout.proof("cosign", None)
    other = layout.proof("of another", layout.blob(b"gone") | {"mediaType": media.OCI_MANIFEST})
    for unnamed in (by_oras, counter, other):
        layout.list(unnamed)
    document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [by_regctl]}
    subject = layout.image["digest"]
    layout.list(layout.blob(json.dumps(document).encode(), media.OCI_INDEX), fallback_tag(subject))
    layout.list(by_cosign, cosign_tags(subject)[0])
    layout.list({"mediaType": media.OCI_MANIFEST, "digest": digest_of(b"not here"), "size": 9})
    layout.list({"mediaType": "application/x-cache", "digest": digest_of(b"nor this"), "size": 9})
    return layout, [each["digest"] for each in (by_oras, by_regctl, counter, by_cosign)]


@pytest.mark.parametrize("form", ["layout", "archive"])
async def test_they_go_to_a_registry_with_their_image(
    tmp_path: Path, signed: tuple[Layout, list[Digest]], form: str
) -> None:
    layout, proofs = signed
    source = layout.archive(tmp_path / "in.tar") if form == "archive" else f"oci:{layout.folder}"
    async with registries(tmp_path, ["target"]) as [target]:
        pair = Pair(Reference(source, "", "x"), Reference(target.host, "app", "1"))
        report = await mirror([pair], Settings(cache_dir=tmp_path / "cache"))
        assert report.ok
        assert sorted(each.digest for each in report.images[0].referrers) == sorted(proofs)
        assert all(target.store.blobs.size_of(digest) is not None for digest in proofs)
        off = Policy(referrers="off")
        report = await mirror([pair], Settings(cache_dir=tmp_path / "other"), off)
        assert report.ok and not report.images[0].referrers


@pytest.mark.parametrize("form", ["layout", "archive"])
async def test_what_cosign_saved_gets_cosign_s_tags_at_a_registry(tmp_path: Path, form: str) -> None:
    layout = Layout(tmp_path / "in")
    layout.entries.clear()
    saved = {
        "image": layout.image,
        "sigs": layout.proof("signatures", None),
        "atts": layout.proof("attestations", None),
    }
    for kind, entry in saved.items():
        layout.list(entry | {"annotations": {"kind": f"dev.cosignproject.cosign/{kind}"}})
    bundle = layout.proof("a bundle, which cosign leaves out of the index", layout.image)
    source = layout.archive(tmp_path / "in.tar") if form == "archive" else f"oci:{layout.folder}"
    async with registries(tmp_path, ["target"]) as [target]:
        pair = Pair(Reference(source, ""), Reference(target.host, "app", "1"))
        report = await mirror([pair], Settings(cache_dir=tmp_path / "cache"))
        assert report.ok and report.images[0].digest == layout.image["digest"]
        assert len(report.images[0].referrers) == 3
        held = target.store.repositories
        for tag, kind in zip(cosign_tags(layout.image["digest"]), ("sigs", "atts"), strict=False):
            assert held.resolve("app", tag) == saved[kind]["digest"]
        assert held.media_type_of("app", bundle["digest"]) == media.OCI_MANIFEST


@pytest.mark.parametrize("form", ["layout", "archive"])
@pytest.mark.parametrize("name", ["other", ""])
async def test_what_is_wrong_beside_an_image_is_not_the_images_fault(
    tmp_path: Path, signed: tuple[Layout, list[Digest]], form: str, name: str
) -> None:
    layout, proofs = signed
    wrong = layout.proof("to be changed", None)
    (layout.folder / "blobs" / wrong["digest"].replace(":", "/")).write_bytes(b"something else")
    layout.list(wrong, name)
    long = layout.proof("long", layout.image)
    layout.list(long | {"size": long["size"] + 1}, "third")
    source = layout.archive(tmp_path / "in.tar") if form == "archive" else f"oci:{layout.folder}"
    async with registries(tmp_path, ["target"]) as [target]:
        pair = Pair(Reference(source, "", "x"), Reference(target.host, "app", "1"))
        report = await mirror([pair], Settings(cache_dir=tmp_path / "cache"))
        assert report.ok
        assert sorted(each.digest for each in report.images[0].referrers) == sorted(proofs)


@pytest.mark.parametrize("form", ["layout", "archive"])
async def test_an_sbom_of_a_large_blob_is_no_second_image(tmp_path: Path, form: str) -> None:
    layout = Layout(tmp_path / "in")
    layout.list(layout.proof("of a blob", layout.blob(b"x" * (5 << 20))))
    source = layout.archive(tmp_path / "in.tar") if form == "archive" else f"oci:{layout.folder}"
    async with registries(tmp_path, ["target"]) as [target]:
        pair = Pair(Reference(source, ""), Reference(target.host, "app", "1"))
        report = await mirror([pair], Settings(cache_dir=tmp_path / "cache"))
        assert report.ok and report.images[0].digest == layout.image["digest"]
