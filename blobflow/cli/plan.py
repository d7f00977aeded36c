"""`blobflow plan`: what sync would do, and what it would cost."""

from __future__ import annotations

import json
from pathlib import Path

import click

from blobflow.cli.carrying import check_planned, show_plan
from blobflow.cli.choosing import Choosing, choice_options
from blobflow.cli.files import check_place, write_whole
from blobflow.cli.images import Selection, select, selection_options
from blobflow.cli.options import Link, Run, link_options, run_options, unlisted
from blobflow.cli.telling import plan_document
from blobflow.cli.writing import as_far_as_read, put_out
from blobflow.errors import UsageError

_NOT_CURRENT = 1  # as diff and git have it: there is a difference


@click.command("plan")
@selection_options
@choice_options
@unlisted("report")
@run_options
@link_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Save the plan: `blobflow apply FILE` carries out exactly that.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if the mirror is not current.")
def verb(
    selection: Selection,
    choosing: Choosing,
    run: Run,
    link: Link,
    as_json: bool,
    out: Path | None,
    exit_code: bool,
) -> None:
    """Show what `sync` with the same arguments would do, and what it would cost. Nothing is changed.

    A line an image says what would be done for it and how many bytes that writes; what several images share
    is told with the first. Then the totals: bytes to write are exact as long as the target grants every
    mount; "at most" is the figure if it grants none. Rules that choose tags are followed now, and what that
    cost is noted.
    """
    from blobflow.cli.settling import draw, may_skip_all
    from blobflow.planfile import save_plan

    if run.report:
        raise UsageError("plan runs nothing that could be reported; use --json, or sync with --report")
    if out:
        check_place(out, "--out")
    asked = select(selection)
    drawn = draw(asked, choosing, link, run)
    planned = drawn.planned
    if out:
        write_whole(out, save_plan(planned, compress=run.compress))
    if as_json:
        with as_far_as_read():
            put_out(json.dumps(plan_document(planned, drawn.notes), indent=2))
    else:
        show_plan(planned, link.look, [f"note: {note}" for note in drawn.notes])
    may = may_skip_all(asked, choosing)
    check_planned(planned, link.look, listed=not as_json, may_skip_all=may)
    if exit_code and not planned.price.current:
        raise click.exceptions.Exit(_NOT_CURRENT)
