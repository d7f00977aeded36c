"""Options of `load` about what bundles hold and tell besides images."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from blobflow.cli.options.option_group import option_group
from blobflow.cli.options.param_types import FILE, FOLDER


class BundleOptions(msgspec.Struct, frozen=True):
    """What is written of bundles beside the images, and what they are checked by. `nodes` as FORMAT[:DIR]."""

    files_to: Path | None = None
    nodes: tuple[str, ...] = ()
    digests: Path | None = None


digests_option = click.option(
    "--digests",
    type=FILE,
    metavar="LIST",
    help="Check the files first, by a list as `save --digests` and `sha256sum` write it.",
)

bundle_options = option_group(
    "bundle",
    BundleOptions,
    click.option(
        "--files-to", type=FOLDER, metavar="DIR", help="Write the plain files of bundles below this folder."
    ),
    click.option(
        "--nodes",
        metavar="FORMAT[:DIR]",
        multiple=True,
        help="Write what points machines at the mirror, as `blobflow nodes --no-upstream`, into DIR or to "
        "stdout. Repeatable.",
    ),
    digests_option,
    title="Bundle",
)
