"""The request of `save`: images of a spec, and those that files name, in a bundle instead of at targets."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from blobflow.cli.inputs.requests import MirrorRequest, RegistryPrefix, parse_registry_prefix
from blobflow.cli.inputs.spec_files import with_files_of
from blobflow.cli.inputs.spec_formats import detect_format, read_spec
from blobflow.cli.options.images import SelectionOptions, SpecFormat
from blobflow.cli.runtime.files import input_name, read_text
from blobflow.errors import UsageError


def read_request_for_bundle(selection: SelectionOptions, place: str, *, has_files: bool) -> MirrorRequest:
    """The images of a spec in the bundle at `place`, under the names that they would have at its targets,
    behind the host of their source where these are no others; with those that files name (`images_from`).
    Those of a list are not among them. `has_files`: plain files are saved, so no image has to be.

    Raises as `read_spec` and `add_collected`, and UsageError for a spec and a list, or neither.
    """
    listed = selection.images is not None
    if not (listed or selection.images_from) and (selection.source or selection.any_host):
        raise UsageError("--from and --any-host are about the lines of --images; give that, too")
    if selection.spec is None:
        if not (listed or selection.images_from or has_files):
            raise UsageError("say which images: a SPEC, --images LIST or --images-from FILE")
        request = MirrorRequest((), (RegistryPrefix(place),))
    else:
        if listed:
            raise UsageError("give either a spec file or --from and --images, not both")
        request = _read(selection.spec, selection.spec_format, RegistryPrefix(place))
    if not selection.images_from:
        return request
    from blobflow.cli.inputs.collected import add_collected

    return add_collected(
        request,
        selection.images_from,
        parse_registry_prefix(selection.source) if selection.source else None,
        any_host=selection.any_host,
        custom_resources=selection.custom_resources,
    )


def _read(file: Path, form: SpecFormat, bundle: RegistryPrefix) -> MirrorRequest:
    text, name = read_text(file), input_name(file)
    form = detect_format(text, name) if form == "auto" else form
    targets = (bundle,) if form == "skopeo" else ()
    request = read_spec(text, name, targets, form, environ=os.environ, needs_targets=False)
    request = with_files_of(request, file.parent)
    images = tuple(msgspec.structs.replace(image, targets=(), backup="") for image in request.images)
    return msgspec.structs.replace(request, images=images, targets=(bundle,), schedule_hint="")
