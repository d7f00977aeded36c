"""From what is asked for to pairs: rules find their tags first. And, if that is wanted, what is too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.inputs.requests import ExpandedRequest, MirrorRequest, expand
from blobflow.cli.options.connection import ConnectionOptions, Hosts, RunOptions, run_policy, run_settings
from blobflow.cli.options.platforms import PlatformOptions, choose_platforms
from blobflow.cli.output.progress import show_progress
from blobflow.cli.run_command import RunOutcome, RunRecorder, run_command
from blobflow.cli.runtime.event_loop import run as run_loop
from blobflow.events import Meter, Observer, Warned

if TYPE_CHECKING:
    from blobflow.client import Settings
    from blobflow.engine.execution import Planned
    from blobflow.engine.plan.steps import Pair
    from blobflow.engine.results.report import Report, TagRecord
    from blobflow.operations.tags.extra import PruneLimit
    from blobflow.operations.tags.prune import WantedTag
    from blobflow.operations.tags.search import ChosenTags, TagSearch


class DryRun(msgspec.Struct, frozen=True):
    """A plan of what was asked for, with notes of what it took, and the tags that would be too many."""

    planned: Planned
    notes: tuple[str, ...] = ()
    tags: tuple[TagRecord, ...] = ()


def request_hosts(asked: MirrorRequest) -> Hosts:
    """The hosts at both ends, as far as they are known by name."""
    sources, targets = asked.places
    return Hosts(sources, targets)


async def expand_request(
    asked: MirrorRequest, platforms: PlatformOptions, settings: Settings, show: Observer, meter: Meter
) -> ExpandedRequest:
    """The pairs, now. Where rules choose tags, their registries are asked."""
    for warning in (*asked.warnings, *([asked.timing] if asked.timing else [])):
        show(Warned(warning))
    if not asked.searches:
        return _expand_chosen(asked, {}, platforms)
    from blobflow.operations.tags.find import find

    found = await find(asked.searches, settings, observer=show, meter=meter)
    return _expand_chosen(asked, found, platforms)


def may_skip_all(asked: MirrorRequest, platforms: PlatformOptions) -> bool:
    """Whether somebody said that images may be skipped. If nobody did, a set of which all are is a
    mistake."""
    return platforms.missing_platform is not None or asked.says_missing


def check_request(asked: MirrorRequest, platforms: PlatformOptions) -> None:
    """Raise UsageError for what can be seen to be wrong before anything is asked."""
    exact = tuple(image for image in asked.wanted if image.search is None)
    _expand_chosen(msgspec.structs.replace(asked, wanted=exact), {}, platforms)


def _expand_chosen(
    asked: MirrorRequest, found: Mapping[TagSearch, Sequence[ChosenTags]], platforms: PlatformOptions
) -> ExpandedRequest:
    expanded = expand(asked, found)
    return msgspec.structs.replace(expanded, pairs=tuple(choose_platforms(expanded.pairs, platforms)))


def request_settings(asked: MirrorRequest, connection: ConnectionOptions, run: RunOptions) -> Settings:
    """The settings for what is asked."""
    return _with_file_hosts(run_settings(connection, run, request_hosts(asked)), asked, connection)


def _with_file_hosts(settings: Settings, asked: MirrorRequest, connection: ConnectionOptions) -> Settings:
    """The settings, with what the file says of hosts that nothing else is said of."""
    hosts = asked.hosts
    if connection.tls_verify is not None:
        hosts = {host: msgspec.structs.replace(own, verify=None) for host, own in hosts.items()}
    return msgspec.structs.replace(settings, hosts={**hosts, **settings.hosts})


def mirror_request(
    asked: MirrorRequest,
    platforms: PlatformOptions,
    connection: ConnectionOptions,
    run: RunOptions,
    *,
    clearing: PruneLimit | None = None,
    told: Callable[[Report], None] = lambda report: None,
) -> RunOutcome:
    """Mirror what is asked for; as `run_command`. With `clearing`, tags too many are removed once all is
    there, so many at most."""

    async def work(settings: Settings, recorder: RunRecorder, show: Observer, meter: Meter) -> Sequence[str]:
        from blobflow.client import mirror

        settings = _with_file_hosts(settings, asked, connection)
        expanded = await expand_request(asked, platforms, settings, show, meter)
        recorder.lost = expanded.lost
        flow = recorder(expanded.pairs, expanded.notes)
        report = await mirror(expanded.pairs, settings, observer=show, meter=meter, run=flow)
        skips_all = all(image.reason for image in report.images)
        whole = report.ok and not expanded.lost and (may_skip_all(asked, platforms) or not skips_all)
        if clearing is not None and whole:
            from blobflow.operations.tags.prune import prune

            keep = _kept_after(expanded.pairs, report)
            async for tag in prune(keep, clearing, settings, observer=show, meter=meter):
                recorder.tags.append(tag)
        return ()

    check_request(asked, platforms)
    return run_command(work, request_hosts(asked), connection, run, told=told)


def _kept_after(pairs: Iterable[Pair], report: Report) -> Iterator[WantedTag]:
    from blobflow.oci import parse_digest
    from blobflow.operations.tags.prune import WantedTag

    for pair, image in zip(pairs, report.images, strict=True):
        yield WantedTag(pair.target, parse_digest(image.digest) if image.digest else None)


def make_dry_run(
    asked: MirrorRequest,
    platforms: PlatformOptions,
    connection: ConnectionOptions,
    run: RunOptions,
    *,
    clearing: PruneLimit | None = None,
) -> DryRun:
    """The plan of what is asked for; nothing is changed anywhere. What the rules could not find is among its
    failures. With `clearing`, also what would be removed, if all of it can be planned."""
    check_request(asked, platforms)
    return run_loop(_dry_run_on_loop(asked, platforms, connection, run, clearing))


async def _dry_run_on_loop(
    asked: MirrorRequest,
    platforms: PlatformOptions,
    connection: ConnectionOptions,
    run: RunOptions,
    clearing: PruneLimit | None,
) -> DryRun:
    from blobflow.client import plan_run

    meter = Meter()
    async with show_progress(connection.output, meter) as show:
        settings = request_settings(asked, connection, run)
        expanded = await expand_request(asked, platforms, settings, show, meter)
        planned = await plan_run(expanded.pairs, settings, run_policy(run), observer=show, meter=meter)
        planned = msgspec.structs.replace(
            planned,
            pairs=(*planned.pairs, *expanded.lost),
            failures={**planned.failures, **expanded.lost},
        )
        tags: list[TagRecord] = []
        if clearing is not None and not planned.failures:
            from blobflow.operations.tags.prune import prune

            keep = _kept_by_plan(planned)
            async for tag in prune(keep, clearing, settings, dry_run=True, observer=show, meter=meter):
                tags.append(tag)
        return DryRun(planned, expanded.notes, tuple(tags))


def _kept_by_plan(planned: Planned) -> Iterator[WantedTag]:
    from blobflow.operations.tags.prune import WantedTag

    for pair, desired in planned.desired_images.items():
        lists = {
            manifest.descriptor.digest: tuple(child.digest for child in manifest.manifests)
            for manifest in desired.manifests
            if manifest.is_index
        }
        yield WantedTag(pair.target, desired.root.digest, lists)
    for pair in planned.skipped:
        yield WantedTag(pair.target, None)
