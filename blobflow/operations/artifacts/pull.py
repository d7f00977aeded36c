"""An artifact's files written into a folder, each where its layer's title says.

The artifact is mirrored into a layout in a temporary folder beside the files, so what breaks is tried again
and every byte is verified; then its blobs are renamed to what they are called.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec

from blobflow.client import Client
from blobflow.content import Verifier
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy
from blobflow.engine.services import Services
from blobflow.errors import IntegrityError, StorageError, UnsupportedContent, UsageError
from blobflow.oci import Descriptor, Manifest, Reference, media
from blobflow.oci.artifact import EMPTY_DESCRIPTOR, NamedFile, named_files
from blobflow.oci.local_reference import LAYOUT, local_host
from blobflow.operations.artifacts.push import mirror_quietly
from blobflow.operations.artifacts.unpack import unpack_folder
from blobflow.printable import printable
from blobflow.transports.files import BLOCK, in_thread, translate_os_errors
from blobflow.transports.layout.index_json import path_of_blob

# What a file that can be run gets, as one in a folder does (`unpack_folder`).
_EXECUTABLE_MODE = 0o755
_IMAGE_CONFIGS = frozenset({media.OCI_CONFIG, media.DOCKER_CONFIG})


class PulledFile(msgspec.Struct, frozen=True):
    """A file or folder that is there; `present`: it was before, byte for byte."""

    file: NamedFile
    path: Path
    status: Literal["written", "present"]


class PulledArtifact(msgspec.Struct, frozen=True):
    """What came. `reference` has the digest; `left`: layers that don't say which file they are."""

    reference: Reference
    manifest: Manifest
    files: tuple[PulledFile, ...]
    left: tuple[Descriptor, ...]


async def pull_artifact(
    client: Client, reference: Reference, folder: Path, *, overwrite: bool = False
) -> PulledArtifact:
    """Write an artifact's files below `folder`, which is made if need be.

    A file that is there with the same bytes stays. Another one is replaced with `overwrite`, and else a
    UsageError before anything is read. Raises UnsupportedContent for an image or an index, for a title that
    leads out of the folder, for links in the way; and what the source answers: then no file has changed. A
    disk that fails leaves each file as it was or whole.
    """
    found = await client.inspect(reference, alone=True)
    manifest = found.root
    files = files_of(reference, manifest)
    current = await in_thread(files_there, files, folder, overwrite)
    pinned = Reference(reference.host, reference.repository, digest=manifest.descriptor.digest)
    if len(current) < len(files):
        async with client.services() as services:
            wanted = [each for each in files if each not in current]
            await write_files(services, pinned, wanted, folder)
            await client.tidy()
    named = {each.blob for each in files}
    return PulledArtifact(
        pinned,
        manifest,
        tuple(pulled_file(each, folder, current) for each in files),
        tuple(each for each in manifest.layers if each not in named and each != EMPTY_DESCRIPTOR),
    )


def pulled_file(file: NamedFile, folder: Path, current: Collection[NamedFile]) -> PulledFile:
    """What became of a file, of which `current` are those that were there before."""
    return PulledFile(file, folder.joinpath(*file.parts), "present" if file in current else "written")


async def write_files(
    services: Services, pinned: Reference, wanted: Sequence[NamedFile], folder: Path
) -> None:
    """Write these files of the artifact that `pinned` names by its digest. See `pull_artifact`."""
    with _made(folder):
        with translate_os_errors("create", folder):
            folder.mkdir(parents=True, exist_ok=True)
            scratch = TemporaryDirectory(prefix=".blobflow-", dir=folder)
        with scratch as temporary:
            target = Reference(local_host(LAYOUT, temporary), "", tag="artifact")
            policy = Policy(referrers="off", foreign_layers=True)
            await mirror_quietly(services, Pair(pinned, target), policy)
            await in_thread(_place, wanted, Path(temporary), folder)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """While a folder is made and filled: if that fails, it goes again with those above it that were not there
    before, as far as they are empty."""
    absent = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for each in absent:
                each.rmdir()
        raise


def files_of(reference: Reference, manifest: Manifest) -> tuple[NamedFile, ...]:
    """The files of an artifact. Raises UnsupportedContent for none, and for a title that leads elsewhere."""
    if manifest.is_index:
        raise UnsupportedContent(
            f"{reference} is an index; --platform chooses one of what it lists, "
            f"`blobflow copy {reference} oci:DIR` keeps all of it"
        )
    files = named_files(manifest)
    if files:
        return files
    config = manifest.config.media_type if manifest.config else ""
    kept = f"`blobflow copy {reference} oci:DIR` keeps it as it is"
    if config in _IMAGE_CONFIGS and not manifest.artifact_type:
        raise UnsupportedContent(
            f"{reference} is an image, and no files: {kept}, `blobflow copy {reference} docker-archive:FILE` "
            f"is for `docker load`, `blobflow export {reference} -o DIR` unpacks it"
        )
    raise UnsupportedContent(f"{reference} has no layer that says which file it is: {kept}")


def files_there(files: Sequence[NamedFile], folder: Path, overwrite: bool) -> frozenset[NamedFile]:
    """Which files are there as they should be, with `overwrite` also as to whether they can be run; in a
    thread. Raises UsageError for one that is there and different, and can't be replaced or, without
    `overwrite`, must not be; UnsupportedContent for links in the way."""
    current = set()
    for each in files:
        path = _path(each, folder)
        with translate_os_errors("look at", path):
            try:
                mode = path.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
        runs_as_told = not overwrite or not each.executable or bool(mode & stat.S_IXUSR)
        if stat.S_ISREG(mode) and not each.unpack and runs_as_told and _is_same(path, each.blob):
            current.add(each)
        elif stat.S_ISDIR(mode) != each.unpack and (stat.S_ISDIR(mode) or each.unpack):
            kind = "a folder" if stat.S_ISDIR(mode) else "no folder"
            raise UsageError(f"{path} is there already, and {kind}; -o DIR writes elsewhere")
        elif not overwrite and each.parts:
            raise UsageError(f"{path} is there already; --overwrite replaces it, -o DIR writes elsewhere")
        elif not overwrite and not _is_empty(path):
            raise UsageError(
                f"{path} has files, and all of the artifact goes right into it; --overwrite replaces those of"
                " the same names, -o DIR writes elsewhere"
            )
    return frozenset(current)


def _path(file: NamedFile, folder: Path) -> Path:
    """Where a file goes. Raises UnsupportedContent where a link is in the way, which may lead anywhere."""
    for length in range(1, len(file.parts)):
        above = folder.joinpath(*file.parts[:length])
        if above.is_symlink():
            raise UnsupportedContent(f"{above} is a link, and {printable(file.title)!r} would be below it")
    # The folder itself may be a link: whoever named it meant where that leads.
    return folder.joinpath(*file.parts) if file.parts else folder.resolve()


def _is_empty(folder: Path) -> bool:
    with translate_os_errors("read", folder), os.scandir(folder) as found:
        return next(found, None) is None


def _is_same(path: Path, blob: Descriptor) -> bool:
    verifier = Verifier(blob)
    try:
        with translate_os_errors("read", path), path.open("rb") as file:
            while block := file.read(BLOCK):
                verifier.feed(block)
        verifier.finish()
    except IntegrityError:
        return False
    return True


def _place(files: Sequence[NamedFile], scratch: Path, folder: Path) -> None:
    """Bring what is in the layout to where it belongs; folders are unpacked first, all of them."""
    made = scratch / "files"
    with translate_os_errors("write", made):
        made.mkdir()
    ready: dict[NamedFile, Path] = {}
    for number, each in enumerate(files):
        if each.unpack:
            ready[each] = made / str(number)
            with translate_os_errors("write", ready[each]):
                ready[each].mkdir()
            unpack_folder(each, scratch / path_of_blob(each.blob.digest), ready[each])
    left = [each.blob.digest for each in files if not each.unpack]
    for number, each in enumerate(files):
        if each.unpack:
            continue
        blob = scratch / path_of_blob(each.blob.digest)
        left.remove(each.blob.digest)
        if each.blob.digest in left:  # another file has the same bytes
            with translate_os_errors("write", made):
                blob = Path(shutil.copyfile(blob, made / str(number)))
        ready[each] = blob
    _check_apart(ready)
    for each in files:
        if each.unpack:
            _check_merge(ready[each], _path(each, folder))
    for each in files:
        target = _path(each, folder)
        with translate_os_errors("write", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            if each.unpack:
                _merge(ready[each], target)
            else:
                if each.executable:
                    ready[each].chmod(_EXECUTABLE_MODE)
                ready[each].replace(target)


def _check_apart(ready: Mapping[NamedFile, Path]) -> None:
    """Raise UnsupportedContent if the layer that is the folder itself has in it what another layer is."""
    for here in (path for each, path in ready.items() if not each.parts):
        for each in ready:
            if each.parts and os.path.lexists(here.joinpath(each.parts[0])):
                raise UnsupportedContent(
                    f"two layers have {printable(each.parts[0])!r}: one by its name, and the one called '.'"
                )


def _check_merge(folder: Path, target: Path) -> None:
    """Raise UsageError if a folder is in the way of something else below `target`, or the other way round."""
    if not os.path.lexists(target):
        return
    if not _is_folder(target):
        raise UsageError(f"{target} is there already, and no folder; -o DIR writes elsewhere")
    for each in sorted(folder.iterdir()):
        into = target / each.name
        if _is_folder(each):
            _check_merge(each, into)
        elif _is_folder(into):
            raise UsageError(f"{into} is there already, and a folder; -o DIR writes elsewhere")


def _merge(folder: Path, target: Path) -> None:
    """Bring a folder to where one may be: what is there besides stays."""
    if not os.path.lexists(target):
        folder.rename(target)
        return
    if not _is_folder(target):  # it was one when it was checked
        raise StorageError(f"{target} is there already, and no folder")
    for each in sorted(folder.iterdir()):
        into = target / each.name
        if _is_folder(each) and _is_folder(into):
            _merge(each, into)
        else:
            each.replace(into)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
