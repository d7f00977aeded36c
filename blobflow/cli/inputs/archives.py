"""Archives as arguments: `[TRANSPORT:]FILE[,platform=OS/ARCH[/VARIANT]]`, and bundles in parts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from blobflow.errors import UsageError
from blobflow.oci import parse_platform
from blobflow.oci.local_reference import ARCHIVES, STREAM, local_host
from blobflow.operations.airgap.load import ArchiveInput
from blobflow.transports.archive import detect_transport, numbered_parts, part_path

_PLATFORM = ",platform="


def parse_archives(arguments: Iterable[str]) -> list[ArchiveInput]:
    """The archives that the arguments name; a bundle named without a part's number stands for all its parts.

    Raises UsageError, also for an archive given twice; and what a file that is no archive raises.
    """
    inputs = [found for text in arguments for found in _parse_archive(text)]
    for number, item in enumerate(inputs):
        if item.place in (other.place for other in inputs[:number]):
            raise UsageError(f"{item.label} is given twice")
    return inputs


def _parse_archive(text: str) -> list[ArchiveInput]:
    path, comma, said = text.rpartition(_PLATFORM)
    platform = parse_platform(said) if comma else None
    path = path if comma else text
    word, colon, rest = path.partition(":")
    if colon and word in ARCHIVES:
        return [ArchiveInput(rest, local_host(word, rest), platform)]
    if path == STREAM:
        raise UsageError("say what standard input is: oci-archive:- or docker-archive:-")
    return [
        ArchiveInput(str(part), local_host(detect_transport(part), str(part)), platform)
        for part in _existing_parts(Path(path))
    ]


def _existing_parts(path: Path) -> list[Path]:
    """The file, or the parts of the bundle of that name if there is no such file.

    Raises UsageError if a part between others is missing. That the last one is missing shows when they are
    read, since it alone names the images.
    """
    if path.exists():
        return [path]
    parts = numbered_parts(path)
    for number, part in enumerate(parts, start=1):
        if part != (expected := part_path(path, number)):
            raise UsageError(f"{path} comes in parts, and {expected} is not there beside {part.name}")
    return parts or [path]
