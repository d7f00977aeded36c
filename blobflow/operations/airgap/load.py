"""Loads the images of archives into registries, several platforms of a name as one index.

No image is made before all archives have been examined: one that can't be read, or that contradicts another,
ends the whole load, since an index without one of its platforms would be a silent loss. Blobs of the first
archives are uploaded while the next are examined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from blobflow.client import Client
from blobflow.content import Site, Source
from blobflow.engine.execution import Run
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import KEEP_GOING, Policy
from blobflow.engine.services import Services
from blobflow.engine.sources.configs import read_platform
from blobflow.errors import (
    NoSuchFile,
    NotFound,
    UnsupportedContent,
    UsageError,
    error_side,
)
from blobflow.events import PhaseStarted
from blobflow.oci import Descriptor, Digest, Manifest, Reference, parse_manifest
from blobflow.oci.index_grouping import (
    ArchivedImage,
    GroupedImage,
    ImageName,
    digest_name,
    group_images,
    path_at_mirror,
)
from blobflow.oci.local_reference import OCI_ARCHIVE, transport_of
from blobflow.oci.platform_choice import prune_index
from blobflow.operations.airgap.archive_inputs import ArchiveInput, archives_of, lacking
from blobflow.operations.airgap.archived_names import (
    ArchivedName,
    is_at,
    names_at_registry,
    origin_of,
    settle,
)
from blobflow.operations.airgap.early_uploads import EarlyUploads
from blobflow.operations.airgap.omitted_blobs import mount_omitted_blobs
from blobflow.permits import FixedLimiter, Limiter
from blobflow.signatures.contract import ClaimedImage
from blobflow.transports.archive.parts import following_part
from blobflow.transports.union_source import UnionSource

# Stands for the archives of one load together, where a source has a registry's host.
ARCHIVES = "(archives)"


class Loaded(msgspec.Struct, frozen=True):
    """The images of archives, by name, with notes for the report. `children`: the images of each index.

    `others`: for names that are wanted at one host and exist only at another, which archive has which.
    `claimed`: the images of the archives that each name is made of, as signature policies know them.
    `origins`: the references that images had where they were saved, as far as the archives tell. `paths`: of
    what a bundle has from a registry, the repository that `sync` would bring it to, where that is another.
    """

    groups: dict[ImageName, GroupedImage]
    children: dict[ImageName, tuple[Descriptor, ...]]
    notes: tuple[str, ...]
    others: dict[ImageName, str] = {}
    claimed: Mapping[ImageName, tuple[ClaimedImage, ...]] = {}
    origins: Mapping[ImageName, Reference] = {}
    paths: Mapping[ImageName, str] = {}


Aim = Callable[[Loaded], Sequence[Pair]]
StartRun = Callable[[Sequence[Pair], Sequence[str]], Run]


async def load(
    client: Client,
    inputs: Sequence[ArchiveInput],
    aim: Aim,
    begin: StartRun,
    *,
    wanted: Mapping[ImageName, str] | None = None,
    policy: Policy = KEEP_GOING,
) -> None:
    """Copy the archives' images under the names `wanted` (None: under any) to the targets that `aim` gives.

    A name in `wanted` may have a host (not ""): then an image of that name at another host does not match.

    The sources of its pairs are those of `source_of`; `begin` makes the run, with notes for the report, under
    `policy`. `aim` is also asked for the targets of what the first archives hold alone.
    Failures of images are in that run's report; what is raised concerns all archives.
    """
    async with client.services() as services:
        client.observer(PhaseStarted("archives", len(inputs)))
        gathering = _Gathering(inputs, services)
        so_far: dict[str, Source] = {}
        async with EarlyUploads(policy, with_archives(services, so_far)) as early:

            def examined(part: Loaded) -> None:
                sources = gathering.sources(part)
                so_far.update(sources)
                pairs = [pair for pair in aim(part) if not pair.target.transport]
                early.offer(pairs, with_archives(_claiming(services, part), sources))

            with error_side("source"):
                loaded = await gathering.gather(wanted, examined)
            await early.finish()
        pairs, sources = aim(loaded), gathering.sources(loaded)
        services = _claiming(services, loaded)
        over = with_archives(services, sources)
        run = begin(pairs, loaded.notes)
        run.count_brought(early.steps)
        if any(transport_of(item.place) == OCI_ARCHIVE for item in inputs):
            await mount_omitted_blobs(pairs, sources, await gathering.held(), over, policy)
        await run.execute(over)
        await client.tidy()


def source_of(name: ImageName, digest: str = "") -> Reference:
    """The archives' image under a name, or their root or image of that digest, as the source of a pair."""
    return Reference(ARCHIVES, name.path, name.tag, digest or name.digest)


def with_archives(services: Services, sources: Mapping[str, Source]) -> Services:
    """The services with the archives as sources, one for each repository."""

    def source_at(site: Site) -> Source:
        if site.registry != ARCHIVES:
            return services.source_at(site)
        return sources.get(site.repository) or UnionSource((), {}, path=site.repository)

    archives = FixedLimiter(_READS)

    def limiter_at(host: str) -> Limiter:
        return archives if host == ARCHIVES else services.limiter_at(host)

    return msgspec.structs.replace(services, source_at=source_at, limiter_at=limiter_at)


def _claiming(services: Services, loaded: Loaded) -> Services:
    """The services by which signature policies know the images of the archives."""

    def claims(source: Reference, digest: Digest) -> Sequence[ClaimedImage]:
        if source.host != ARCHIVES:
            return services.claims(source, digest)
        return _claims(loaded, source, digest)

    return msgspec.structs.replace(services, claims=claims)


def _claims(loaded: Loaded, source: Reference, digest: Digest) -> Sequence[ClaimedImage]:
    """What an image of the archives, or a manifest below it, claims to be. An index that was made of several
    images, or of a part of one, was signed by nobody: those images are judged, and cover what is below."""
    name = ImageName(source.repository, source.tag, "" if source.tag else source.digest)
    claimed = loaded.claimed[name]
    if digest in (loaded.groups[name].root.digest, source.digest):
        return claimed
    own = [each for each in claimed if each.digest == digest]
    return own or [msgspec.structs.replace(claimed[0], digest=digest)]


_READS = 32  # blobs being read from archives at once: files are at hand, so the targets are the bound


class _Gathering:
    """Examines archives, one after the other: reading one keeps two cores busy."""

    def __init__(self, inputs: Sequence[ArchiveInput], services: Services) -> None:
        self._inputs = inputs
        self._archives = dict(zip(inputs, archives_of(services, inputs), strict=True))
        self._lacking = lacking(inputs)
        self._all = UnionSource(tuple(self._archives.values()), {}, absent=self._lacking)
        self._notes: dict[str, None] = {}
        self._examined = 0
        self._count = services.meter.counts["archives"]
        self._others: dict[ImageName, str] = {}
        self._rebuilt: dict[Digest, tuple[Digest, ...]] = {}

    async def gather(
        self, wanted: Mapping[ImageName, str] | None, examined: Callable[[Loaded], None]
    ) -> Loaded:
        """`examined` is called with what each archive holds once that is known, if there are several, and if
        it took a while to know: it had to be brought into the store."""
        found: dict[ImageName, list[ArchivedName]] = {}
        self._count.total += len(self._inputs)
        for item in self._inputs:
            archive = self._archives[item]
            before = archive.taken_in
            part = await self._look(item, wanted)
            self._examined += 1
            self._count.done += 1
            for name, find in part.items():
                found.setdefault(name, []).append(find)
            if part and len(self._inputs) > 1 and archive.taken_in > before:
                roots = {name: GroupedImage(find.root) for name, find in part.items()}
                claimed = {name: (find.claimed,) for name, find in part.items()}
                examined(Loaded(roots, dict.fromkeys(part, ()), (), claimed=claimed))
        if not found and wanted is None:
            labels = [item.label for item in self._inputs]
            last = following_part(map(Path, labels))
            why = f"the last part, which names them, is missing: {last} or one after it" if last else None
            raise UsageError(f"{', '.join(labels)}: no image is named there; {why or self._lacking}")
        groups = {name: await self._group(name, found[name]) for name in sorted(found)}
        children = {name: await self._images(each) for name, each in groups.items()}
        others = {name: said for name, said in self._others.items() if name not in groups}
        all_claimed = {name: tuple(dict.fromkeys(each.claimed for each in found[name])) for name in groups}
        first = {name: found[name][0] for name in groups}
        origins = {name: find.origin for name, find in first.items() if find.origin}
        paths = {name: find.path for name, find in first.items() if find.path not in ("", name.path)}
        return Loaded(groups, children, tuple(self._notes), others, all_claimed, origins, paths)

    def sources(self, loaded: Loaded) -> dict[str, Source]:
        """A source for each repository, over the archives that were examined so far."""
        roots: dict[str, dict[str, Descriptor]] = {}
        for name, found in loaded.groups.items():
            own = roots.setdefault(name.path, {})
            own[name.tag or name.digest] = own[found.root.digest] = found.root
            own |= {child.digest: child for child in loaded.children[name]}
        made = [each.made for each in loaded.groups.values() if each.made is not None]
        archives = tuple(self._archives[item] for item in self._inputs[: self._examined])
        return {
            path: UnionSource(archives, own, made, path=path, rebuilt=self._rebuilt, absent=self._lacking)
            for path, own in roots.items()
        }

    async def held(self) -> set[Digest]:
        """The digests of the archives' content, as far as they are known."""
        return {digest for archive in self._archives.values() for digest in await archive.held()}

    async def _look(
        self, item: ArchiveInput, wanted: Mapping[ImageName, str] | None
    ) -> dict[ImageName, ArchivedName]:
        archive = self._archives[item]
        found: dict[ImageName, ArchivedName] = {}
        origins = await archive.origins()
        for number, called in (await archive.names()).items():
            said = origins.get(number, "")
            names = names_at_registry(called, wanted or {})
            if not names and wanted is None:
                raise UsageError(_unnamed(item, number, called))
            for name, text in names.items():
                if wanted is not None and not is_at(text, wanted.get(name, "")):
                    self._others.setdefault(name, f"{item.label} has {text}")
                elif wanted is None or name in wanted:
                    root = await archive.resolve(f"@{number}")
                    find = ArchivedName(
                        item, text, root, origin_of(item, text, said), path_at_mirror(called, said)
                    )
                    settle(found, name, find, apart=wanted is None)
        return found

    async def _group(self, name: ImageName, found: Sequence[ArchivedName]) -> GroupedImage:
        whole = all(_is_whole(find) and find.root.digest == found[0].root.digest for find in found)
        if whole:
            return await self._as_it_is(name, found[0])
        made = group_images(name, [await self._part(name, find) for find in found])
        digest_name(name, made.root.digest)
        if made.mixed:
            self._note(f"{name} has images with OCI's and with Docker's media types: its index is OCI's")
        self._note_rebuilt(made, found)
        return made

    async def _as_it_is(self, name: ImageName, find: ArchivedName) -> GroupedImage:
        """A root that an archive has, without children that no archive has."""
        root = await self._manifest(find.root)
        kept = [child for child in root.manifests if await self._has(child)]
        if len(kept) == len(root.manifests):
            return GroupedImage(find.root)
        if not kept:
            raise NoSuchFile(f"{find.input.label} has none of the images of {name}; {self._lacking}")
        made = prune_index(root, kept, {})
        digest_name(name, made.descriptor.digest)
        self._note(
            f"{find.input.label} has {len(kept)} of the {len(root.manifests)} images in the index of {name}: "
            f"{find.root.digest} became {made.descriptor.digest} without the others"
        )
        whole = GroupedImage(made.descriptor, made)
        self._note_rebuilt(whole, [find])
        return whole

    def _note_rebuilt(self, made: GroupedImage, found: Sequence[ArchivedName]) -> None:
        """Note what a new index was made of: what refers to that is left, and the report says so."""
        if made.made is not None:
            roots = dict.fromkeys(find.root.digest for find in found)
            self._rebuilt[made.root.digest] = tuple(roots)

    async def _part(self, name: ImageName, find: ArchivedName) -> ArchivedImage:
        """What an archive contributes to a name that others contribute to as well, or that gets an index."""
        label, said = find.input.label, find.input.platform
        manifest = await self._manifest(find.root)
        if manifest.is_index:
            if said is not None:
                raise UsageError(
                    f"{label} has an index for {name}: platform= is for archives of one platform"
                )
            if manifest.layers:
                raise UnsupportedContent(
                    f"{label} has an index for {name} that lists {manifest.layers[0].media_type[:120]!r}, no"
                    " images: it can't be joined with what other archives have under that name"
                )
            children = tuple([child for child in manifest.manifests if await self._has(child)])
            return ArchivedImage(label, find.root, children=children, whole=True)
        platform = await read_platform(self._all, manifest)
        if said is not None:
            if not platform.matches(said):
                self._note(
                    f"{label} was taken for {said}, as said by hand; the config of {name} says {platform}"
                )
            platform = said
        if not (platform.os and platform.architecture):
            raise UsageError(
                f"the config of {name} in {label} names no platform; write {label},platform=OS/ARCHITECTURE"
            )
        return ArchivedImage(label, find.root, platform, whole=_is_whole(find))

    async def _images(self, found: GroupedImage) -> tuple[Descriptor, ...]:
        return (found.made or await self._manifest(found.root)).manifests

    async def _manifest(self, root: Descriptor) -> Manifest:
        return parse_manifest(await self._all.read(root), root.media_type, digest=root.digest)

    async def _has(self, manifest: Descriptor) -> bool:
        try:
            await self._all.read(manifest)
        except NotFound:
            return False
        return True

    def _note(self, sentence: str) -> None:
        self._notes[sentence] = None


def _is_whole(find: ArchivedName) -> bool:
    """Whether the image keeps its digest, as those do that are not converted from a docker archive."""
    return transport_of(find.input.place) == OCI_ARCHIVE and find.input.platform is None


def _unnamed(item: ArchiveInput, number: int, called: Sequence[str]) -> str:
    what = f"calls an image only {called[0]!r}" if called else "has an image without a name"
    return f"{item.label} {what}; bring that one with `blobflow copy {item.place}:@{number} TARGET`"
