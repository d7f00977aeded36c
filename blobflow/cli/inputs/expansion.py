"""Expands a request into pairs of source and target, given the tags that its rules choose. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from blobflow.cli.inputs.renaming import apply_rename
from blobflow.cli.inputs.requests import ImageRequest, MirrorRequest, RegistryPrefix
from blobflow.cli.output.units import count_text
from blobflow.engine.pairs import Pair
from blobflow.errors import BlobflowError, UsageError
from blobflow.file_errors import FileErrors
from blobflow.oci import Reference
from blobflow.oci.local_reference import ARCHIVES, transport_of
from blobflow.oci.reference import check_tag
from blobflow.operations.tags.search import ChosenTags, TagSearch


class ExpandedRequest(msgspec.Struct, frozen=True):
    """The pairs of a request.

    `unresolved`: repositories whose tags could not be read, as pairs of repositories. `notes`: what choosing
    tags cost in requests, where it was much.
    """

    pairs: tuple[Pair, ...]
    unresolved: dict[Pair, BlobflowError] = {}
    notes: tuple[str, ...] = ()


def expand(request: MirrorRequest, found: Mapping[TagSearch, Sequence[ChosenTags]]) -> ExpandedRequest:
    """Every image at every target; `found` has the tags that the rules choose. Raises as `make_pairs`."""
    chosen_images: list[ImageRequest] = []
    unresolved: dict[Pair, BlobflowError] = {}
    notes: list[str] = []
    for image in request.images:
        search = image.search
        for chosen in found[search] if search is not None else ():
            path = chosen.repository.removeprefix(f"{image.source.prefix}/" if image.source.prefix else "")
            one = msgspec.structs.replace(image, path=path, rules=None, repositories=None, chosen=True)
            chosen_images += [msgspec.structs.replace(one, tag=tag) for tag in chosen.tags]
            if chosen.error is not None:
                for target in image.targets or request.targets:
                    unresolved[repository_pair(one, target)] = chosen.error
            if chosen.dated:
                notes.append(
                    f"{image.where}: {chosen.dated} tags of {image.source.host}/{chosen.repository} were"
                    " asked for their date, by two requests each, or three for an index"
                )
            if chosen.others:
                notes.append(
                    f"{image.where}: {count_text(chosen.others, 'tag')} of {image.source.host}/"
                    f"{chosen.repository} left out, of a media type that is not wanted"
                )
        if search is None:
            chosen_images.append(image)
    return ExpandedRequest(
        tuple(make_pairs(chosen_images, request.targets)), unresolved, tuple(dict.fromkeys(notes))
    )


def repository_pair(image: ImageRequest, target: RegistryPrefix) -> Pair:
    """The pair that stands for all images of a repository."""
    path = _path_at(target, image) or image.source.host
    source = Reference(image.source.host, image.source.under(image.path, "").repository if image.path else "")
    return Pair(source, Reference(target.host, f"{target.prefix}/{path}" if target.prefix else path))


def make_pairs(images: Iterable[ImageRequest], targets: Sequence[RegistryPrefix]) -> list[Pair]:
    """Every image at every target. Raises UsageError naming both places that ask for the same pair."""
    images = list(images)
    if not targets and not all(image.targets for image in images):
        raise UsageError("no target: say where to with --to HOST[/prefix], or `targets` in the spec")
    if len(set(targets)) < len(targets):
        twice = next(place for index, place in enumerate(targets) if place in targets[:index])
        raise UsageError(f"the target {twice} is given twice")
    requested: dict[tuple[Reference, Reference], ImageRequest] = {}
    pairs: list[Pair] = []
    errors = FileErrors()
    for image in images:
        with errors.at(image.where):
            for target in image.targets or targets:
                pair = pair_of(image, target)
                before = requested.setdefault((pair.source, pair.target), image)
                if before is image:
                    pairs.append(pair)
                elif not (before.chosen or image.chosen):
                    raise UsageError(f"{image} is listed already, at {before.where}")
    errors.check()
    return pairs


def pair_of(image: ImageRequest, target: RegistryPrefix) -> Pair:
    source = image.origin
    # Put under its digest alone, a manifest has no other name than that digest.
    tag = _tag_at(image)
    goal = target.under(_path_at(target, image), tag, "" if tag else image.digest)
    if source == goal:
        raise UsageError(f"{source} is both source and target; give another host or prefix")
    backup = image.backup if goal.tag else ""
    return Pair(
        source,
        goal,
        image.choice,
        image.referrers,
        image.missing_platform or "skip",
        backup,
        image.signature_policy,
    )


def _path_at(target: RegistryPrefix, image: ImageRequest) -> str:
    """The path at a target. In an archive it begins with a host: the source's, if no other is given."""
    facts = {"host": image.source.host, "path": image.path, "tag": image.tag}
    path = image.target or apply_rename(image.rename.repository, image.path, **facts)
    own = target.prefix or path != image.path or image.target
    if own or transport_of(target.host) not in ARCHIVES:
        return path
    if transport_of(image.source.host):
        return image.named
    return str(image.source.under(path, "latest")).removesuffix(":latest")


def _tag_at(image: ImageRequest) -> str:
    """The tag at a target; what has only a digest gets none."""
    if not image.tag:
        return image.target_tag
    facts = {"host": image.source.host, "path": image.path, "tag": image.tag}
    tag = image.target_tag or apply_rename(image.rename.tag, image.tag, **facts)
    return tag if tag == image.tag else check_tag(tag)
