"""`blobflow copy`: one image, to one or more places."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from blobflow.cli.dry_run import check_single_plan, plan_pairs, print_plan
from blobflow.cli.inputs.platforms import choose_platforms
from blobflow.cli.options.connection import COMMON, ConnectionOptions, connection_options
from blobflow.cli.options.engine import EngineOptions, engine_options
from blobflow.cli.options.images import backup_option
from blobflow.cli.options.option_group import show_first
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.platforms import PlatformOptions, platform_options
from blobflow.cli.options.run import RunOptions, run_options
from blobflow.cli.run_command import run_mirror
from blobflow.cli.runtime.files import check_writable, write_atomic
from blobflow.cli.verb import Verb


@click.command("copy", cls=Verb)
@show_first("digestfile", "platform", "dry_run", "no_overwrite", "report", *COMMON)
@click.argument("source", type=PLACE)
@click.argument("targets", type=PLACE, metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--digestfile",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the digest that was copied to FILE; nothing if the image was skipped.",
)
@backup_option
@click.option(
    "--additional-tag",
    "additional_tags",
    multiple=True,
    metavar="TAG",
    help="Put it under this tag of each TARGET's repository, or name in its archive, too. Repeatable.",
)
@platform_options
@run_options
@engine_options
@connection_options
def verb(
    source: str,
    targets: tuple[str, ...],
    digestfile: Path | None,
    backup: str | None,
    additional_tags: tuple[str, ...],
    platforms: PlatformOptions,
    run: RunOptions,
    engine: EngineOptions,
    connection: ConnectionOptions,
) -> None:
    """Copy one image, with all its platforms or those of --platform, byte for byte.

    A reference is [HOST/]REPOSITORY[:TAG][@DIGEST] with docker.io's defaults; `docker://` in front is
    accepted. A TARGET without a tag takes the source's. Both may be oci:DIR[:NAME], oci-archive:FILE[:NAME]
    or docker-archive:FILE[:NAME], and FILE `-`: standard input, standard output.

    \b
      blobflow copy alpine:3 127.0.0.1:5000/alpine
      blobflow copy alpine:3 docker-archive:alpine.tar
    """
    from blobflow.cli.inputs.backup import pairs_with_backup
    from blobflow.cli.inputs.copy_arguments import copy_pairs, with_additional_tags

    goals = with_additional_tags(source, targets, additional_tags)
    pairs = pairs_with_backup(choose_platforms(copy_pairs(source, goals), platforms), backup)
    if digestfile:
        check_writable(digestfile, "--digestfile")
    run = msgspec.structs.replace(run, engine=engine.resolve(connection.config))
    if run.dry_run:
        planned = plan_pairs(pairs, connection, run)
        print_plan(planned, connection.output)
        check_single_plan(planned)
        return
    outcome = run_mirror(pairs, connection, run, list_failures=len(pairs) > 1)
    outcome.check_image()
    if digestfile:
        first = outcome.report.images[0]
        write_atomic(digestfile, b"" if first.reason else first.digest.encode())
