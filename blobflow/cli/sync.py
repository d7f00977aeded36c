"""`blobflow sync`: mirror a set."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.carrying import check_planned, show_plan
from blobflow.cli.choosing import Choosing, choice_options
from blobflow.cli.images import Selection, select, selection_options
from blobflow.cli.options import Link, Run, link_options, run_options
from blobflow.cli.staying import Staying, check_staying, run_kept, staying_options
from blobflow.cli.telling import tag_lines
from blobflow.cli.writing import put_out
from blobflow.errors import UsageError

if TYPE_CHECKING:
    from blobflow.cli.selection import Asked
    from blobflow.engine.report import Report
    from blobflow.tending.surplus import Limit

# More than a fifth of a mirror does not go by itself: that is a mistake in a spec, or a source that is ill.
_MAX_DELETE = "20%"


def _print_schema(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from blobflow.cli.spec import schema

    put_out(json.dumps(schema(), indent=2))
    context.exit()


@click.command("sync")
@selection_options
@choice_options
@click.option(
    "--delete-extra-tags",
    "delete",
    is_flag=True,
    help="Once all is there, remove the tags of these repositories at the targets that are not in the set.",
)
@click.option(
    "--max-delete",
    metavar="N|N%",
    help=f"Remove none if more than so many of their tags would go. [default: {_MAX_DELETE}]",
)
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON schema of SPEC and exit.",
)
@staying_options
@run_options
@link_options
def verb(
    selection: Selection,
    choosing: Choosing,
    delete: bool,
    max_delete: str | None,
    staying: Staying,
    run: Run,
    link: Link,
) -> None:
    """Mirror a set of images, byte for byte, to one or more registries.

    The set is a SPEC file (YAML), or a list between places: --from HOST[/prefix] --to HOST[/prefix] --images
    LIST. A SPEC names tags, or chooses them by rules; skopeo's and regsync's files are read as they are. Each
    blob is read once, uploaded once to each target registry, and mounted where else it is needed there. What
    is present already is not touched.

    \b
      blobflow sync mirror.yaml
      blobflow sync --from docker.io --to 127.0.0.1:5000/mirror --images images.txt
      blobflow sync mirror.yaml --every 6h --metrics-listen 127.0.0.1:9464
    """
    from blobflow.cli.settling import carry_out_set, check_asked, draw, may_skip_all

    asked, clearing = _selected(selection, staying), _limit(delete, max_delete)
    check_staying(staying)
    if run.dry_run:
        if staying.stays:
            raise UsageError("--dry-run shows one plan; leave --every and --cron out")
        drawn = draw(asked, choosing, link, run, clearing=clearing)
        more = (*tag_lines(drawn.tags), *(f"note: {note}" for note in drawn.notes))
        show_plan(drawn.planned, link.look, more)
        check_planned(drawn.planned, link.look, may_skip_all=may_skip_all(asked, choosing))
        return

    def once(told: Callable[[Report], None]) -> None:
        nonlocal asked
        now, asked = asked, msgspec.structs.replace(asked, warnings=(), timing="")  # told once is enough
        outcome = carry_out_set(now, choosing, link, run, clearing=clearing, told=told)
        outcome.check_set(may_skip_all=may_skip_all(now, choosing))

    def reread() -> None:
        nonlocal asked
        anew = _selected(selection, staying)
        check_asked(anew, choosing)
        asked = anew

    check_asked(asked, choosing)
    run_kept(staying, link.look, once, reread)


def _selected(selection: Selection, staying: Staying) -> Asked:
    """What is asked for. Who stays knows how."""
    asked = select(selection)
    return msgspec.structs.replace(asked, timing="") if staying.stays else asked


def _limit(delete: bool, most: str | None) -> Limit | None:
    if not delete:
        if most is not None:
            raise UsageError("--max-delete is about --delete-extra-tags; give that too")
        return None
    from blobflow.tending.surplus import parse_limit

    return parse_limit(most or _MAX_DELETE)
