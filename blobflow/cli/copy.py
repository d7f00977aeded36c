"""`blobflow copy`: one image, to one or more places."""

from __future__ import annotations

from pathlib import Path

import click

from blobflow.cli.carrying import carry_out, check_planned_image, make_planned, show_plan
from blobflow.cli.choosing import Choosing, choice_options, choose
from blobflow.cli.files import check_place, write_whole
from blobflow.cli.options import Link, Run, link_options, run_options


@click.command("copy")
@click.argument("source")
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--digestfile",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the digest that was copied to FILE; nothing if the image was skipped.",
)
@choice_options
@run_options
@link_options
def verb(
    source: str, targets: tuple[str, ...], digestfile: Path | None, choosing: Choosing, run: Run, link: Link
) -> None:
    """Copy one image, with all its platforms or those of --platform, byte for byte.

    A reference is [HOST/]REPOSITORY[:TAG][@DIGEST] with docker.io's defaults; `docker://` in front is
    accepted. A TARGET without a tag takes the source's. Both may be oci:DIR[:NAME], oci-archive:FILE[:NAME]
    or docker-archive:FILE[:NAME], and FILE `-`: standard input, standard output.

    \b
      blobflow copy alpine:3 127.0.0.1:5000/alpine
      blobflow copy alpine:3 docker-archive:alpine.tar
    """
    from blobflow.cli.selection import copy_pairs

    pairs = choose(copy_pairs(source, targets), choosing)
    if digestfile:
        check_place(digestfile, "--digestfile")
    if run.dry_run:
        planned = make_planned(pairs, link, run)
        show_plan(planned, link.look)
        check_planned_image(planned)
        return
    outcome = carry_out(pairs, link, run, list_failures=len(pairs) > 1)
    outcome.check_image()
    if digestfile:
        first = outcome.report.images[0]
        write_whole(digestfile, b"" if first.reason else first.digest.encode())
