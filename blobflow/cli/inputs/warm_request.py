"""The request of `warm`: a set of images at its edges, under the names that they have at their sources."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import msgspec

from blobflow.cli.inputs.renaming import KEEP_NAMES
from blobflow.cli.inputs.requests import ImageRequest, MirrorRequest, RegistryPrefix
from blobflow.cli.inputs.selection import read_request
from blobflow.cli.inputs.spec_files import with_files_of
from blobflow.cli.inputs.spec_formats import detect_format, read_spec
from blobflow.cli.options.images import SelectionOptions
from blobflow.cli.runtime.files import input_name, read_text
from blobflow.oci.platform_choice import PlatformChoice


def request_at_edges(selection: SelectionOptions, edges: Sequence[RegistryPrefix]) -> MirrorRequest:
    """The images of a selection at the edges, under the names that they have at their sources.

    The targets of a spec, and its names there, are not about edges. Raises as `read_request`.
    """

    # The store is no place with a name; images need one to be pairs, and theirs is never asked.
    places = tuple(edges) or (RegistryPrefix("store.invalid"),)
    if selection.spec and not (selection.source or selection.images or selection.any_host):
        text, name = read_text(selection.spec), input_name(selection.spec)
        form = detect_format(text, name) if selection.spec_format == "auto" else selection.spec_format
        targets = places if form == "skopeo" else ()
        request = read_spec(text, name, targets, form, environ=os.environ, needs_targets=False)
        request = with_files_of(request, selection.spec.parent)
    else:
        request = read_request(msgspec.structs.replace(selection, targets=tuple(map(str, places))))
    return msgspec.structs.replace(request, images=tuple(_merge_mentions(request.images)), targets=places)


def _merge_mentions(images: Iterable[ImageRequest]) -> Iterable[ImageRequest]:
    """Each image once, by its name at the source, with all platforms that any mention of it wants. It has to
    have one of them if a mention says so."""

    merged: dict[ImageRequest, list[ImageRequest]] = {}
    for image in images:
        bare = msgspec.structs.replace(
            image,
            where="",
            target="",
            target_tag="",
            rename=KEEP_NAMES,
            targets=(),
            choice=PlatformChoice(),
            missing_platform=None,
        )
        merged.setdefault(bare, []).append(image)
    for image, mentions in merged.items():
        platforms = {platform for each in mentions for platform in each.choice.platforms}
        some = all(each.choice.platforms for each in mentions)
        choice = PlatformChoice(tuple(sorted(platforms)) if some else ())
        where = f"{image}" if image.search is None else str(image.source)
        said = {each.missing_platform for each in mentions} - {None}
        missing = min(said, default=None, key=str)  # fail before skip
        yield msgspec.structs.replace(
            image, choice=choice, where=where, chosen=True, missing_platform=missing
        )
