"""`blobflow plan`: what sync would do, and what it would cost."""

from __future__ import annotations

import json
from pathlib import Path

import click

from blobflow.cli.dry_run import check_plan, print_plan
from blobflow.cli.inputs.selection import read_request
from blobflow.cli.options.connection import LOGINS, ConnectionOptions, connection_options
from blobflow.cli.options.images import SelectionOptions, backup_option, selection_options
from blobflow.cli.options.option_group import OnceOption, hide_options, show_first
from blobflow.cli.options.platforms import PlatformOptions, platform_options
from blobflow.cli.options.run import RunOptions, run_options
from blobflow.cli.output.json_documents import plan_document
from blobflow.cli.output.stdio import ignore_closed_pipe, write_stdout
from blobflow.cli.runtime.files import check_writable, write_atomic
from blobflow.cli.signature_policies import files_for_plan
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError

_NOT_CURRENT = 1  # as diff and git have it: there is a difference


@click.command("plan", cls=Verb)
@show_first(
    "source", "targets", "images", "images_from", "out", "as_json", "platform", *LOGINS, "quiet", "verbose"
)
@selection_options
@backup_option
@platform_options
@hide_options("report")
@run_options
@connection_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option(
    "--out",
    cls=OnceOption,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Save the plan: `blobflow apply FILE` carries out exactly that.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if the mirror is not current.")
def verb(
    selection: SelectionOptions,
    backup: str | None,
    platforms: PlatformOptions,
    run: RunOptions,
    connection: ConnectionOptions,
    as_json: bool,
    out: Path | None,
    exit_code: bool,
) -> None:
    """Show what `sync` with the same arguments would do, and what it would cost. Nothing is changed.

    A line an image says what would be done for it and how many bytes that writes; what several images share
    is told with the first. Then the totals: bytes to read and to write are exact as long as the target grants
    every mount; "at most" is the figure if it grants none; requests are those of moving it. Rules that choose
    tags are followed now, and what that cost is noted.
    """
    from blobflow.cli.dry_run import make_dry_run
    from blobflow.cli.expand_request import may_skip_all
    from blobflow.cli.inputs.backup import with_backup
    from blobflow.planfile import save_plan

    if run.report:
        raise UsageError("plan runs nothing that could be reported; use --json, or sync with --report")
    if out:
        check_writable(out, "--out")
    request = with_backup(read_request(selection), backup)
    preview = make_dry_run(request, platforms, connection, run)
    planned = preview.planned
    if out:
        files = files_for_plan(run, connection.config, request.signature_policies)
        write_atomic(out, save_plan(planned, compress=run.compress, policy_files=files))
    if as_json:
        with ignore_closed_pipe():
            write_stdout(json.dumps(plan_document(planned, preview.notes), indent=2))
    else:
        print_plan(planned, connection.output, [f"note: {note}" for note in preview.notes])
    may = may_skip_all(request, platforms)
    check_plan(planned, connection.output, listed=not as_json, may_skip_all=may)
    if exit_code and not planned.cost.current:
        raise click.exceptions.Exit(_NOT_CURRENT)
