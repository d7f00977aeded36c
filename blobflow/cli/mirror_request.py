"""Mirrors a request and, if asked to, prunes extra tags once all images are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from blobflow.cli.expand_request import check_request, expand_request, may_skip_all, request_hosts
from blobflow.cli.inputs.requests import MirrorRequest
from blobflow.cli.options.connection import ConnectionOptions
from blobflow.cli.options.platforms import PlatformOptions
from blobflow.cli.options.run import RunOptions
from blobflow.cli.run_command import RunOutcome, RunRecorder, run_command
from blobflow.cli.signature_policies import with_signatures

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.engine.pairs import Pair
    from blobflow.engine.results.report import Report
    from blobflow.operations.tags.extra import PruneLimit
    from blobflow.operations.tags.prune import WantedTag


def mirror_request(
    request: MirrorRequest,
    platforms: PlatformOptions,
    connection: ConnectionOptions,
    run: RunOptions,
    *,
    prune_limit: PruneLimit | None = None,
    on_report: Callable[[Report], None] = lambda report: None,
) -> RunOutcome:
    """Mirror a request; otherwise as `run_command`.

    With `prune_limit` tags that are not of the request are removed once all of it is there, so many at most.
    """

    async def work(client: Client, recorder: RunRecorder) -> Sequence[str]:
        expanded = await expand_request(client, request, platforms)
        recorder.unresolved = expanded.unresolved
        recorder.note(expanded.notes)
        report = await client.mirror(expanded.pairs, recorder.policy, on_start=recorder.take)
        skips_all = all(image.reason for image in report.images)
        whole = report.ok and not expanded.unresolved and (may_skip_all(request, platforms) or not skips_all)
        if prune_limit is not None and whole:
            from blobflow.operations.tags.prune import prune

            async for tag in prune(client, _kept_after(expanded.pairs, report), prune_limit):
                recorder.tags.append(tag)
        return ()

    check_request(request, platforms)
    return run_command(
        work,
        request_hosts(request),
        connection,
        run,
        host_defaults=request.hosts,
        policy=partial(with_signatures, run, connection.config, request.signature_policies),
        on_report=on_report,
    )


def _kept_after(pairs: Iterable[Pair], report: Report) -> Iterator[WantedTag]:
    from blobflow.oci import parse_digest
    from blobflow.operations.tags.prune import WantedTag

    for pair, image in zip(pairs, report.images, strict=True):
        digest = parse_digest(image.digest) if image.digest else None
        yield WantedTag(pair.target, digest, backup=pair.backup)
