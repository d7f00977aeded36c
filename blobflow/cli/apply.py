"""`blobflow apply`: run a saved plan."""

from __future__ import annotations

from pathlib import Path

import click

from blobflow.cli.carrying import carry_out, check_planned, make_planned, show_plan
from blobflow.cli.options import Link, Run, link_options, run_options
from blobflow.errors import InvalidConfig


@click.command("apply")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@run_options
@link_options
def verb(file: Path, run: Run, link: Link) -> None:
    """Run a plan that `blobflow plan --out FILE` saved.

    The digests are those of the plan, whatever the tags name by now. What is at the target already is
    skipped; content that has vanished from the source fails its image.
    """
    from blobflow.mirror import load_plan

    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"can't read {file}: {error.strerror or error}") from None
    pairs = load_plan(content, str(file))
    if run.dry_run:
        planned = make_planned(pairs, link, run)
        show_plan(planned, link.look)
        check_planned(planned)
    else:
        carry_out(pairs, link, run).check_set()
