"""`blobflow apply`: carry out a saved plan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.bounded_file import read_head
from blobflow.cli.dry_run import check_plan, print_plan
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import COMMON, ConnectionOptions, connection_options
from blobflow.cli.options.engine import EngineOptions, engine_options
from blobflow.cli.options.option_group import hide_options, show_first, was_given
from blobflow.cli.options.run import RunOptions, run_options
from blobflow.cli.run_command import RunRecorder, run_command
from blobflow.cli.settings import hosts_of, run_settings
from blobflow.cli.signature_policies import changed_policies, with_plan_signatures
from blobflow.cli.verb import Verb
from blobflow.errors import InvalidConfig, UsageError

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.engine.policy import Policy
    from blobflow.engine.saved.plan import SavedPlan

# How a plan is carried out: as it says, unless the command line says otherwise.
_OF_THE_RUN = ("keep_going", "trust_root", "verify", "wait")
# What it says is to be done.
_OF_THE_PLAN = {
    "no_overwrite": "--no-overwrite",
    "foreign_layers": "--foreign-layers",
    "referrers": "--referrers",
}


@click.command("apply", cls=Verb)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@show_first("dry_run", "limit_rate", "report", "engine", *COMMON)
@hide_options("audit")
@run_options
@engine_options
@connection_options
def verb(file: Path, run: RunOptions, engine: EngineOptions, connection: ConnectionOptions) -> None:
    """Carry out a plan that `blobflow plan --out FILE` saved: exactly that, today or next month.

    Nothing is done that no step of it names: tags, signatures and all else that moved at the sources since
    does not matter. What is at the targets by now is skipped; what has vanished from a source fails its
    image.

    What is to be done was decided when the plan was made: --no-overwrite, --foreign-layers, --referrers and
    --compress are refused if they say otherwise. --verify, --fail-fast, --trust-root and --wait are as in the
    plan unless they are given.

    What was planned under a signature policy is judged under it again, as its files are now, or under
    --policy.
    """
    from blobflow.planfile import load_plan

    saved = load_plan(_read(file), str(file))
    plain = _policy(saved, run)
    run = msgspec.structs.replace(run, engine=engine.resolve(connection.config))
    judged = partial(with_plan_signatures, run, connection.config, saved)
    if run.dry_run:
        policy = judged(plain)
        settings = run_settings(connection, run, hosts_of(saved.pairs))
        planned = run_one_shot(settings, connection.output, lambda client: client.plan_saved(saved, policy))
        print_plan(planned, connection.output)
        check_plan(planned, connection.output)
        return

    async def work(client: Client, recorder: RunRecorder) -> Sequence[str]:
        await client.execute(saved, recorder.policy, on_start=recorder.take)
        return changed_policies(saved, recorder.policy)

    run_command(work, hosts_of(saved.pairs), connection, run, policy=lambda _: judged(plain)).check_set()


def _read(file: Path) -> bytes:
    """The file's content, or enough of it to see that it is too long."""
    from blobflow.planfile import MAX_PLAN_BYTES

    try:
        return read_head(file, MAX_PLAN_BYTES + 1)
    except OSError as error:
        raise InvalidConfig(f"can't read {file}: {error.strerror or error}") from None


def _policy(saved: SavedPlan, run: RunOptions) -> Policy:
    """The plan's policy, with what is the run's to say. Raises UsageError for what is not."""
    for field, option in _OF_THE_PLAN.items():
        if was_given(field) and getattr(run, field) != getattr(saved.policy, field):
            value = getattr(run, field)
            raise _decided(option if value is True else f"{option} {value}")
    if was_given("audit"):
        raise UsageError("--audit looks at what earlier runs put; apply looks at all that its plan names")
    if was_given("compress") and run.compress != saved.compress:
        raise _decided(f"--compress {run.compress}")
    if run.policy_for not in (None, saved.policy.judged):
        raise _decided(f"--policy-for {run.policy_for}")
    said = {field: getattr(run, field) for field in _OF_THE_RUN if was_given(field)}
    return msgspec.structs.replace(saved.policy, **said)


def _decided(option: str) -> UsageError:
    return UsageError(f"{option}: the plan was made otherwise, and is done as it says; make it anew for that")
