"""Images with signatures, SBOMs and attestations, shaped as cosign and others make them; and their bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal

from blobflow.content import Sink
from blobflow.oci import Descriptor, Digest, Manifest, digest_of, media, parse_manifest
from blobflow.oci.referrers import cosign_tags, fallback_tag, merge_referrers_index, referrer_descriptor
from tests.fakes.registry import Bytes

# An artifact's config that says nothing (image-spec manifest.md, "Guidance for an Empty Descriptor").
OCI_EMPTY = "application/vnd.oci.empty.v1+json"

SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SPDX = "application/spdx+json"
IN_TOTO = "application/vnd.in-toto+json"

How = Literal["subject", "sig", "att", "sbom"]
_SUFFIXES = ("sig", "att", "sbom")


class Content:
    """What is made: manifests with their bytes, the blobs, and which tags name what."""

    def __init__(self) -> None:
        self.blobs: dict[Digest, bytes] = {}
        self.manifests: dict[Digest, Manifest] = {}
        self.tags: dict[str, Digest] = {}

    def blob(self, content: bytes, kind: str) -> dict[str, object]:
        self.blobs[digest_of(content)] = content
        return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}

    def manifest(self, document: Mapping[str, object], kind: str, tag: str = "") -> Manifest:
        raw = json.dumps({"schemaVersion": 2, "mediaType": kind, **document}, indent=1).encode()
        made = parse_manifest(raw, kind)
        self.manifests[made.descriptor.digest] = made
        if tag:
            self.tags[tag] = made.descriptor.digest
        return made

    def image(self, architecture: str) -> Manifest:
        config = json.dumps({"os": "linux", "architecture": architecture}).encode()
        layer = f"layer for {architecture}".encode() * 1000
        return self.manifest(
            {
                "config": self.blob(config, media.OCI_CONFIG),
                "layers": [self.blob(layer, media.OCI_LAYER_GZIP)],
            },
            media.OCI_MANIFEST,
        )

    def index(self, children: Mapping[str, Manifest], tag: str = "") -> Manifest:
        items = [
            {**item_of(child.descriptor), "platform": {"os": "linux", "architecture": architecture}}
            for architecture, child in children.items()
        ]
        return self.manifest({"manifests": items}, media.OCI_INDEX, tag)

    def signature(self, subject: Manifest, how: How = "subject", words: str = "") -> Manifest:
        """cosign's: by its subject (`--registry-referrers-mode=oci-1-1`), or under a tag of its own."""
        digest = subject.descriptor.digest
        claim = {"critical": {"image": {"docker-manifest-digest": digest}}, "optional": words}
        layer = self.blob(json.dumps(claim).encode(), SIMPLE_SIGNING)
        layer["annotations"] = {"dev.cosignproject.cosign/signature": "MEUCIQ" + digest[7:20]}
        if how == "subject":
            return self.referrer(subject, SIGNATURE, layer)
        config = self.blob(b'{"architecture":"","os":"","rootfs":{"type":"layers"}}', media.OCI_CONFIG)
        tag = cosign_tags(digest)[_SUFFIXES.index(how)]
        return self.manifest({"config": config, "layers": [layer]}, media.OCI_MANIFEST, tag)

    def sbom(self, subject: Manifest) -> Manifest:
        words = json.dumps({"spdxVersion": "SPDX-2.3", "of": subject.descriptor.digest}).encode()
        return self.referrer(subject, SPDX, self.blob(words, SPDX))

    def referrer(self, subject: Manifest, artifact_type: str, *layers: dict[str, object]) -> Manifest:
        return self.manifest(
            {
                "artifactType": artifact_type,
                "config": self.blob(b"{}", OCI_EMPTY),
                "layers": list(layers),
                "subject": item_of(subject.descriptor),
                "annotations": {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
            },
            media.OCI_MANIFEST,
        )

    def by_subject(self) -> dict[Digest, list[Manifest]]:
        """Everything that has a subject."""
        subjects: dict[Digest, list[Manifest]] = {}
        for made in self.manifests.values():
            if made.subject is not None:
                subjects.setdefault(made.subject.digest, []).append(made)
        return subjects

    def listing(self) -> None:
        """Make the fallback indexes, as clients keep them."""
        for subject, found in self.by_subject().items():
            raw = merge_referrers_index(None, map(referrer_descriptor, found))
            assert raw is not None
            index = parse_manifest(raw, media.OCI_INDEX)
            self.manifests[index.descriptor.digest] = index
            self.tags[fallback_tag(subject)] = index.descriptor.digest

    async def put(self, sink: Sink) -> None:
        """Put all of it there: what has a subject before what it refers to, as the specification allows."""
        for digest, content in self.blobs.items():
            await sink.push(Descriptor("", digest, len(content)), Bytes(content))
        for manifest in sorted(self.manifests.values(), key=_rank):
            digest = manifest.descriptor.digest
            await sink.put(manifest.descriptor, manifest.raw)
            if tags := [tag for tag, named in self.tags.items() if named == digest]:
                await sink.put(manifest.descriptor, manifest.raw, tags)


def _rank(manifest: Manifest) -> tuple[bool, bool]:
    return manifest.is_index, manifest.subject is None


def item_of(descriptor: Descriptor) -> dict[str, object]:
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }


class Signed:
    """An image of two platforms: on the index and on each child a signature by subject, one of cosign's under
    its tag, and an SBOM, whose signature refers to it in turn."""

    def __init__(self, tag: str = "1") -> None:
        self.content = Content()
        self.children = {each: self.content.image(each) for each in ("amd64", "arm64")}
        self.index = self.content.index(self.children, tag)
        self.by_subject: dict[Digest, list[Manifest]] = {}
        self.by_tag: dict[Digest, list[Manifest]] = {}
        for subject in (self.index, *self.children.values()):
            digest = subject.descriptor.digest
            sbom = self.content.sbom(subject)
            self.by_subject[digest] = [self.content.signature(subject), sbom]
            self.by_subject[sbom.descriptor.digest] = [self.content.signature(sbom)]
            self.by_tag[digest] = [self.content.signature(subject, "sig")]

    @property
    def referrers(self) -> list[Manifest]:
        return [each for found in (self.by_subject, self.by_tag) for all in found.values() for each in all]


def digests(manifests: Sequence[Manifest]) -> set[Digest]:
    return {manifest.descriptor.digest for manifest in manifests}
