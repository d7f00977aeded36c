"""Options that choose images: a spec, or a list and the source of its images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
import msgspec

from blobflow.cli.options.option_group import OnceOption, option_group
from blobflow.cli.options.param_types import FILE
from blobflow.cli.options.places import PLACE

SpecFormat = Literal["auto", "blobflow", "skopeo", "regsync"]

any_host_option = click.option(
    "--any-host",
    is_flag=True,
    help="Drop the hosts of a list's names; without it, one that is not the source's is an error.",
)


backup_option = click.option(
    "--backup",
    metavar="TEMPLATE",
    help="Before a target's tag names another image, keep what it names under this tag, as '{{tag}}-old' "
    "({{digest}}, {{date}} and {{time}} may be in it).",
)


spec_format_option = click.option(
    "--spec-format",
    type=click.Choice(["auto", "blobflow", "skopeo", "regsync"]),
    default="auto",
    help="What SPEC is, if it is not recognised: ours, skopeo's sync YAML or regsync.yml.",
)


images_option = click.option(
    "--images",
    cls=OnceOption,
    instead="put both lists together, and give them as --images -",
    type=FILE,
    metavar="LIST",
    help="One repository:tag or repository@digest a line; # comments; - is stdin.",
)
images_from_option = click.option(
    "--images-from",
    type=click.Path(),
    multiple=True,
    metavar="FILE|DIR|-",
    help="Images that deployment files or a lock file name; Kubernetes, Helm, Compose, CI, Dockerfiles, "
    "lists and folders of them. What can't be told is warned about. Repeatable; - is stdin.",
)
custom_resources_option = click.option(
    "--custom-resources",
    is_flag=True,
    help="Look into custom resources of Kubernetes too, for the names that their fields commonly have.",
)


class SelectionOptions(msgspec.Struct, frozen=True):
    """Which images: a spec, a list between places, or a repository with all of its tags."""

    spec: Path | None = None
    source: str | None = None
    targets: tuple[str, ...] = ()
    images: Path | None = None
    spec_format: SpecFormat = "auto"
    scoped: bool = False
    any_host: bool = False
    images_from: tuple[str, ...] = ()
    custom_resources: bool = False


selection_options = option_group(
    "selection",
    SelectionOptions,
    click.argument("spec", type=FILE, required=False),
    click.option(
        "--from",
        "source",
        cls=OnceOption,
        instead="a list without --from, or a spec, has images of several registries",
        type=PLACE,
        metavar="HOST[/prefix]",
        help="Where the images of the list are; or HOST/REPOSITORY, and no list: all of its tags. Without it "
        "each line's own host is its source.",
    ),
    click.option(
        "--to",
        "targets",
        type=PLACE,
        metavar="HOST[/prefix]",
        multiple=True,
        help="Where they go. Repeatable.",
    ),
    images_option,
    images_from_option,
    custom_resources_option,
    any_host_option,
    spec_format_option,
    click.option(
        "--scoped",
        is_flag=True,
        help="Of skopeo's YAML, and without a list: keep host and path of each source at the target.",
    ),
    title="Image",
)

# Of a verb that has no targets to choose.
saved_selection_options = option_group(
    "selection",
    SelectionOptions,
    click.argument("spec", type=FILE, required=False),
    click.option(
        "--from",
        "source",
        cls=OnceOption,
        instead="a list without --from, or a spec, has images of several registries",
        type=PLACE,
        metavar="HOST[/prefix]",
        help="Where the images of the list are. [default: each line's own host, or docker.io]",
    ),
    images_option,
    images_from_option,
    custom_resources_option,
    any_host_option,
    spec_format_option,
)
