"""The names that archives have for their images, and which image each becomes at a registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from blobflow.errors import InvalidReference, UnsupportedContent
from blobflow.oci import Descriptor, Reference, parse_reference
from blobflow.oci.index_grouping import ImageName, host_of, parse_image_name
from blobflow.oci.local_reference import DOCKER_ARCHIVE, transport_of
from blobflow.oci.reference import split_name
from blobflow.operations.airgap.archive_inputs import ArchiveInput
from blobflow.signatures.contract import ClaimedImage
from blobflow.transports.layout.image_names import full_name


class ArchivedName(msgspec.Struct, frozen=True):
    """An image under one of its names in an archive. `origin`: the reference that it had before, None where
    that is not known. `path`: its repository at a mirror, if that is not what its name says."""

    input: ArchiveInput
    called: str
    root: Descriptor
    origin: Reference | None = None
    path: str = ""

    @property
    def claimed(self) -> ClaimedImage:
        """The image, by the full name that the archive has for it."""
        place = self.input.place
        return ClaimedImage(transport_of(place), Reference(place, "", self.called), self.root.digest)


def names_at_registry(called: Iterable[str], hosts: Mapping[ImageName, str]) -> dict[ImageName, str]:
    """The full names among an archive's names for an image, each with the archive's spelling, at a wanted
    host if there is one."""
    found: dict[ImageName, str] = {}
    for text in called:
        if (name := parse_image_name(text)) and (name not in found or is_at(text, hosts.get(name, ""))):
            found[name] = text
    return found


def origin_of(item: ArchiveInput, text: str, said: str) -> Reference | None:
    """The reference that an image had, as a bundle `said`, or as its name there is one: without a host it is
    docker.io's in docker's own archives alone."""
    if not said and (split_name(text)[0] or transport_of(item.place) == DOCKER_ARCHIVE):
        said = full_name(text)
    try:
        return parse_reference(said) if said else None
    except InvalidReference as error:
        raise UnsupportedContent(f"{item.label} says where {text} was, and {error.message}") from None


def is_at(text: str, host: str) -> bool:
    return not host or host_of(text) == host


def settle(found: dict[ImageName, ArchivedName], name: ImageName, find: ArchivedName, *, apart: bool) -> None:
    """Take up what an archive has under a name. Where it has something else there already, each goes `apart`
    to its own place, if these differ: `library/x` of docker.io and `x` of another registry. Raises
    UnsupportedContent where they are one."""
    held = found.setdefault(name, find)
    if held.root.digest == find.root.digest:
        return
    for each, other in ((find, held), (held, find)):
        if apart and each.path not in ("", name.path):
            found[name] = other
            settle(found, msgspec.structs.replace(name, path=each.path), each, apart=False)
            return
    raise UnsupportedContent(_twice(find.input, name, held.called, find.called))


def _twice(item: ArchiveInput, name: ImageName, one: str, other: str) -> str:
    if one == other:
        return f"{item.label} has two images named {one}; which one is meant can't be told"
    both = f"{item.label} has {one} and {other}, which would both become {name}"
    return (
        f"{both}; load each to a prefix of its own, by its name with the host in --images, or save one with"
        " another `target` in a spec"
    )
