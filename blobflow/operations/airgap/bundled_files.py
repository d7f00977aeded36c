"""Plain files into a bundle, and out of it.

Each file is an artifact of its own, so that at a registry it is had by name; the deployment files that images
were collected from are one. Their bytes are what their contents are: no time is in them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from blobflow.content import BlobStream, Sink
from blobflow.errors import BlobflowError, NoSuchFile, UnsupportedContent
from blobflow.oci import Descriptor, Manifest
from blobflow.oci.artifact import EMPTY, EMPTY_DESCRIPTOR, EXECUTABLE, TITLE, NamedFile, make_artifact
from blobflow.oci.bundle import CUSTOM_RESOURCES, DEPLOYMENT_TYPE, DEPLOYMENTS, FILES_TYPE, file_names
from blobflow.operations.artifacts.files import FileArgument, FileLayer, check_unchanged, make_layers
from blobflow.printable import printable
from blobflow.transports.files import in_thread, open_range


class BundledFiles(msgspec.Struct, frozen=True):
    """An artifact of files that goes into a bundle under `name`."""

    name: str
    manifest: Manifest
    layers: tuple[FileLayer, ...]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        return (EMPTY_DESCRIPTOR, *(layer.descriptor for layer in self.layers))


def make_bundled_files(files: Sequence[FileArgument], scratch: Path) -> list[BundledFiles]:
    """The artifacts of files; in a thread. Folders are packed into `scratch`. Raises as `make_layers`."""
    layers = _with_modes(make_layers(files, scratch))
    titles = [(layer.descriptor.annotations or {})[TITLE] for layer in layers]
    return [
        BundledFiles(name, make_artifact(FILES_TYPE, [layer.descriptor], {}), (layer,))
        for name, layer in zip(file_names(titles), layers, strict=True)
    ]


def make_deployments(paths: Sequence[str], custom_resources: bool) -> list[BundledFiles]:
    """The artifact of the deployment files that images were collected from, none where there are none; in a
    thread. `custom_resources`: whether these were looked into. Raises as `make_layers`."""
    if not paths:
        return []
    layers = _with_modes(make_layers(titled(paths), Path()))
    said = {CUSTOM_RESOURCES: "true"} if custom_resources else {}
    manifest = make_artifact(DEPLOYMENT_TYPE, [layer.descriptor for layer in layers], said)
    return [BundledFiles(DEPLOYMENTS, manifest, tuple(layers))]


def _with_modes(layers: Iterable[FileLayer]) -> list[FileLayer]:
    """The layers, those of files that can be run with an annotation that says so: `push` makes what oras
    makes, which keeps no such thing."""
    return [_executable(layer) if layer.executable else layer for layer in layers]


def _executable(layer: FileLayer) -> FileLayer:
    said = {**(layer.descriptor.annotations or {}), EXECUTABLE: "true"}
    return msgspec.structs.replace(
        layer, descriptor=msgspec.structs.replace(layer.descriptor, annotations=said)
    )


def titled(paths: Iterable[str]) -> list[FileArgument]:
    """Deployment files, each once, called by their paths below the folder that has all of them, where they
    are not all below the one that we are in."""
    here = Path.cwd()
    found = list(dict.fromkeys(Path(os.path.normpath(here / path)) for path in paths))
    if all(path.is_relative_to(here) for path in found):
        top = here
    else:
        top = Path(os.path.commonpath([path.parent for path in found]))
    return [FileArgument(path, "application/yaml", path.relative_to(top).as_posix()) for path in found]


def check_titles(files: Sequence[NamedFile]) -> None:
    """Raise UnsupportedContent where a file would be in another's way. One that comes twice with the same
    bytes is not, and more may come into folders."""
    taken: dict[tuple[str, ...], NamedFile] = {}
    for each in files:
        if taken.setdefault(each.parts, each).blob.digest != each.blob.digest:
            raise UnsupportedContent(f"two files of the bundle are called {printable(each.title)!r}")
    for each in files:
        for length in range(1, len(each.parts)):
            above = taken.get(each.parts[:length])
            if above is not None and not above.unpack:
                raise UnsupportedContent(
                    f"a file of the bundle is called {printable(above.title)!r}, and another one is in a "
                    "folder of that name"
                )


async def put_bundled_files(made: Sequence[BundledFiles], sink: Sink) -> None:
    """Put the artifacts, in their order. Raises IntegrityError for a file that has changed since it was
    hashed, StorageError, UsageError for one that fits into no part."""
    for each in made:
        try:
            await sink.push(EMPTY_DESCRIPTOR, _HeldReader(EMPTY))
            for layer in each.layers:
                await sink.push(layer.descriptor, _FileReader(layer))
        except BlobflowError:
            await in_thread(check_unchanged, each.layers)  # a better reason than that bytes are other ones
            raise
        await in_thread(check_unchanged, each.layers)
        await sink.put(each.manifest.descriptor, each.manifest.raw, [each.name])


class _FileReader:
    """A blob in a file."""

    def __init__(self, layer: FileLayer) -> None:
        self._layer = layer

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        async with AsyncExitStack() as stack:
            blob = open_range(self._layer.path, offset, self._layer.descriptor.size)
            try:
                stream = await stack.enter_async_context(blob)
            except FileNotFoundError:
                raise NoSuchFile(f"there is no file {self._layer.path} any more") from None
            yield stream


class _HeldReader:
    """A blob in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @asynccontextmanager
    async def open(self, offset: int = 0) -> AsyncIterator[BlobStream]:
        async def chunks() -> AsyncGenerator[bytes, None]:
            yield self._content[offset:]

        yield chunks()
