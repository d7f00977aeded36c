"""The digests that images get where files are to name them by digest: a lock file's, or the mirror's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.inputs.lock_file import parse_lock
from blobflow.cli.inputs.mirror_place import PlaceOf
from blobflow.cli.runtime.files import input_name, read_text
from blobflow.deployment_files.lock_mark import is_lock
from blobflow.errors import BlobflowError, UsageError
from blobflow.oci import Reference

if TYPE_CHECKING:
    from blobflow.client import Client

# Digests of images by their places without one, or why they have none: the end of a sentence.
Digests = Mapping[Reference, "str | UsageError"]


def locked_digests(lock: Path, place_of: PlaceOf, places: Iterable[Reference]) -> Digests:
    """The digests of a lock file, for images at their places in the mirror, whichever way it names them.

    Raises InvalidConfig, and UsageError for what is no lock file.
    """
    text, name = read_text(lock), input_name(lock)
    if not is_lock(text):
        raise UsageError(f"{name} is no lock file; `blobflow images --lock` makes one")
    digests: dict[Reference, str | UsageError] = {}
    for image in parse_lock(text, name)[0].images:
        try:
            place = _tagged(place_of(image.name))
        except UsageError:  # it has no place in this mirror, so no file gets it either
            continue
        if digests.setdefault(place, image.digest) != image.digest:
            digests[place] = UsageError(f"has several digests in {name}, whose images have one place")
    missing = UsageError(f"is not in {name}")
    return {place: digests.get(place, missing) for place in map(_tagged, places)}


async def asked_digests(client: Client, places: Iterable[Reference]) -> Digests:
    """The digests that the places have at the mirror now, by one small request each."""
    from blobflow.operations.pins import current_digests

    found = await current_digests(client, map(_tagged, places))
    return {
        place: UsageError(f"can't be asked for at the mirror: {each}")
        if isinstance(each, BlobflowError)
        else each
        for place, each in found.items()
    }


def _tagged(image: Reference) -> Reference:
    return msgspec.structs.replace(image, digest="")


def with_digest(place: Reference, digests: Digests) -> Reference:
    """The place with its digest. Raises UsageError, the end of a sentence, where it has none."""
    if place.digest:
        return place
    digest = digests[place]
    if isinstance(digest, UsageError):
        raise digest
    return msgspec.structs.replace(place, digest=digest)
