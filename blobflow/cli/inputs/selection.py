"""Turns the options that choose images into a request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from blobflow.cli.options.images import SelectionOptions
from blobflow.cli.runtime.files import input_name, read_text
from blobflow.errors import UsageError

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import ImageRequest, MirrorRequest, RegistryPrefix


def read_request(selection: SelectionOptions, *, needs_targets: bool = True) -> MirrorRequest:
    """What the arguments ask for. `needs_targets`: see `parse_spec`.

    Raises UsageError for half of one form, or both at once.
    """
    from blobflow.cli.inputs.requests import MirrorRequest, parse_registry_prefix, repository_request

    targets = tuple(parse_registry_prefix(target) for target in selection.targets)
    if [*map(str, (selection.spec, selection.images)), *selection.images_from].count("-") > 1:
        raise UsageError("stdin can be read once; give it for one of SPEC, --images and --images-from")
    if selection.spec:
        from blobflow.cli.inputs.spec_formats import read_spec

        if selection.source or selection.images:
            raise UsageError("give either a spec file or --from, --to and --images, not both")
        if selection.any_host:
            raise UsageError(
                "--any-host is about the lines of --images; in a spec an image's host is its source"
            )
        text, name = read_text(selection.spec), input_name(selection.spec)
        request = read_spec(
            text,
            name,
            targets,
            selection.spec_format,
            scoped=selection.scoped,
            needs_targets=needs_targets,
            environ=os.environ,
        )
        return _with_files(request, selection)
    if selection.source and targets and not (selection.images or selection.images_from):
        if selection.any_host:
            raise UsageError("--any-host is about the lines of --images")
        return MirrorRequest((repository_request(selection.source, scoped=selection.scoped),), targets)
    images = selection.images or selection.images_from
    listed = {"--from": selection.source, "--to": selection.targets, "--images": images}
    missing = [option for option, value in listed.items() if not value]
    if not (targets and images):
        raise UsageError(f"give a spec file, or {', '.join(missing)} as well")
    source = parse_registry_prefix(selection.source) if selection.source else None
    listed_images: Sequence[ImageRequest] = ()
    if selection.images:
        from blobflow.cli.inputs.image_list import read_image_list

        listed_images = read_image_list(selection.images, source, any_host=selection.any_host)
    return _with_files(MirrorRequest(tuple(listed_images), targets), selection, source)


def _with_files(
    request: MirrorRequest, selection: SelectionOptions, source: RegistryPrefix | None = None
) -> MirrorRequest:
    """The request with what a spec names beside it, and with what --images-from names."""
    if selection.spec:
        from blobflow.cli.inputs.spec_files import with_files_of

        request = with_files_of(request, selection.spec.parent)
    if not selection.images_from:
        return request
    from blobflow.cli.inputs.collected import add_collected

    return add_collected(
        request,
        selection.images_from,
        source,
        any_host=selection.any_host,
        custom_resources=selection.custom_resources,
    )
