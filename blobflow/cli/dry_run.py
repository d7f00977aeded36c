"""Dry runs: plans that are shown and not carried out, with their cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.exit_codes import error_of_set
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions
from blobflow.cli.options.output import OutputOptions
from blobflow.cli.options.platforms import PlatformOptions
from blobflow.cli.options.run import RunOptions
from blobflow.cli.output.plan_text import dry_run_lines, left_referrer_lines, plan_lines, verdict_lines
from blobflow.cli.output.stdio import ignore_closed_pipe, print_lines
from blobflow.cli.run_command import check_not_all_skipped
from blobflow.cli.settings import hosts_of, run_policy, run_settings
from blobflow.cli.signature_policies import with_signatures

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import MirrorRequest
    from blobflow.client import Client
    from blobflow.engine.pairs import Pair
    from blobflow.engine.plan.planned import Planned
    from blobflow.engine.policy import Policy
    from blobflow.engine.results.report import TagRecord
    from blobflow.operations.tags.extra import PruneLimit
    from blobflow.operations.tags.prune import WantedTag


class DryRun(msgspec.Struct, frozen=True):
    """The plan of a request, with notes of what choosing tags cost, and the tags that would be removed."""

    planned: Planned
    notes: tuple[str, ...] = ()
    tags: tuple[TagRecord, ...] = ()


def plan_pairs(pairs: Sequence[Pair], connection: ConnectionOptions, run: RunOptions) -> Planned:
    """Resolve, survey and plan; nothing is changed anywhere."""
    settings = run_settings(connection, run, hosts_of(pairs))
    policy = with_signatures(run, connection.config, (), run_policy(run))
    return run_one_shot(settings, connection.output, lambda client: client.plan(pairs, policy))


def print_plan(planned: Planned, output: OutputOptions, more: Sequence[str] = ()) -> None:
    """Print a plan for people: a line an image, with --verbose another for each verdict of a signature
    policy and each referrer that is left, `more`, and the totals last; nothing with --quiet."""
    if not output.quiet:
        images = dry_run_lines(planned)
        if output.verbose:
            images += [*verdict_lines(planned), *left_referrer_lines(planned)]
        with ignore_closed_pipe():
            print_lines(*images, *more, *(("",) if images or more else ()), *plan_lines(planned))


def check_plan(
    planned: Planned, output: OutputOptions, *, listed: bool = True, may_skip_all: bool = True
) -> None:
    """Raise RunIncomplete if pairs could not be planned, and print which ones and why, unless they are
    `listed` on standard output. That all were skipped is an error, too, unless `may_skip_all`."""
    if not listed or output.quiet:
        for pair, error in planned.failures.items():
            print_lines(f"failed: {pair.source} -> {pair.target}: {error}", err=True)
    if planned.failures:
        count = len(planned.pairs)
        raise error_of_set(
            planned.failures.values(),
            count,
            f"{len(planned.failures)} of {count} images could not be planned",
        )
    if not may_skip_all:
        check_not_all_skipped(len(planned.skipped), len(planned.pairs))


def check_single_plan(planned: Planned) -> None:
    """For a plan of one image: raise its own error, the first one if it has several targets."""
    for error in planned.failures.values():
        raise error


def make_dry_run(
    request: MirrorRequest,
    platforms: PlatformOptions,
    connection: ConnectionOptions,
    run: RunOptions,
    *,
    prune_limit: PruneLimit | None = None,
) -> DryRun:
    """The plan of a request; nothing is changed anywhere. What rules could not find is among its failures.

    With `prune_limit` also the tags that would be removed, if all of the request can be planned.
    """
    from blobflow.cli.expand_request import check_request, request_settings

    check_request(request, platforms)
    settings = request_settings(request, connection, run)
    policy = with_signatures(run, connection.config, request.signature_policies, run_policy(run))
    return run_one_shot(
        settings,
        connection.output,
        lambda client: _plan_request(client, request, platforms, policy, prune_limit),
    )


async def _plan_request(
    client: Client,
    request: MirrorRequest,
    platforms: PlatformOptions,
    policy: Policy,
    prune_limit: PruneLimit | None,
) -> DryRun:
    from blobflow.cli.expand_request import expand_request

    expanded = await expand_request(client, request, platforms)
    planned = await client.plan(expanded.pairs, policy)
    planned = msgspec.structs.replace(
        planned,
        pairs=(*planned.pairs, *expanded.unresolved),
        failures={**planned.failures, **expanded.unresolved},
    )
    tags: list[TagRecord] = []
    if prune_limit is not None and not planned.failures:
        from blobflow.operations.tags.prune import prune

        keep = _kept_by_plan(planned)
        tags += [tag async for tag in prune(client, keep, prune_limit, dry_run=True)]
    return DryRun(planned, expanded.notes, tuple(tags))


def _kept_by_plan(planned: Planned) -> Iterator[WantedTag]:
    from blobflow.operations.tags.prune import WantedTag

    for pair, desired in planned.desired_images.items():
        lists = {
            manifest.descriptor.digest: tuple(child.digest for child in manifest.manifests)
            for manifest in desired.manifests
            if manifest.is_index
        }
        yield WantedTag(pair.target, desired.root.digest, lists, pair.backup)
    for pair in planned.skipped:
        yield WantedTag(pair.target, None, backup=pair.backup)
