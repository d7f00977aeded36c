"""Images of several platforms at a source in memory, and a run that chooses some of them."""

from __future__ import annotations

import json

from blobflow.content import Site
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.results.report import Report
from blobflow.oci import (
    Manifest,
    Reference,
    digest_of,
    media,
    parse_manifest,
    parse_platform,
)
from blobflow.oci.platform_choice import IndexMode, PlatformChoice
from tests.fakes.memory_registry import MemoryRegistry
from tests.scenarios.mirror import MirrorScenario

AMD64, ARM64, ARMV7 = map(parse_platform, ("linux/amd64", "linux/arm64", "linux/arm/v7"))
ALL = (AMD64, ARM64, ARMV7)


class Image:
    """Puts an image of several platforms at a source: a config and a layer each, an attestation if asked."""

    def __init__(self, registry: MemoryRegistry, repository: str = "app") -> None:
        self.registry = registry
        self.site = Site(registry.name, repository)
        self.children: dict[str, Manifest] = {}

    def blob(self, content: bytes, kind: str) -> dict[str, object]:
        digest = digest_of(content)
        self.registry.blobs.setdefault(self.site, {})[digest] = content
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def put(self, document: dict[str, object], kind: str, tag: str = "") -> Manifest:
        raw = json.dumps({"schemaVersion": 2, "mediaType": kind, **document}, indent=2).encode()
        manifest = parse_manifest(raw, kind)
        held = self.registry.manifests.setdefault(self.site, {})
        held[manifest.descriptor.digest] = (kind, raw)
        if tag:
            self.registry.tags[self.site, tag] = manifest.descriptor.digest
        return manifest

    def child(self, platform: str, tag: str = "") -> Manifest:
        os, architecture, *variant = platform.split("/")
        said = {"os": os, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        config = self.blob(json.dumps(said).encode(), media.OCI_CONFIG)
        layer = self.blob(f"layer of {platform} in {self.site}".encode(), media.OCI_LAYER_GZIP)
        made = self.put({"config": config, "layers": [layer]}, media.OCI_MANIFEST, tag)
        self.children[platform] = made
        return made

    def item(self, child: Manifest, platform: str = "", **more: object) -> dict[str, object]:
        described = child.descriptor
        item: dict[str, object] = {
            "mediaType": described.media_type,
            "digest": described.digest,
            "size": described.size,
        }
        if platform:
            os, architecture, *variant = platform.split("/")
            item["platform"] = {
                "os": os,
                "architecture": architecture,
                **({"variant": variant[0]} if variant else {}),
            }
        return item | more

    def attestation(self, of: Manifest) -> dict[str, object]:
        config = self.blob(b"{}", media.OCI_CONFIG)
        layer = self.blob(b"sbom of " + of.descriptor.digest.encode(), "application/vnd.in-toto+json")
        made = self.put({"config": config, "layers": [layer]}, media.OCI_MANIFEST)
        refers = {"vnd.docker.reference.digest": of.descriptor.digest}
        return self.item(made, "unknown/unknown", annotations=refers)

    def index(self, *items: dict[str, object], tag: str = "") -> Manifest:
        return self.put({"manifests": list(items)}, media.OCI_INDEX, tag)


def built(registry: MemoryRegistry, repository: str = "app", tag: str = "1") -> Manifest:
    """As buildx builds it: three platforms, an attestation each."""
    image = Image(registry, repository)
    items = [image.item(image.child(str(each)), str(each)) for each in ALL]
    items += [image.attestation(child) for child in list(image.children.values())]
    return image.index(*items, tag=tag)


def wanted(
    *platforms: object, index: IndexMode = "auto", repository: str = "app", tag: str = "1"
) -> list[Pair]:
    choice = PlatformChoice(tuple(p for p in ALL if p in platforms), index)
    return [Pair(Reference("source", repository, tag), Reference("target", repository, tag), choice)]


async def run(bench: MirrorScenario, pairs: list[Pair], policy: Policy = KEEP_GOING) -> Report:
    bench.forget_calls()
    return await bench.mirror(policy, pairs)


SITE = Site("target", "app")
