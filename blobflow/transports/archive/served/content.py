"""Bundles as what a registry answers from.

At the start the headers of the archives are looked through, and their lists and manifests read, some
milliseconds for a gigabyte. What that says stands in a state as a store has it, which is in memory. Several
bundles count as if they had been loaded one after the other: a name that two of them have is the later one's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from blobflow.errors import NoSuchFile, UnsupportedContent, UsageError
from blobflow.events import Observer, Warned
from blobflow.oci import Digest
from blobflow.oci.index_grouping import host_of, parse_image_name, path_at_mirror
from blobflow.oci.local_reference import OCI_ARCHIVE
from blobflow.oci.referrers import subject_in_tag
from blobflow.printable import first_of
from blobflow.transports.archive.contents import scan
from blobflow.transports.archive.detection import transport_of_open
from blobflow.transports.archive.images import OciImages
from blobflow.transports.archive.open_archive import OpenArchive
from blobflow.transports.archive.parts import BundleFiles, files_of_bundle, run_text
from blobflow.transports.archive.served.blobs import ArchivedBlobs, ServedArchive
from blobflow.transports.archive.served.closures import Closure, ClosureReader
from blobflow.transports.archive.served.names import BundleNames, NamedRoots
from blobflow.transports.archive.tar_input import FileInput, begins_compressed
from blobflow.transports.files import open_to_read
from blobflow.transports.store.repository_index import RepositoryIndex
from blobflow.transports.store.state.database import State
from blobflow.transports.store.state.opening import open_state_in_memory

# Manifests and blobs of all repositories, each counted where it is held: 300 bytes of memory. A thousand
# images for three platforms have 100,000.
MAX_MEMBERS = 1_000_000
_SHOWN = 5


class BundleContent:
    """Open bundles. Implements `ServedContent`; used on one thread. `close` it when nobody asks any more.

    `names`: see `BundleNames`.
    """

    def __init__(self, archives: Sequence[ServedArchive], names: BundleNames, observer: Observer) -> None:
        """Raises StorageError, UnsupportedContent."""
        self.observer = observer
        self.names = names
        self.blobs = ArchivedBlobs(archives)
        self.state = open_state_in_memory()
        self.repositories = RepositoryIndex(self.state)
        self._archives = archives
        try:
            self._fill()
        except BaseException:
            self.state.close()
            raise

    def open_reader(self, stop: Callable[[], bool]) -> State:
        return self.state.open_reader(stop)

    def check_there(self) -> None:
        self.blobs.check_unchanged()

    def close(self) -> None:
        self.blobs.close()
        self.state.close()

    def _fill(self) -> None:
        reader, left = ClosureReader(self._archives), MAX_MEMBERS
        sizes: dict[Digest, int] = {}
        with self.state.transaction():
            for name, named in self.names.repositories.items():
                closure = reader.read(named.roots.values(), left)
                left -= len(closure.kinds)
                self._write_repository(name, named, closure)
                for digest in closure.kinds.keys() - sizes.keys():
                    sizes[digest] = self.blobs.size_of(digest) or 0
            self.state.write_many(
                "INSERT INTO blobs VALUES (?, ?, x'', 0, 0)", [(digest, sizes[digest]) for digest in sizes]
            )
        for sentence in _complaints(self._archives, self.names, reader):
            self.observer(Warned(sentence))

    def _write_repository(self, name: str, named: NamedRoots, closure: Closure) -> None:
        tags = {tag: root.digest for tag, root in named.tags.items()} | closure.tags
        self.state.write_many(
            "INSERT INTO members VALUES ('', ?, ?, ?)",
            [(name, digest, kind) for digest, kind in closure.kinds.items()],
        )
        self.state.write_many(
            "INSERT INTO roots VALUES ('', ?, ?, ?)",
            [(name, tag, digest) for tag, digest in tags.items() if digest in closure.kinds],
        )


def open_bundles(paths: Iterable[Path], observer: Observer) -> BundleContent:
    """Open bundles, each a file, or parts by the name without their numbers.

    `observer` hears of what is not served. Raises NoSuchFile, StorageError; UnsupportedContent for what can't
    be sent from where it lies; UsageError where nothing is named, or a bundle is given twice.
    """
    bundles = [_files_of(path) for path in paths]
    files = [file for bundle in bundles for file in bundle.there]
    if twice := [file for number, file in enumerate(files) if file in files[:number]]:
        raise UsageError(f"{twice[0]} is given twice")
    with ExitStack() as stack:
        archives: list[ServedArchive] = []
        for file in files:
            archives.append(_open_archive(file))
            stack.callback(archives[-1].opened.close)
        images = [archive.images for archive in archives]
        for each in images:
            each.look_in([other for other in images if other is not each])
        found = _named_roots(archives, observer)
        _check_last_parts(bundles, archives)
        if not found:
            raise UsageError(f"{first_of([*map(str, files)], _SHOWN)}: no image is named there")
        content = BundleContent(archives, BundleNames(found), observer)
        stack.pop_all()
    return content


def _files_of(path: Path) -> BundleFiles:
    """Raises NoSuchFile where it, or a part before another, is not there."""
    bundle = files_of_bundle(path)
    if not bundle.there:
        raise NoSuchFile(f"there is no bundle {path}, and no part of one as {bundle.following}")
    if bundle.missing:
        missing = ", ".join(run_text(*run) for run in bundle.missing)
        raise NoSuchFile(f"parts of {bundle.path} are missing: {missing}")
    return bundle


def _check_last_parts(bundles: Sequence[BundleFiles], archives: Sequence[ServedArchive]) -> None:
    """Raises NoSuchFile for a bundle in parts without its last, which alone names the images."""
    at = 0
    for bundle in bundles:
        at += len(bundle.there)
        if bundle.numbered and not archives[at - 1].images.names():
            raise NoSuchFile(
                f"parts of {bundle.path} are missing: {bundle.following}, and what comes after it, which "
                "names the images"
            )


def _open_archive(path: Path) -> ServedArchive:
    try:
        fd = open_to_read(path)
    except FileNotFoundError:
        raise NoSuchFile(f"there is no bundle {path}") from None
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise UnsupportedContent(f"{path} is a folder, not a bundle; a store is served by --root {path}")
        if not stat.S_ISREG(mode):
            raise UnsupportedContent(f"{path} can be read only once; a bundle is served from a file")
        if begins_compressed(fd, str(path)):
            raise UnsupportedContent(
                f"{path} is compressed, so nothing in it can be sent as it lies there; unpack it first, or "
                "load it into a registry: blobflow load"
            )
        if transport_of_open(fd, str(path)) != OCI_ARCHIVE:
            raise UnsupportedContent(
                f"{path} is docker's: its layers become blobs only when they are compressed; load it into a "
                "registry: blobflow load"
            )
        opened = OpenArchive(str(path), fd, scan(FileInput(fd, str(path))), None)
        return ServedArchive(opened, OciImages(opened, str(path)), fd)
    except BaseException:
        os.close(fd)
        raise


def _named_roots(
    archives: Sequence[ServedArchive], observer: Observer
) -> Mapping[tuple[str, str], NamedRoots]:
    """The images by registry and path there. Raises UnsupportedContent where one archive has two of one
    name."""
    found: dict[tuple[str, str], NamedRoots] = {}
    for archive in archives:
        own: dict[str, Digest] = {}
        unnamed = 0
        origins = archive.images.origins()
        for number, texts in archive.images.names().items():
            named = [(text, name) for text in texts if (name := parse_image_name(text))]
            unnamed += not named and not any(map(subject_in_tag, texts))
            for text, name in named:
                root = archive.images.root(number)
                if own.setdefault(full := f"{host_of(text)}/{name}", root.digest) != root.digest:
                    raise UnsupportedContent(
                        f"{archive.name} has two images named {full}; which one is meant can't be told"
                    )
                synced = path_at_mirror(texts, origins.get(number, "")) if text == texts[0] else ""
                for path in dict.fromkeys((name.path, synced or name.path)):
                    found.setdefault((host_of(text), path), NamedRoots({}, {})).add(root, name.tag)
        if unnamed:
            images = "image" if unnamed == 1 else "images"
            observer(
                Warned(f"{archive.name} has {unnamed} {images} without a full name, for which nobody can ask")
            )
    return found


def _complaints(
    archives: Sequence[ServedArchive], names: BundleNames, reader: ClosureReader
) -> Iterator[str]:
    """What is not served, and why, in sentences."""
    yield from list(reader.wrong.values())[:_SHOWN]
    if len(reader.wrong) > _SHOWN:
        yield f"{len(reader.wrong) - _SHOWN} more manifests of the bundles can't be served"
    if reader.absent:
        listed = first_of([archive.name for archive in archives], _SHOWN)
        yield (
            f"{len(reader.absent)} blobs of the images are not in {listed}; with a bundle that was saved "
            "--since another give that one as well"
        )
    if names.ambiguous:
        yield (
            f"{first_of(names.ambiguous, _SHOWN)}: several registries have such an image, and not the same "
            "one; ask for it by its whole name, as HOST/NAME"
        )
