"""Turns the options that choose images into a request."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blobflow.cli.options.images import SelectionOptions
from blobflow.cli.runtime.files import input_name, read_text
from blobflow.errors import UsageError

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import MirrorRequest


def read_request(selection: SelectionOptions) -> MirrorRequest:
    """What the arguments ask for. Raises UsageError for half of one form, or both at once."""
    from blobflow.cli.inputs.requests import (
        MirrorRequest,
        parse_registry_prefix,
        repository_request,
        with_policies_in,
    )

    targets = tuple(parse_registry_prefix(target) for target in selection.targets)
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
            text, name, targets, selection.spec_format, scoped=selection.scoped, environ=os.environ
        )
        return with_policies_in(request, selection.spec.parent)
    if selection.source and targets and not selection.images:
        if selection.any_host:
            raise UsageError("--any-host is about the lines of --images")
        return MirrorRequest((repository_request(selection.source, scoped=selection.scoped),), targets)
    listed = {"--from": selection.source, "--to": selection.targets, "--images": selection.images}
    missing = [option for option, value in listed.items() if not value]
    if not (targets and selection.images):
        raise UsageError(f"give a spec file, or {', '.join(missing)} as well")
    from blobflow.cli.inputs.image_list import read_image_list

    source = parse_registry_prefix(selection.source) if selection.source else None
    return MirrorRequest(
        tuple(read_image_list(selection.images, source, any_host=selection.any_host)), targets
    )
