"""Checks files as the verbs read them, and says what they have. Asks no registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from blobflow.cli.inputs.requests import MirrorRequest, RegistryPrefix
from blobflow.cli.output.units import count_text
from blobflow.cli.runtime.files import input_name, read_text
from blobflow.errors import UsageError

# Where the images of a skopeo file would go, which does not say it.
_NOWHERE = RegistryPrefix("localhost")


class CheckedFile(msgspec.Struct, frozen=True):
    """A file that is in order, and what it has."""

    name: str
    summary: str


def check_file(file: Path | None, kind: str | None, environ: Mapping[str, str]) -> CheckedFile:
    """Check a file of a `kind` (config, spec, access; None: by its suffix); None: the configuration in use.

    Raises InvalidConfig, InvalidReference or UsageError with what is wrong, all of it.
    """
    if file is None and kind not in (None, "config"):
        raise UsageError(f"name the file to check: blobflow config check FILE --of {kind}")
    file = file or _in_use(environ)
    kind = kind or ("config" if file.suffix == ".toml" else "spec")
    if kind == "config":
        from blobflow.config_file import parse_config

        hosts = parse_config(read_text(file), input_name(file), file.parent)
        return CheckedFile(input_name(file), count_text(len(hosts), "registry table"))
    if kind == "access":
        from blobflow.server import parse_access

        rules = parse_access(read_text(file), input_name(file)).rules
        return CheckedFile(input_name(file), count_text(len(rules), "rule"))
    return CheckedFile(input_name(file), _spec_summary(_read_spec(file, environ)))


def _in_use(environ: Mapping[str, str]) -> Path:
    from blobflow.environment import config_file

    found = config_file(environ)
    if found is None:
        raise UsageError("there is no configuration file in use; name one: blobflow config check FILE")
    return found


def _read_spec(file: Path, environ: Mapping[str, str]) -> MirrorRequest:
    from blobflow.cli.inputs.expansion import expand
    from blobflow.cli.inputs.spec_files import with_files_of
    from blobflow.cli.inputs.spec_formats import detect_format, read_spec

    text, name = read_text(file), input_name(file)
    form = detect_format(text, name)
    targets = (_NOWHERE,) if form == "skopeo" else ()
    request = with_files_of(read_spec(text, name, targets, form, environ=environ), file.parent)
    exact = tuple(image for image in request.images if image.search is None)
    expand(msgspec.structs.replace(request, images=exact), {})  # refuses what is there twice
    return request


def _spec_summary(request: MirrorRequest) -> str:
    rules = sum(image.search is not None for image in request.images)
    exact = len(request.images) - rules
    parts = [count_text(exact, "image")] if exact or not rules else []
    parts += [f"{rules} by rules"] if rules else []
    timed = sum(image.schedule is not None for image in request.images)
    parts += [f"{timed} with a time of their own"] if timed else []
    return ", ".join(parts)
