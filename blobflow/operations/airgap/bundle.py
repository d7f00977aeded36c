"""Looks into bundles, and into every other archive that `load` takes: which images are there, of what size
and for which platforms, and whether all of it is there and as its digests say.

Several archives count as one place, as for `load`: the parts of a bundle, or one that was saved `--since`
another together with that one. What an index lists and no archive has was left out by whoever chose
platforms; a layer or config that is not there is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from blobflow.client import Client
from blobflow.content import Site, Verifier
from blobflow.engine.concurrency.bounded_runner import MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.services import Services
from blobflow.engine.sources.configs import may_name_platform, read_platform
from blobflow.engine.sources.graph import Graph
from blobflow.engine.sources.reader import GraphReader, read_graph
from blobflow.engine.sources.referrers import MAX_DEPTH
from blobflow.errors import BlobflowError, IntegrityError, NotFound, StorageError
from blobflow.events import PhaseStarted
from blobflow.oci import Descriptor, Digest, Manifest, Reference
from blobflow.oci.artifact import TITLE
from blobflow.oci.bundle import kind_of
from blobflow.oci.local_reference import local_host
from blobflow.oci.platform_choice import attested_digest
from blobflow.oci.referrers import subject_in_tag
from blobflow.operations.airgap.archive_inputs import ArchiveInput, archive_of, archives_of, lacking
from blobflow.transports.archive import ArchiveSource, detect_transport
from blobflow.transports.files import translate_os_errors
from blobflow.transports.union_source import UnionSource

# The archives together, as one repository of a registry.
_PLACE = Site("(archives)", "bundle")


class BundledImage(msgspec.Struct, frozen=True):
    """An image of a bundle. `names`: all that it is called there.

    `platforms`: those that are there; `left_out`: those that its index lists and no archive has. `content`:
    its manifests, configs and layers that are there, each once; `missing`: those that are not. `referrers`:
    the digests of signatures and the like that are there with it, whose content is in `content`.
    `kind`: see `oci.bundle.kind_of`; of what is no image, `artifact_type` is what it says it is, and `files`
    are the paths that its layers have by their titles. `origins`: where it was when the bundle was saved, by
    its names, as far as that is said. `error`: why it can't be read, instead of all that; `root` is None
    where not even that is known.
    """

    names: tuple[str, ...]
    root: Descriptor | None
    platforms: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    content: dict[Digest, int] = {}
    missing: dict[Digest, int] = {}
    referrers: tuple[Digest, ...] = ()
    kind: str = "image"
    artifact_type: str = ""
    files: tuple[str, ...] = ()
    origins: dict[str, str] = {}
    error: BlobflowError | None = None

    @property
    def size(self) -> int:
        """Bytes of its content, missing or not."""
        return sum(self.content.values()) + sum(self.missing.values())


class BundleContent(msgspec.Struct, frozen=True):
    """What archives hold together: `images` in the order of the archives, and the sizes of all `content`,
    used by an image or not. `named`: how many images each archive names."""

    images: tuple[BundledImage, ...]
    content: dict[Digest, int]
    named: tuple[int, ...]

    @property
    def missing(self) -> dict[Digest, int]:
        """What images need and no archive has, with sizes."""
        return {digest: size for image in self.images for digest, size in image.missing.items()}


class BundleFile(msgspec.Struct, frozen=True):
    """A file of a bundle: its size in bytes, and how many images it names; or why it can't be read."""

    path: Path
    size: int
    images: int = 0
    error: BlobflowError | None = None


async def look_at_file(client: Client, path: Path) -> BundleFile:
    """What one file of a bundle is. Of an uncompressed one only headers and its list are read.

    Raises StorageError for one that can't even be looked at.
    """
    with translate_os_errors("look at", path):
        size = path.stat().st_size
    try:
        place = local_host(detect_transport(path), str(path))
        async with client.services() as services:
            names = await archive_of(services, ArchiveInput(str(path), place)).names()
    except BlobflowError as error:
        return BundleFile(path, size, error=error)
    images = [texts for texts in names.values() if not texts or not all(map(subject_in_tag, texts))]
    return BundleFile(path, size, images=len(images))  # of a part, signatures of images elsewhere are none


async def read_bundle(client: Client, inputs: Sequence[ArchiveInput]) -> BundleContent:
    """The images of the archives and what they are made of. No layer is read of an uncompressed archive.

    Raises what is wrong with an archive as such: NoSuchFile, UnsupportedContent, StorageError.
    """
    async with client.services() as services:
        return await _read(services, inputs)


async def verify_bundle(
    client: Client, inputs: Sequence[ArchiveInput]
) -> tuple[BundleContent, Mapping[Digest, BlobflowError]]:
    """As `read_bundle`, and everything is read and hashed, also what no image uses. Returns what is not as
    its digest says, or can't be read."""
    async with client.services() as services:
        found = await _read(services, inputs)
        archives = archives_of(services, inputs)
        services.observe(PhaseStarted("verify", len(found.content)))
        damaged: dict[Digest, BlobflowError] = {}
        for archive, item in zip(archives, inputs, strict=True):
            for digest in sorted(await archive.held()):
                # What several archives have is looked at in each: any of them may be what is loaded.
                if error := await _damage(archive, item.label, digest):
                    damaged[digest] = error
        return found, damaged


async def _damage(archive: ArchiveSource, label: str, digest: Digest) -> BlobflowError | None:
    """What is wrong with the content of an archive that has this digest."""
    size = await archive.size_of(digest)
    if size is None:
        return NotFound(f"{label} has a link for {digest} that leads nowhere")
    blob = Descriptor("", digest, size)
    verifier = Verifier(blob, f"{digest} in {label}")
    try:
        async with archive.open(blob) as stream:
            async for chunk in stream:
                verifier.feed(chunk)
        verifier.finish()
    except (IntegrityError, StorageError) as error:
        return error
    return None


async def _read(services: Services, inputs: Sequence[ArchiveInput]) -> BundleContent:
    archives = archives_of(services, inputs)
    services.observe(PhaseStarted("archives", len(archives)))
    names: dict[Digest, list[str]] = {}
    roots: dict[Digest, Descriptor] = {}
    unreadable: dict[str, BundledImage] = {}
    origins: dict[str, str] = {}
    named = []
    for archive, item in zip(archives, inputs, strict=True):
        called, said = await archive.names(), await archive.origins()
        named.append(len(called))
        for number, texts in called.items():
            try:
                root = await archive.resolve(f"@{number}")
            except BlobflowError as error:
                what = texts or (f"{item.label}:@{number}",)
                unreadable[what[0]] = BundledImage(what, None, error=error)
                continue
            roots.setdefault(root.digest, root)
            origins |= dict.fromkeys(texts, said[number]) if number in said else {}
            known = names.setdefault(root.digest, [])
            known += [text for text in texts if text not in known]
    held = {
        digest: size
        for archive in archives
        for digest in await archive.held()
        if (size := await archive.size_of(digest)) is not None
    }
    reading = _Reading(services, UnionSource(archives, {}, absent=lacking(inputs)), held)
    images = [
        msgspec.structs.replace(each, origins={name: origins[name] for name in each.names if name in origins})
        for each in await reading.images(roots, names)
    ]
    return BundleContent((*images, *unreadable.values()), held, tuple(named))


def _type_of(manifest: Manifest) -> str:
    """What an artifact says it is (image-spec manifest.md, "Guidelines for Artifact Usage")."""
    if manifest.is_index or manifest.artifact_type:
        return manifest.artifact_type
    return manifest.config.media_type if manifest.config else ""


class _Reading:
    """Reads the graphs of images from archives that `held` sums up."""

    def __init__(self, services: Services, source: UnionSource, held: Mapping[Digest, int]) -> None:
        self._services = services
        self._source = source
        self._held = held
        self._reader = GraphReader(
            lambda site: source, manifest_budget=services.manifest_budget, observe=services.observe
        )

    async def images(
        self, roots: Mapping[Digest, Descriptor], names: Mapping[Digest, Sequence[str]]
    ) -> list[BundledImage]:
        """The images of these roots, in their order."""
        graph, failures = await self._graph(roots.values())
        attached: dict[Digest, dict[Digest, Descriptor]] = {
            digest: {} for digest in roots if digest not in failures
        }
        for _ in range(MAX_DEPTH):  # what refers to an image may be referred to in turn
            for root, found in attached.items():
                found |= await self._attached(graph, (root, *found))
            more = {digest: each for found in attached.values() for digest, each in found.items()}
            if more.keys() <= graph.manifests.keys():
                break
            graph, _ = await self._graph([*roots.values(), *more.values()])
        return [
            BundledImage(tuple(names[digest]), root, error=failures[digest])
            if digest in failures
            else await self._image(graph, root, tuple(names[digest]), [*attached[digest].values()])
            for digest, root in roots.items()
        ]

    async def _graph(self, roots: Iterable[Descriptor]) -> tuple[Graph, dict[Digest, BlobflowError]]:
        """The manifests below, and why some roots could not be read. Children of indexes may be absent."""
        at = {Reference(_PLACE.registry, _PLACE.repository, digest=root.digest): root for root in roots}
        read = await read_graph(
            at,
            lambda site: self._source,
            BoundedRunner(MAX_SMALL_REQUESTS),
            sparse=True,
            reader=self._reader,
        )
        return read.graph, {at[reference].digest: error for reference, error in read.failures.items()}

    async def _attached(self, graph: Graph, roots: Iterable[Digest]) -> dict[Digest, Descriptor]:
        """What refers to these or to manifests below them, as far as it is here."""
        found: dict[Digest, Descriptor] = {}
        for manifest in {each.descriptor.digest: each for root in roots for each in graph.closure(root)}:
            for each in await self._source.referrers(manifest):
                if each.manifest.digest in self._held:
                    found[each.manifest.digest] = each.manifest
        return found

    async def _image(
        self, graph: Graph, root: Descriptor, names: tuple[str, ...], attached: Sequence[Descriptor]
    ) -> BundledImage:
        closure = graph.closure(root.digest)
        wanted: dict[Digest, int] = {}
        for digest in (root.digest, *(each.digest for each in attached)):
            for manifest in graph.closure(digest):
                wanted[manifest.descriptor.digest] = manifest.descriptor.size
                wanted |= {blob.digest: blob.size for blob in manifest.blobs}
        index = graph.whole(root.digest)
        if index.manifests and len(closure) == 1:
            nothing = NotFound(f"none of the images that the index {index.descriptor.digest} lists is there")
            return BundledImage(names, root, error=nothing)
        there, left_out = await self._platforms(closure, graph)
        return BundledImage(
            names,
            root,
            platforms=there,
            left_out=left_out,
            content={digest: size for digest, size in wanted.items() if digest in self._held},
            missing={digest: size for digest, size in wanted.items() if digest not in self._held},
            referrers=tuple(each.digest for each in attached),
            kind=kind_of(index),
            artifact_type=_type_of(index),
            files=tuple(title for each in index.layers if (title := (each.annotations or {}).get(TITLE))),
        )

    async def _platforms(
        self, closure: Sequence[Manifest], graph: Graph
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The platforms of an image, those that are there and those that are not."""
        there: dict[str, None] = {}
        left_out: dict[str, None] = {}
        listed: set[Digest] = set()
        for index in reversed(closure):
            for child in index.manifests:
                listed.add(child.digest)
                if child.platform is not None and not attested_digest(child):
                    (there if child.digest in graph.manifests else left_out)[str(child.platform)] = None
        root = closure[-1]
        if not root.is_index and may_name_platform(root):
            try:
                platform = await read_platform(self._source, root)
            except BlobflowError:  # its config is missing or damaged, which is told as that
                return (), ()
            if platform.os and platform.architecture:
                there[str(platform)] = None
        return tuple(there), tuple(left_out)
