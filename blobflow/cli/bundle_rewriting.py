"""The deployment files of a bundle, with the images of the mirror in them that it was loaded into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.inputs.collected import untold_sentence
from blobflow.cli.inputs.mirror_place import PlaceOf, is_at
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.output.units import count_text
from blobflow.cli.output.warnings import print_warnings
from blobflow.cli.rewriting import Rewriting, write_below
from blobflow.errors import RunIncomplete, UsageError
from blobflow.oci import Digest, Reference

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import RegistryPrefix
    from blobflow.cli.options.output import OutputOptions
    from blobflow.mirror_places import MirrorPlaces
    from blobflow.operations.airgap.extract import ExtractedFiles


class LoadedImage(msgspec.Struct, frozen=True):
    """An image that is in the mirror now: what it was called at its origin, and its digest."""

    origin: Reference
    digest: Digest


class LoadedPlaces:
    """Where images are that were loaded, and no others: rules have places for what is not there, too."""

    def __init__(
        self,
        images: Sequence[LoadedImage],
        places: MirrorPlaces,
        mirror: RegistryPrefix,
        *,
        with_digests: bool = False,
    ) -> None:
        self._places = places
        self._mirror = mirror
        self._with_digests = with_digests
        self._by_tag = {(_repository(each.origin), each.origin.tag): each for each in images}
        self._digests = {
            (_repository(each.origin), digest)
            for each in images
            for digest in (each.digest, each.origin.digest)
        }

    def place_of(self, image: Reference) -> Reference:
        """The image's place in the mirror. Raises UsageError, the end of a sentence about it, where it has
        none."""
        if is_at(image, self._mirror):
            return image
        repository = _repository(image)
        tagged = self._by_tag.get((repository, image.tag))
        there = (repository, image.digest) in self._digests if image.digest else tagged is not None
        place = self._places.place_of(image) if there else None
        if place is None:
            raise UsageError("is not among the images that were loaded")
        if self._with_digests and tagged is not None and not place.digest:
            return msgspec.structs.replace(place, digest=tagged.digest)
        return place


def _repository(reference: Reference) -> str:
    return f"{reference.host}/{reference.repository}"


def rewrite_deployments(
    deployments: ExtractedFiles, top: Path, folder: Path, place_of: PlaceOf, output: OutputOptions
) -> None:
    """Write the files that are below `top` below `folder` instead, with the images that `place_of` has places
    for, and say what stays.

    Raises RunIncomplete where an image does that should not; UsageError, StorageError.
    """

    def shown(path: str) -> str:
        """As the file was called where it was saved."""
        return Path(path).relative_to(top).as_posix()

    work = Rewriting([str(each.path) for each in deployments.files], deployments.custom_resources, place_of)
    rewritten = work.rewrite()
    write_below(folder, rewritten, [str(top)])
    untold = (msgspec.structs.replace(each, path=shown(each.path)) for each in work.found.untold)
    print_warnings(map(untold_sentence, untold), output)
    left = [each for file in rewritten for each in file.left]
    for image, why in left:
        print_lines(f"left: {shown(image.path)} line {image.line}: {image.written} {why}", err=True)
    if not output.quiet:
        replaced = sum(file.replaced for file in rewritten)
        where = f"{count_text(replaced, 'image')} replaced in {count_text(len(rewritten), 'file')}"
        print_lines(f"{where} below {folder}")
    if left:
        raise RunIncomplete(f"{len(left)} of {count_text(len(work.found.images), 'image')} stay as they are")
