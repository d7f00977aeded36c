"""`blobflow sync`: mirror a set."""

from __future__ import annotations

import click

from blobflow.cli.carrying import carry_out, check_planned, make_planned, show_plan
from blobflow.cli.choosing import Choosing, choice_options, choose
from blobflow.cli.options import Link, Run, Selection, link_options, run_options, select, selection_options


@click.command("sync")
@selection_options
@choice_options
@run_options
@link_options
def verb(selection: Selection, choosing: Choosing, run: Run, link: Link) -> None:
    """Mirror a set of images, byte for byte, to one or more registries.

    The set is a SPEC file (YAML), or a list between places: --from HOST[/prefix] --to HOST[/prefix] --images
    LIST. Each blob is read once, uploaded once to each target registry, and mounted where else it is needed
    there. What is present already is not touched.

    \b
      blobflow sync mirror.yaml
      blobflow sync --from docker.io --to 127.0.0.1:5000/mirror --images images.txt
    """
    pairs = choose(select(selection), choosing)
    if run.dry_run:
        planned = make_planned(pairs, link, run)
        show_plan(planned, link.look)
        check_planned(planned)
    else:
        carry_out(pairs, link, run).check_set()
