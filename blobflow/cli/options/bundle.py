"""Options about bundles: what is saved, and what is written of them beside the images."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from blobflow.cli.options.option_group import OnceOption, option_group
from blobflow.cli.options.param_types import FILE, FOLDER, byte_size


class BundleOptions(msgspec.Struct, frozen=True):
    """What is written of bundles beside the images, and what they are checked by. `nodes` as FORMAT[:DIR]."""

    files_to: Path | None = None
    rewrite: Path | None = None
    rewrite_digests: bool = False
    nodes: tuple[str, ...] = ()
    partial: bool = False
    digests: Path | None = None


digests_option = click.option(
    "--digests",
    type=FILE,
    metavar="LIST",
    help="Check the files first, by a list of `save --digests`.",
)

bundle_options = option_group(
    "bundle",
    BundleOptions,
    click.option(
        "--files-to", type=FOLDER, metavar="DIR", help="Write the plain files of bundles below this folder."
    ),
    click.option(
        "--rewrite",
        type=FOLDER,
        metavar="DIR",
        help="Write the bundle's deployment files below DIR, with the mirror's images.",
    ),
    click.option("--rewrite-digests", is_flag=True, help="Write the images' digests into them as well."),
    click.option(
        "--nodes",
        metavar="FORMAT[:DIR]",
        multiple=True,
        help="Write what points machines at the mirror, to DIR or stdout. Repeatable.",
    ),
    click.option(
        "--partial", is_flag=True, help="Leave out of --nodes what its format can't say, with a warning."
    ),
    digests_option,
    title="Bundle",
)


class SavedBundleOptions(msgspec.Struct, frozen=True):
    """The bundle to write, and what goes into it beside the images. `files` as PATH[:TYPE]."""

    output: str
    files: tuple[str, ...] = ()
    split_size: int | None = None
    since: tuple[str, ...] = ()
    digests: bool = False


saved_bundle_options = option_group(
    "bundle",
    SavedBundleOptions,
    click.option(
        "-o",
        "--output",
        cls=OnceOption,
        metavar="FILE",
        required=True,
        help="The bundle, as bundle.tar; - is standard output.",
    ),
    click.option(
        "--file",
        "files",
        metavar="PATH[:TYPE]",
        multiple=True,
        help="A file or folder that goes along, as in `push`. Repeatable.",
    ),
    click.option(
        "--split-size",
        type=byte_size,
        metavar="BYTES",
        help="Write parts of at most so much, as 4GB or 650MiB.",
    ),
    click.option(
        "--since",
        metavar="BUNDLE",
        multiple=True,
        help="Leave out the blobs that this earlier bundle has. Repeatable.",
    ),
    click.option(
        "--digests",
        is_flag=True,
        help="Write FILE.sha256 too, as `sha256sum -c` reads it.",
    ),
)
