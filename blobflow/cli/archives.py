"""Archives as arguments: `[TRANSPORT:]FILE[,platform=OS/ARCH[/VARIANT]]`, and bundles in parts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from blobflow.airgap.loading import Input
from blobflow.errors import UsageError
from blobflow.oci import parse_platform
from blobflow.oci.location import ARCHIVES, STREAM, place_at
from blobflow.transports.archive import kind_of, numbered_parts, part_path

_PLATFORM = ",platform="


def read_inputs(arguments: Iterable[str]) -> list[Input]:
    """The archives that the arguments name; of a bundle in parts, named without a number, all of them.

    Raises UsageError, also for one that is given twice; and what a file that is no archive raises.
    """
    inputs = [found for text in arguments for found in _inputs(text)]
    for number, item in enumerate(inputs):
        if item.place in (other.place for other in inputs[:number]):
            raise UsageError(f"{item.label} is given twice")
    return inputs


def _inputs(text: str) -> list[Input]:
    path, comma, said = text.rpartition(_PLATFORM)
    platform = parse_platform(said) if comma else None
    path = path if comma else text
    word, colon, rest = path.partition(":")
    if colon and word in ARCHIVES:
        return [Input(rest, place_at(word, rest), platform)]
    if path == STREAM:
        raise UsageError("say what standard input is: oci-archive:- or docker-archive:-")
    return [Input(str(part), place_at(kind_of(part), str(part)), platform) for part in _parts_of(Path(path))]


def _parts_of(path: Path) -> list[Path]:
    """The file, or if there is none of that name the parts of a bundle of that name.

    Raises UsageError where one of them is missing between others; the last one is missed by who reads them,
    since it alone names the images.
    """
    if path.exists():
        return [path]
    parts = numbered_parts(path)
    for number, part in enumerate(parts, start=1):
        if part != (expected := part_path(path, number)):
            raise UsageError(f"{path} comes in parts, and {expected} is not there beside {part.name}")
    return parts or [path]
