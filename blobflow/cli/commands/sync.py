"""`blobflow sync`: mirror a set."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.dry_run import check_plan, print_plan
from blobflow.cli.inputs.selection import read_request
from blobflow.cli.options.connection import LOGINS, ConnectionOptions, connection_options
from blobflow.cli.options.engine import EngineOptions, engine_options
from blobflow.cli.options.images import SelectionOptions, backup_option, selection_options
from blobflow.cli.options.option_group import show_first
from blobflow.cli.options.platforms import PlatformOptions, platform_options
from blobflow.cli.options.run import RunOptions, run_options
from blobflow.cli.output.report_text import tag_lines
from blobflow.cli.output.stdio import write_stdout
from blobflow.cli.runtime.daemon import ScheduleOptions, parse_schedule, run_scheduled, schedule_options
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import MirrorRequest
    from blobflow.cli.runtime.entry_schedules import EntrySchedules
    from blobflow.engine.results.report import Report
    from blobflow.operations.tags.extra import PruneLimit

# More than a fifth of a mirror does not go by itself: that is a mistake in a spec, or a source that is ill.
_MAX_DELETE = "20%"


def _print_schema(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from blobflow.cli.inputs.spec_keys import spec_schema

    write_stdout(json.dumps(spec_schema(), indent=2))
    context.exit()


@click.command("sync", cls=Verb)
@show_first(
    "source",
    "targets",
    "images",
    "images_from",
    "platform",
    "delete",
    "schema",
    "every",
    "dry_run",
    "report",
    *LOGINS,
    "quiet",
)
@selection_options
@backup_option
@platform_options
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
@schedule_options
@run_options
@engine_options
@connection_options
def verb(
    selection: SelectionOptions,
    backup: str | None,
    platforms: PlatformOptions,
    delete: bool,
    max_delete: str | None,
    schedule: ScheduleOptions,
    run: RunOptions,
    engine: EngineOptions,
    connection: ConnectionOptions,
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
    from blobflow.cli.dry_run import make_dry_run
    from blobflow.cli.expand_request import check_request, may_skip_all
    from blobflow.cli.inputs.entry_times import check_times, due_part
    from blobflow.cli.mirror_request import mirror_request

    request, prune_limit = _read_request(selection, schedule, backup), _parse_limit(delete, max_delete)
    own = _entry_schedules(request, selection, delete=delete) if schedule.follows_spec else None
    parse_schedule(schedule, own)
    run = msgspec.structs.replace(run, engine=engine.resolve(connection.config))
    if run.dry_run:
        if schedule.stays:
            raise UsageError("--dry-run shows one plan; leave --every and --cron out")
        preview = make_dry_run(request, platforms, connection, run, prune_limit=prune_limit)
        more = (*tag_lines(preview.tags), *(f"note: {note}" for note in preview.notes))
        print_plan(preview.planned, connection.output, more)
        check_plan(preview.planned, connection.output, may_skip_all=may_skip_all(request, platforms))
        return

    def once(on_report: Callable[[Report], None]) -> None:
        nonlocal request
        now = request if own is None else due_part(request, own.take_due(time.time()))
        request = msgspec.structs.replace(request, warnings=(), schedule_hint="")  # told once is enough
        outcome = mirror_request(
            now, platforms, connection, run, prune_limit=prune_limit, on_report=on_report
        )
        outcome.check_set(may_skip_all=may_skip_all(now, platforms))

    def reread() -> None:
        nonlocal request
        anew = _read_request(selection, schedule, backup)
        check_request(anew, platforms)
        if own is not None:
            own.replace(check_times(anew, str(selection.spec)), time.time())
        request = anew

    check_request(request, platforms)
    run_scheduled(schedule, connection.output, once, reread, own)


def _read_request(
    selection: SelectionOptions, schedule: ScheduleOptions, backup: str | None
) -> MirrorRequest:
    """What is asked for. Who stays knows how."""
    from blobflow.cli.inputs.backup import with_backup

    request = with_backup(read_request(selection), backup)
    if not schedule.stays:
        return request
    more: tuple[str, ...] = ()
    if schedule.follows_spec:
        from blobflow.cli.inputs.entry_times import untimed_warnings

        more = untimed_warnings(request)
    return msgspec.structs.replace(request, schedule_hint="", warnings=(*request.warnings, *more))


def _entry_schedules(request: MirrorRequest, selection: SelectionOptions, *, delete: bool) -> EntrySchedules:
    """The times of a spec's entries. Raises UsageError where there are none."""
    from blobflow.cli.inputs.entry_times import check_times
    from blobflow.cli.runtime.entry_schedules import EntrySchedules

    if selection.spec is None:
        raise UsageError("--every spec keeps the times in a spec; give a SPEC, or a span of time as 6h")
    if delete:
        raise UsageError(
            "--delete-extra-tags needs the whole set, and --every spec mirrors a part at a time; prune by a"
            " sync of its own"
        )
    return EntrySchedules(check_times(request, str(selection.spec)), time.time())


def _parse_limit(delete: bool, most: str | None) -> PruneLimit | None:
    if not delete:
        if most is not None:
            raise UsageError("--max-delete is about --delete-extra-tags; give that too")
        return None
    from blobflow.operations.tags.extra import parse_prune_limit

    return parse_prune_limit(most or _MAX_DELETE)
