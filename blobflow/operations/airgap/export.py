"""Exports one image as its root file system, by way of the store.

An export to an archive, a layout or another registry is a plain copy: `blobflow.client` does that.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from blobflow.client import Client
from blobflow.content import NullJournal, Sink, Site
from blobflow.engine.execution import Run
from blobflow.engine.pairs import Pair
from blobflow.engine.sources.configs import find_platform, may_name_platform, read_diff_ids
from blobflow.errors import BlobflowError, NoSuchPlatform, RunCutShort, UnsupportedContent
from blobflow.events import PhaseStarted
from blobflow.oci import Descriptor, Manifest, Platform, Reference, parse_manifest
from blobflow.oci.platform_choice import PlatformChoice, attested_digest, declared_platform
from blobflow.operations.airgap.load import StartRun
from blobflow.transports.files import AtomicFile, in_thread, is_stream, stream_at, translate_os_errors
from blobflow.transports.rootfs import FileTree, Layer, read_tree, temporary_folder, unpack, write_tar
from blobflow.transports.store import Store
from blobflow.transports.store.sink import StoreSink

# The target of a pair whose image goes into the store only.
STORE = "(store)"


class Root(msgspec.Struct, frozen=True):
    """One platform's root file system: its layers, and its folder's name where there are several."""

    folder: str
    layers: tuple[Layer, ...]


async def read_into_store(
    client: Client,
    source: Reference,
    choice: PlatformChoice,
    begin: StartRun,
) -> None:
    """Read an image, verified, into the store. Failures are in the report of the run that `begin` makes."""
    async with _kept(client, source, choice, begin):
        pass


async def export_folder(
    client: Client,
    source: Reference,
    choice: PlatformChoice,
    begin: StartRun,
    folder: Path,
    *,
    devices: bool = False,
) -> list[str]:
    """Unpack an image into a folder that is new or empty, several platforms into folders below it.

    `devices`: device nodes are made, if we are root. All of it is there when this returns, or nothing.
    Returns what could not be created, a sentence each. Raises the errors of the source, its content and the
    disk: IntegrityError for layers that are not those of the image's config.
    """
    with ExitStack() as stack:
        made = stack.enter_context(temporary_folder(folder))
        notes: list[str] = []
        async with _kept(client, source, choice, begin) as roots:
            for root in roots:
                tree = await in_thread(read_tree, root.layers)
                into = made / root.folder if len(roots) > 1 else made
                with translate_os_errors("create", into):
                    into.mkdir(exist_ok=True)
                left = await in_thread(unpack, tree, root.layers, into, devices=devices)
                if left.devices:
                    notes.append(f"{left.devices} device nodes of {root.folder} were left out")
                if left.xattrs:
                    notes.append(f"{left.xattrs} files of {root.folder} lack extended attributes")
    return notes


async def export_tar(
    client: Client,
    source: Reference,
    choice: PlatformChoice,
    begin: StartRun,
    path: Path | None,
) -> None:
    """As `export_folder`, into a tar (None: on standard output). Devices are entries like all others."""
    async with _kept(client, source, choice, begin) as roots:
        trees = [
            (root.folder if len(roots) > 1 else "", await in_thread(read_tree, root.layers), root.layers)
            for root in roots
        ]
        await in_thread(_write, trees, path)


def _write(trees: Sequence[tuple[str, FileTree, Sequence[Layer]]], path: Path | None) -> None:
    if path is None or is_stream(path):
        with stream_at(path) as write:
            write_tar(trees, write)
        return
    with AtomicFile(path.absolute().parent) as file:
        write_tar(trees, file.write)
        file.land(path.absolute())


@asynccontextmanager
async def _kept(
    client: Client,
    source: Reference,
    choice: PlatformChoice,
    begin: StartRun,
) -> AsyncIterator[list[Root]]:
    """The chosen platforms of an image, held in the store. Raises the image's own error if it has failed, and
    NoSuchPlatform also if it may lack them, RunCutShort."""
    cache_dir = None if client.settings.cache == "off" else client.settings.cache_dir
    async with client.using(cache="all", cache_dir=cache_dir) as keeping, keeping.services() as services:
        store = (await keeping.open()).store
        kept = StoreSink(store)

        def sink_at(site: Site) -> Sink:
            return kept if site.registry == STORE else services.sink_at(site)

        run = begin([Pair(source, Reference(STORE, ""), choice)], ())
        try:
            report = await run.execute(
                msgspec.structs.replace(services, sink_at=sink_at, journal=NullJournal())
            )
            for error in run.errors.values():
                raise error
            for image in report.images:
                if image.reason:
                    raise NoSuchPlatform(f"{source}: {image.reason}", side="source")
            images = [image for image in report.images if image.status in ("done", "present")]
            if not images:
                raise RunCutShort(f"{source} was not read: the run ended before")
            with _told_to(run):
                kept.check()
                client.observer(PhaseStarted("export", 1))
                root = await kept.resolve(images[0].digest)
                images_there = await _images(kept, root, choice)
                if not images_there:
                    raise UnsupportedContent(
                        f"{source} lists no image, and nothing to unpack; `blobflow copy` brings it as it is"
                    )
                # Manifests without a platform beside images are no images; alone, one may be an old image.
                runnable = [each for each in images_there if each[1] is not None] or images_there
                once = {(image.descriptor.digest, platform): image for image, platform in runnable}
                yield [await _root_of(kept, store, once[key], key[1]) for key in once]
        finally:
            kept.close()
        await keeping.tidy()


@contextmanager
def _told_to(run: Run) -> Iterator[None]:
    """Enter an error that interrupts the export into the run's report."""
    try:
        yield
    except BaseException as error:
        run.undone(error if isinstance(error, BlobflowError) else None)
        raise


async def _images(
    kept: StoreSink, root: Descriptor, choice: PlatformChoice
) -> list[tuple[Manifest, Platform | None]]:
    """The image manifests below a root that were chosen, with their platforms."""
    manifest = parse_manifest(await kept.read(root), root.media_type, digest=root.digest)
    if not manifest.is_index:
        platform = declared_platform(root) or await find_platform(kept, manifest)
        return [(manifest, platform)] if choice.wants(platform) else []
    found: list[tuple[Manifest, Platform | None]] = []
    for child in manifest.manifests:
        wanted = choice.wants(declared_platform(child))
        if wanted and not attested_digest(child) and await kept.has(child):
            found += await _images(kept, child, choice)
    return found


async def _root_of(kept: StoreSink, store: Store, manifest: Manifest, platform: Platform | None) -> Root:
    config = manifest.config
    if config is not None and not may_name_platform(manifest):
        raise UnsupportedContent(
            f"manifest {manifest.descriptor.digest} is no image's: its config is {config.size} bytes of the "
            f"type {config.media_type[:120]!r}, and nothing to unpack; `blobflow copy` brings it as it is"
        )
    foreign = manifest.foreign
    absent = [layer.digest for layer in foreign if store.blobs.size_of(layer.digest) is None]
    if absent:
        raise UnsupportedContent(
            f"layer {absent[0]} is kept elsewhere (urls), so the image is not whole here"
        )
    diff_ids = await read_diff_ids(kept, manifest)
    layers = tuple(
        Layer(f"layer {layer.digest}", store.blobs.path_of(layer.digest), diff_id)
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True)
    )
    return Root(_folder(platform or Platform()), layers)


def _folder(platform: Platform) -> str:
    """The name that buildx gives the folder of a platform: linux_arm_v7."""
    named = msgspec.structs.replace(platform, os_version="")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", str(named))
