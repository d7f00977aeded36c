"""The request of `save`: the images of a spec, in a bundle instead of at its targets."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from blobflow.cli.inputs.requests import MirrorRequest, RegistryPrefix
from blobflow.cli.inputs.spec_files import with_files_of
from blobflow.cli.inputs.spec_formats import detect_format, read_spec
from blobflow.cli.options.images import SpecFormat
from blobflow.cli.runtime.files import input_name, read_text
from blobflow.errors import UsageError


def read_request_for_bundle(
    file: Path | None, form: SpecFormat, place: str, *, is_list: bool, has_more: bool = False
) -> MirrorRequest:
    """The images of a spec in the bundle at `place`, under the names that they would have at its targets,
    behind the host of their source where these are no others; none, where `is_list` a list names them, or
    where there is something else to save (`has_more`).

    Raises as `read_spec`, and UsageError for a spec and a list, or neither.
    """
    if file is None:
        if not (is_list or has_more):
            raise UsageError("say which images: a SPEC, --images LIST or --images-from FILE")
        return MirrorRequest((), (RegistryPrefix(place),))
    if is_list:
        raise UsageError("give either a spec file or --from and --images, not both")
    text, name, bundle = read_text(file), input_name(file), RegistryPrefix(place)
    form = detect_format(text, name) if form == "auto" else form
    targets = (bundle,) if form == "skopeo" else ()
    request = read_spec(text, name, targets, form, environ=os.environ, needs_targets=False)
    request = with_files_of(request, file.parent)
    images = tuple(msgspec.structs.replace(image, targets=(), backup="") for image in request.images)
    return msgspec.structs.replace(request, images=images, targets=(bundle,), schedule_hint="")
