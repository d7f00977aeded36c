"""The kinds of content that the official conformance suite gives a registry, made anew for our tests."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import tarfile
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from blobflow.oci import digest_of, media

TYPE = "application/vnd.example.type.v1"
ACCEPT = {"Accept": f"{media.OCI_INDEX}, {media.OCI_MANIFEST}"}
EMPTY = "application/vnd.oci.empty.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
Descriptor = dict[str, Any]


class Content:
    """One kind of content: what is pushed, in this order, and what is to be found afterwards."""

    def __init__(self, algorithm: str = "sha256", *, tags_with_digest: bool = False) -> None:
        self.algorithm = algorithm
        self.tags_with_digest = tags_with_digest
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[bytes, str]] = {}
        self.tags: dict[str, str] = {}
        self.referrers: dict[str, list[Descriptor]] = {}
        self._random = random.Random(7)

    def blob(
        self, raw: bytes, kind: str = "application/octet-stream", *, absent: bool = False, data: bool = False
    ) -> Descriptor:
        digest = digest_of(raw, self.algorithm)
        if not absent:
            self.blobs[digest] = raw
        inline = {"data": msgspec.to_builtins(raw)} if data else {}
        return {"mediaType": kind, "digest": digest, "size": len(raw), **inline}

    def layer(self, *, packed: bool = True, **more: bool) -> Descriptor:
        file, text = io.BytesIO(), self._random.randbytes(40)
        with tarfile.open(fileobj=file, mode="w") as tar:
            entry = tarfile.TarInfo("./a-file")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        raw = gzip.compress(file.getvalue(), mtime=0) if packed else file.getvalue()
        return self.blob(raw, f"{LAYER}+gzip" if packed else LAYER, **more)

    def image(
        self, layers: Sequence[Descriptor] | None = None, tag: str = "", data: bool = False, **more: Any
    ) -> Descriptor:
        """An image of two layers unless they are given."""
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        described = self.blob(
            json.dumps({**config, "author": str(self._random.random())}).encode(), media.OCI_CONFIG, data=data
        )
        chosen = [self.layer(data=data), self.layer(data=data)] if layers is None else list(layers)
        return self.manifest(media.OCI_MANIFEST, tag, **{"config": described, "layers": chosen, **more})

    def artifact(
        self, layer: bytes | None = None, kind: str = TYPE, tag: str = "", **more: Any
    ) -> Descriptor:
        content = self.blob(self._random.randbytes(2048) if layer is None else layer, kind)
        config = self.blob(b"{}", EMPTY)
        document = {"artifactType": TYPE, "config": config, "layers": [content], **more}
        return self.manifest(media.OCI_MANIFEST, tag, **document)

    def index(self, *children: Descriptor, tag: str = "", **more: Any) -> Descriptor:
        platforms = itertools.cycle(("amd64", "arm64"))
        listed = [
            {**child, "platform": {"os": "linux", "architecture": next(platforms)}}
            if child["mediaType"] == media.OCI_MANIFEST
            else child
            for child in children
        ]
        return self.manifest(media.OCI_INDEX, tag, manifests=listed, **more)

    def manifest(self, kind: str, tag: str, **document: Any) -> Descriptor:
        raw = json.dumps({"schemaVersion": 2, "mediaType": kind, **document}).encode()
        digest = digest_of(raw, self.algorithm)
        self.manifests[digest] = raw, kind
        described = {"mediaType": kind, "digest": digest, "size": len(raw)}
        if tag:
            self.tags[tag] = digest
        if subject := document.get("subject"):
            of = document.get("artifactType") or document.get("config", {}).get("mediaType")
            mention = {**described, "annotations": document.get("annotations", {})}
            if of:
                mention["artifactType"] = of
            self.referrers.setdefault(subject["digest"], []).append(mention)
        return described


# The kinds


def two_images(content: Content) -> list[Descriptor]:
    return [content.image(), content.image()]


def an_index(content: Content) -> None:
    content.index(*two_images(content), tag="index")


def indexes_in_an_index(content: Content) -> None:
    content.index(*[content.index(*two_images(content)) for _ in range(2)], tag="nested")


def a_large_manifest(content: Content) -> None:
    content.image(tag="large", annotations={f"a-{number}": "A" * 10_000 for number in range(390)})


def referrers(content: Content) -> None:
    subject, noted = content.image(tag="subject"), {"org.example": "a note"}
    content.image(subject=subject)
    content.artifact(subject=subject, annotations=noted, tag="first")
    content.artifact(subject=subject, annotations=noted, artifactType=f"{TYPE}+json", tag="second")


def an_indexs_referrers(content: Content) -> None:
    subject, noted = content.index(*two_images(content), tag="subject"), {"org.example": "a note"}
    content.index(content.artifact(), subject=subject, artifactType=TYPE, annotations=noted, tag="artifact")
    content.index(subject=subject)


def without_its_subject(content: Content) -> None:
    nowhere = {"mediaType": media.OCI_MANIFEST, "digest": digest_of(b"nowhere"), "size": 123}
    content.artifact(subject=nowhere, annotations={"org.example": "a note"}, tag="artifact")


def not_distributable(content: Content) -> None:
    away = [
        {**content.blob(name.encode(), kind, absent=True), "urls": [f"https://store.example.com/{name}"]}
        for name, kind in (("packed", f"{FOREIGN}+gzip"), ("plain", FOREIGN))
    ]
    content.image([*away, content.layer()], tag="foreign")


def with_fields_of_their_own(content: Content) -> None:
    own: dict[str, Any] = {"org.example.own": {"anything": [1, None]}}
    content.index(*[content.image(**own) for _ in range(2)], tag="own", **own)


def sparse(content: Content) -> None:
    content.image([content.layer(absent=True), content.layer()], tag="image")
    absent = {"mediaType": media.OCI_MANIFEST, "digest": digest_of(b"absent"), "size": 1024}
    content.index(content.image(), absent, tag="index")


def with_many_tags(content: Content) -> None:
    an_index(content)
    for number, digest in enumerate(list(content.manifests)):
        content.tags[f"tag-{number}"] = digest


KINDS: dict[str, Callable[[Content], object]] = {
    "image": lambda content: content.image(tag="image"),
    "not packed": lambda content: content.image([content.layer(packed=False)], tag="image"),
    "no layers": lambda content: content.image([], tag="image"),
    "data": lambda content: content.image(tag="image", data=True),
    "large manifest": a_large_manifest,
    "index": an_index,
    "empty index": lambda content: content.index(tag="index"),
    "nested index": indexes_in_an_index,
    "artifact": lambda content: content.artifact(tag="artifact"),
    "artifact of nothing": lambda content: content.artifact(b"{}", EMPTY, tag="artifact"),
    "index of artifacts": lambda content: content.index(content.artifact(), artifactType=TYPE, tag="index"),
    "referrers": referrers,
    "referrers of an index": an_indexs_referrers,
    "no subject": without_its_subject,
    "not distributable": not_distributable,
    "fields of their own": with_fields_of_their_own,
    "sparse": sparse,
}
CASES: dict[str, tuple[Callable[[Content], object], Callable[[], Content]]] = {
    **{name: (make, Content) for name, make in KINDS.items()},
    "sha512": (lambda content: content.index(*two_images(content)), lambda: Content("sha512")),
    "tags with sha256": (with_many_tags, lambda: Content(tags_with_digest=True)),
    "tags with sha512": (with_many_tags, lambda: Content("sha512", tags_with_digest=True)),
}
