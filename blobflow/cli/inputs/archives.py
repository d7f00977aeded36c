"""Archives as arguments: `[TRANSPORT:]FILE[,platform=OS/ARCH[/VARIANT]]`, bundles in parts, and `-`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blobflow.cli.runtime.stdin_spool import check_stdin, spool_stdin
from blobflow.errors import NoSuchFile, UsageError
from blobflow.events import PhaseStarted
from blobflow.oci import Platform, parse_platform
from blobflow.oci.local_reference import ARCHIVES, STREAM, local_host
from blobflow.operations.airgap.archive_inputs import ArchiveInput
from blobflow.transports.archive import BundleFiles, detect_transport, files_of_bundle
from blobflow.transports.archive.detection import transport_of_open
from blobflow.transports.archive.parts import run_text
from blobflow.transports.archive.tar_input import STDIN, STDIN_NAME, is_file_at_start

if TYPE_CHECKING:
    from blobflow.client import Client

_PLATFORM = ",platform="


def parse_archives(arguments: Iterable[str]) -> list[ArchiveInput]:
    """The archives that the arguments name; a bundle named without a part's number stands for all its parts.

    `-` is standard input, which has to be a file by then: see `cli.runtime.stdin_spool`. Raises UsageError,
    also for an archive given twice; NoSuchFile; and what a file that is no archive raises.
    """
    inputs = [found for text in arguments for found in _parse_archive(text)]
    for number, item in enumerate(inputs):
        if item.place in (other.place for other in inputs[:number]):
            raise UsageError(f"{item.label} is given twice")
    return inputs


def names_stdin(arguments: Iterable[str]) -> bool:
    """Whether one of the arguments is standard input, without a word for what it is.

    Raises UsageError where nothing will come from there by itself.
    """
    found = any(split_platform(text)[0] == STREAM for text in arguments)
    if found:
        check_stdin()
    return found


async def spooled_archives(client: Client, arguments: Sequence[str]) -> list[ArchiveInput]:
    """As `parse_archives`, after standard input has been made a file if it is one of them."""
    if names_stdin(arguments):
        client.observer(PhaseStarted(STDIN_NAME, 1))
        meter = client.meter.hosts[STDIN_NAME]
        await spool_stdin((await client.open()).store.root, meter)
        meter.bytes_read = 0  # it was shown as it came; what the run reads is read from the file
    return parse_archives(arguments)


def split_platform(text: str) -> tuple[str, Platform | None]:
    """An argument's path and the platform that it says. Raises UsageError."""
    path, comma, said = text.rpartition(_PLATFORM)
    return (path, parse_platform(said)) if comma else (text, None)


def archive_input(path: Path, platform: Platform | None = None) -> ArchiveInput:
    """The archive in a file. Raises as `detect_transport`."""
    return ArchiveInput(str(path), local_host(detect_transport(path), str(path)), platform)


def stdin_input(platform: Platform | None = None) -> ArchiveInput:
    """The archive that standard input is, which has to be a file: UsageError for a pipe that nobody has made
    one of. Raises as `transport_of_open`."""
    if not is_file_at_start(STDIN):
        raise UsageError("say what standard input is: oci-archive:- or docker-archive:-")
    return ArchiveInput(STDIN_NAME, local_host(transport_of_open(STDIN, STDIN_NAME), STREAM), platform)


def missing_parts(files: BundleFiles) -> str:
    """The parts that are missing, by name: `a.001.tar, a.003.tar to a.005.tar`."""
    return ", ".join(run_text(*run) for run in files.missing)


def _parse_archive(text: str) -> list[ArchiveInput]:
    path, platform = split_platform(text)
    word, colon, rest = path.partition(":")
    if colon and word in ARCHIVES:
        return [ArchiveInput(rest, local_host(word, rest), platform)]
    if path == STREAM:
        return [stdin_input(platform)]
    return [archive_input(part, platform) for part in _existing_parts(Path(path))]


def _existing_parts(path: Path) -> list[Path]:
    """The file, or the parts of the bundle of that name if there is no such file.

    Raises NoSuchFile if a part between others is missing. That the last one is missing shows when they are
    read, since it alone names the images.
    """
    if path.exists():
        return [path]
    files = files_of_bundle(path)
    if files.missing:
        raise NoSuchFile(f"parts of {path} are missing: {missing_parts(files)}")
    return [*files.there] or [path]
