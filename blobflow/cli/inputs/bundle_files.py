"""The files of bundles, as the verb `bundle` takes them: each argument is a file, `-`, a bundle in parts by
its name without a number, or one of its parts, which stands for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.inputs.archives import archive_input, missing_parts, split_platform, spooled_archives
from blobflow.errors import NoSuchFile, UsageError
from blobflow.oci.local_reference import ARCHIVES, STREAM
from blobflow.transports.archive import BundleFiles, files_of_bundle
from blobflow.transports.archive.tar_input import STDIN_NAME

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.operations.airgap.archive_inputs import ArchiveInput


class Bundles(msgspec.Struct, frozen=True):
    """Bundles, and as `inputs` all their files that are there, in that order."""

    files: tuple[BundleFiles, ...]
    inputs: tuple[ArchiveInput, ...]


async def open_bundles(client: Client, arguments: Sequence[str]) -> Bundles:
    """The bundles that arguments name, as far as their files are there.

    Raises NoSuchFile where nothing is, UsageError, and what a file that is no archive raises.
    """
    streams = {STREAM, *(f"{word}:{STREAM}" for word in ARCHIVES)}
    if sum(split_platform(text)[0] in streams for text in arguments) > 1:
        raise UsageError(f"{STDIN_NAME} is given twice, and can be read once")
    files: dict[Path, BundleFiles] = {}
    inputs: list[ArchiveInput] = []
    for text in arguments:
        path, platform = split_platform(text)
        if path == STREAM or path.partition(":")[0] in ARCHIVES:
            (found,) = await spooled_archives(client, [text])
            bundle, opened = BundleFiles(Path(found.label), (Path(found.label),)), [found]
        else:
            bundle = _files_of(path)
            opened = [archive_input(part, platform) for part in bundle.there]
        if bundle.path not in files:
            files[bundle.path] = bundle
            inputs += opened
    return Bundles(tuple(files.values()), tuple(inputs))


def find_bundles(arguments: Iterable[str]) -> list[BundleFiles]:
    """The files of the bundles that arguments name, each bundle once.

    Raises NoSuchFile where nothing is, UsageError for what is one file whatever it holds.
    """
    names = [split_platform(text)[0] for text in arguments]
    for name in names:
        if name == STREAM:
            raise UsageError("standard input is one file, and has no parts; `bundle ls -` looks into it")
        if name.partition(":")[0] in ARCHIVES:
            raise UsageError(f"{name} is one file; for its parts give {name.partition(':')[2]}")
    found = [_files_of(name) for name in names]
    return [*{bundle.path: bundle for bundle in found}.values()]


def missing_parts_of(files: Iterable[BundleFiles], named: Sequence[int | None]) -> Iterator[NoSuchFile]:
    """What is known to be missing of each bundle, by name.

    `named`: of each file that is there, how many images it names; None if it can't be read.
    """
    at = 0
    for bundle in files:
        at += len(bundle.there)
        said = [missing_parts(bundle)] if bundle.missing else []
        if bundle.numbered and named[at - 1] == 0:
            said.append(f"{bundle.following}, and what comes after it, which names the images")
        if said:
            yield NoSuchFile(f"parts of {bundle.path} are missing: {', '.join(said)}")


def _files_of(path: str) -> BundleFiles:
    bundle = files_of_bundle(Path(path))
    if not bundle.there:
        raise NoSuchFile(f"there is no archive {path}, and no part of one as {bundle.following}")
    return bundle
