"""Which images a verb is about: a spec, or a list between places, as options and as what they ask for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.options.option_group import option_group
from blobflow.errors import UsageError

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import ImageRequest, MirrorRequest, RegistryPrefix
    from blobflow.cli.inputs.spec_formats import SpecFormat

_FILE = click.Path(path_type=Path, dir_okay=False)

any_host_option = click.option(
    "--any-host",
    is_flag=True,
    help="Drop the hosts of a list's names; without it, one that is not the source's is an error.",
)


class SelectionOptions(msgspec.Struct, frozen=True):
    """Which images: a spec, or a list between places."""

    spec: Path | None = None
    source: str | None = None
    targets: tuple[str, ...] = ()
    images: Path | None = None
    spec_format: SpecFormat = "auto"
    scoped: bool = False
    any_host: bool = False


selection_options = option_group(
    "selection",
    SelectionOptions,
    click.argument("spec", type=_FILE, required=False),
    click.option("--from", "source", metavar="HOST[/prefix]", help="Where the images of the list are."),
    click.option(
        "--to", "targets", metavar="HOST[/prefix]", multiple=True, help="Where they go. Repeatable."
    ),
    click.option(
        "--images",
        type=_FILE,
        metavar="LIST",
        help="One repository:tag or repository@digest a line; # comments; - is stdin.",
    ),
    any_host_option,
    click.option(
        "--spec-format",
        type=click.Choice(["auto", "blobflow", "skopeo", "regsync"]),
        default="auto",
        help="What SPEC is, if it is not recognised: ours, skopeo's sync YAML (give it --to) or regsync.yml.",
    ),
    click.option(
        "--scoped", is_flag=True, help="Of skopeo's YAML: keep host and path of each source at the target."
    ),
)


def read_request(selection: SelectionOptions) -> MirrorRequest:
    """What the arguments ask for. Raises UsageError for half of one form, or both at once."""
    from blobflow.cli.inputs.requests import MirrorRequest, parse_registry_prefix, read_text

    targets = tuple(parse_registry_prefix(target) for target in selection.targets)
    if selection.spec:
        from blobflow.cli.inputs.spec_formats import read_spec

        if selection.source or selection.images:
            raise UsageError("give either a spec file or --from, --to and --images, not both")
        if selection.any_host:
            raise UsageError(
                "--any-host is about the lines of --images; in a spec an image's host is its source"
            )
        text, name = read_text(selection.spec), _input_name(selection.spec)
        return read_spec(
            text, name, targets, selection.spec_format, scoped=selection.scoped, environ=os.environ
        )
    listed = {"--from": selection.source, "--to": selection.targets, "--images": selection.images}
    missing = [option for option, value in listed.items() if not value]
    if missing or not (selection.source and selection.images):
        raise UsageError(f"give a spec file, or {', '.join(missing)} as well" if missing else "no images")
    source = parse_registry_prefix(selection.source)
    return MirrorRequest(
        tuple(read_image_list(selection.images, source, any_host=selection.any_host)), targets
    )


def read_image_list(path: Path, source: RegistryPrefix, *, any_host: bool) -> list[ImageRequest]:
    """The images of a list, or of stdin for `-`. Raises InvalidConfig; and as `parse_image_list`."""
    from blobflow.cli.inputs.requests import parse_image_list, read_text

    return parse_image_list(read_text(path), _input_name(path), source, any_host=any_host)


def _input_name(path: Path) -> str:
    return "stdin" if str(path) == "-" else str(path)
