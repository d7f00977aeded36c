"""The mirrors that a selection of images makes: the rules by which its images have their places there.

What `sync` with the same arguments does is what counts, by the code that `sync` has. Places alone, without a
list, are rules by themselves: `--from HOST --to MIRROR` for all of a registry, `--to MIRROR` for every one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.inputs.expansion import expand, repository_pair
from blobflow.cli.inputs.report_file import read_report
from blobflow.cli.inputs.requests import (
    ImageRequest,
    MirrorRequest,
    RegistryPrefix,
    parse_registry_prefix,
)
from blobflow.cli.inputs.selection import read_request
from blobflow.cli.inputs.spec_formats import detect_format
from blobflow.cli.options.images import SelectionOptions
from blobflow.cli.options.nodes import NodeSelection
from blobflow.cli.runtime.files import input_name, read_text
from blobflow.engine.pairs import Pair
from blobflow.errors import UsageError
from blobflow.mirror_places import MirrorPlaces, places_below, places_of_pairs, places_under
from blobflow.oci import Reference, parse_reference
from blobflow.oci.local_reference import transport_of
from blobflow.oci.reference import host_in_name

if TYPE_CHECKING:
    from blobflow.engine.results.report import Report
    from blobflow.operations.tags.search import ChosenTags, TagSearch

# Finds the tags that rules choose, at their registries.
FindTags = Callable[[Sequence["TagSearch"]], Mapping["TagSearch", Sequence["ChosenTags"]]]


class SelectedMirrors(msgspec.Struct, frozen=True):
    """The mirrors in the order in which they were named; `request` is None where no images were listed."""

    mirrors: tuple[MirrorPlaces, ...]
    request: MirrorRequest | None = None


def mirrors_of(selection: NodeSelection, find_tags: FindTags) -> SelectedMirrors:
    """The mirrors of a selection. `find_tags` is called only where a tag decides where an image goes.

    Raises UsageError as `read_request`, and as `read_report`; and what `find_tags` does.
    """
    if selection.report is not None:
        if selection != NodeSelection(report=selection.report):
            raise UsageError("--from-report says which images and where they are; leave all else of that out")
        return SelectedMirrors(mirrors_of_report(read_report(selection.report)))
    for places, option in ((selection.targets, "--to"), (selection.sources, "--from")):
        if len(set(places)) < len(places):
            raise UsageError(f"a place is given twice with {option}; give it once")
    if selection.names_images:
        request = _read_request(selection.as_of_sync)
        return SelectedMirrors(mirrors_of_request(request, find_tags), request)
    if not selection.targets:
        raise UsageError("say where the images are: a SPEC, or --to HOST[/prefix]")
    if selection.any_host:
        raise UsageError("--any-host is about the lines of --images")
    if selection.scoped and not selection.sources:
        raise UsageError("--scoped keeps the host of --from; give that too")
    return SelectedMirrors(tuple(_places_at(target, selection) for target in selection.targets))


def _places_at(target: str, selection: NodeSelection) -> MirrorPlaces:
    """What is below the sources, or every registry, below a target."""
    if not selection.sources:
        return places_below(target)
    sources = {str(parse_registry_prefix(source)) for source in selection.sources}
    return MirrorPlaces(
        tuple(
            rule
            for source in sorted(sources, key=lambda each: (-each.count("/"), each))
            for rule in places_under(source, _scoped(target, source) if selection.scoped else target).rules
        )
    )


def _scoped(target: str, source: str) -> str:
    host, slash, path = source.partition("/")
    return f"{target}/{host_in_name(host)}{slash}{path}"


def _read_request(selection: SelectionOptions) -> MirrorRequest:
    """The request; with --to a spec's is at those of its targets alone, in that order, or where it has none
    at these."""
    others = selection.source or selection.images  # which no spec goes with
    if selection.spec is None or not selection.targets or others or str(selection.spec) == "-":
        return read_request(selection)
    form = selection.spec_format
    if form == "auto":
        form = detect_format(read_text(selection.spec), input_name(selection.spec))
    if form == "skopeo":
        return read_request(selection)
    wanted = tuple(map(parse_registry_prefix, selection.targets))
    bare = msgspec.structs.replace(selection, targets=(), spec_format=form)
    request = read_request(bare, needs_targets=False)
    own = {*request.targets, *(target for image in request.images for target in image.targets)}
    for target in wanted if own else ():
        if target not in own:
            has = ", ".join(sorted(map(str, own)))
            raise UsageError(f"--to {target} is no target of {selection.spec}, which has {has}")
    images = [
        msgspec.structs.replace(image, targets=tuple(each for each in wanted if each in image.targets))
        for image in request.images
        if not image.targets or set(wanted) & set(image.targets)
    ]
    targets = [each for each in wanted if not own or each in request.targets]
    return msgspec.structs.replace(request, images=tuple(images), targets=tuple(targets))


def mirrors_of_report(report: Report) -> tuple[MirrorPlaces, ...]:
    """The mirrors that a run filled, as far as it did: the hosts of its targets, in the report's order.

    Raises UsageError for a report of nothing that is there, and as `places_of_pairs`.
    """
    from blobflow.operations.airgap.load import ARCHIVES

    hosts: dict[str, list[Pair]] = {}
    for image in report.images:
        if image.status in ("done", "present"):
            if image.source.startswith(ARCHIVES):
                raise UsageError(
                    f"{image.source} came from an archive, and the report has no registry that nodes know it"
                    " by; give the spec or list that the archive was made of"
                )
            pair = Pair(parse_reference(image.source), parse_reference(image.target))
            hosts.setdefault(pair.target.host, []).append(pair)
    if not hosts:
        raise UsageError("the report is of a run that brought no image to its place")
    return tuple(map(places_of_pairs, hosts.values()))


def mirrors_of_request(request: MirrorRequest, find_tags: FindTags) -> tuple[MirrorPlaces, ...]:
    """The mirrors of a request: its targets that are registries, in the order of the file. Raises as
    `mirrors_of`."""
    asked = [search for image in request.images if _needs_tags(image) and (search := image.search)]
    found = find_tags(list(dict.fromkeys(asked))) if asked else {}
    named = [*request.targets, *(target for image in request.images for target in image.targets)]
    targets = list(dict.fromkeys(named))
    registries = [target for target in targets if not transport_of(target.host)]
    # Without any the first one raises what is wrong with it.
    return tuple(places_of_pairs(_pairs_at(target, request, found)) for target in registries or targets[:1])


def _pairs_at(
    target: RegistryPrefix,
    request: MirrorRequest,
    found: Mapping[TagSearch, Sequence[ChosenTags]],
) -> list[Pair]:
    """What goes to one target: each image, and of rules that choose tags the repository."""
    images = [
        msgspec.structs.replace(image, targets=())
        for image in request.images
        if target in (image.targets or request.targets)
    ]
    exact = tuple(image for image in images if image.search is None or _needs_tags(image))
    expanded = expand(msgspec.structs.replace(request, images=exact, targets=(target,)), found)
    for error in expanded.unresolved.values():
        raise error
    whole = [_whole_pair(image, target) for image in images if image not in exact]
    return [*expanded.pairs, *whole]


def _needs_tags(image: ImageRequest) -> bool:
    """Whether it takes the tags, or the repositories, that rules choose to know where they go."""
    if image.search is None:
        return False
    rule = image.rename.repository
    by_name = bool(rule.template or rule.match)
    if image.repositories is not None and by_name:
        return True
    return image.rename.tag != type(rule)() or "{tag}" in rule.template


def _whole_pair(image: ImageRequest, target: RegistryPrefix) -> Pair:
    """A repository, or all that is below a source, with its place."""
    if image.repositories is None:
        return repository_pair(image, target)
    source = Reference(image.source.host, image.source.prefix)
    prefix = "/".join(filter(None, (target.prefix, image.target)))
    return Pair(source, Reference(target.host, prefix))
