"""A small world of images in which every kind of reference occurs, and what reaches what in it."""

from __future__ import annotations

import json
from collections.abc import Iterable

import msgspec

from blobflow.oci import Digest, digest_of
from blobflow.oci.media import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST

_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Content(msgspec.Struct, frozen=True):
    """A blob or (with a `media_type`) a manifest. `blobs` and `children`: what it names; `subject`: what it
    refers to."""

    name: str
    raw: bytes
    media_type: str = ""
    blobs: tuple[Digest, ...] = ()
    children: tuple[Digest, ...] = ()
    subject: Digest | None = None

    @property
    def digest(self) -> Digest:
        return digest_of(self.raw)

    @property
    def is_index(self) -> bool:
        return self.media_type == OCI_INDEX

    @property
    def room(self) -> str:
        """Where it is in a repository's paths."""
        return "manifests" if self.media_type else "blobs"


def blob(name: str, raw: bytes) -> Content:
    return Content(name, raw)


def _mention(content: Content, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "digest": content.digest, "size": len(content.raw)}


def image(name: str, config: Content, *layers: Content, subject: Content | None = None) -> Content:
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _mention(config, OCI_CONFIG),
        "layers": [_mention(layer, _LAYER) for layer in layers],
    }
    if subject is not None:
        document["artifactType"] = "application/vnd.example.signature"
        document["subject"] = _mention(subject, subject.media_type)
    named = (config, *layers)
    return Content(
        name,
        json.dumps(document).encode(),
        OCI_MANIFEST,
        blobs=tuple(each.digest for each in named),
        subject=subject.digest if subject else None,
    )


def index(name: str, *manifests: Content) -> Content:
    children = [_mention(each, each.media_type) for each in manifests]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    raw = json.dumps(document).encode()
    return Content(name, raw, OCI_INDEX, children=tuple(each.digest for each in manifests))


def _config(architecture: str) -> Content:
    return blob(f"config-{architecture}", json.dumps({"os": "linux", "architecture": architecture}).encode())


_SHARED = blob("shared", b"what two images share " * 40)
_A, _B, _C = (blob(f"layer-{name}", f"the layer {name} ".encode() * 50) for name in "abc")
_SIGNATURE = blob("signature", b"a signature")
AMD64 = image("amd64", _config("amd64"), _A, _SHARED)
ARM64 = image("arm64", _config("arm64"), _B, _SHARED)
S390X = image("s390x", _config("s390x"), _C)
SIGNED = image("signed", blob("empty", b"{}"), _SIGNATURE, subject=AMD64)
COUNTERSIGNED = image("countersigned", blob("empty", b"{}"), blob("counter", b"by two"), subject=SIGNED)
PAIR = index("pair", AMD64, ARM64)
NESTED = index("nested", PAIR, S390X)
SPARSE = index("sparse", S390X, image("absent", blob("nowhere", b"{ }")))

MANIFESTS = (AMD64, ARM64, S390X, SIGNED, COUNTERSIGNED, PAIR, NESTED, SPARSE)
BLOBS = tuple(
    {
        each.digest: each
        for each in (
            *(_A, _B, _C, _SHARED, _SIGNATURE),
            *(_config(name) for name in ("amd64", "arm64", "s390x")),
            *(blob("empty", b"{}"), blob("counter", b"by two")),
        )
    }.values()
)
BY_DIGEST = {each.digest: each for each in (*BLOBS, *MANIFESTS)}
BY_NAME = {each.name: each for each in BY_DIGEST.values()}


def reached(roots: Iterable[Digest], held: Iterable[Digest], *, widely: bool = False) -> set[Digest]:
    """What of `held` hangs on the roots: what manifests name, their subjects, and what refers to them.

    `widely`: also what refers to something that is named and not held.
    """
    here = {digest: BY_DIGEST[digest] for digest in held}
    found: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in found or not (widely or digest in here):
            continue
        found.add(digest)
        waiting += [each.digest for each in here.values() if each.subject == digest]
        if digest in here:
            content = here[digest]
            waiting += (*content.blobs, *content.children)
            waiting += [content.subject] if content.subject else []
    return found & here.keys()
