"""`blobflow verify`: is at the targets what should be there?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.exit_codes import error_of_set
from blobflow.cli.inputs.selection import read_request
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import LOGINS, ConnectionOptions, connection_options
from blobflow.cli.options.images import SelectionOptions, selection_options
from blobflow.cli.options.option_group import show_first
from blobflow.cli.options.platforms import PlatformOptions, platform_options
from blobflow.cli.options.run import (
    RunOptions,
    cache_dir_option,
    compress_option,
    concurrency_option,
    referrers_option,
    verify_option,
)
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.output.units import count_text
from blobflow.cli.verb import Verb
from blobflow.errors import BlobflowError, NoSuchPlatform

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import MirrorRequest
    from blobflow.client import Client
    from blobflow.engine.pairs import Lookup, Pair
    from blobflow.engine.policy import VerifyLevel
    from blobflow.transports.archive import CompressMode


@click.command("verify", cls=Verb)
@show_first("source", "targets", "images", "platform", "verify", "referrers", *LOGINS, "quiet", "verbose")
@selection_options
@platform_options
@verify_option("Ask for the tags (the default), for all manifests and blobs below, or read it all back.")
@referrers_option(
    "Look as closely for the signatures, SBOMs and attestations that the sources have (auto, the default, "
    "and always), or not at all."
)
@concurrency_option
@compress_option
@cache_dir_option
@connection_options
def verb(
    selection: SelectionOptions,
    platforms: PlatformOptions,
    verify: VerifyLevel,
    referrers: Lookup | None,
    concurrency: int | None,
    compress: CompressMode,
    cache_dir: Path | None,
    connection: ConnectionOptions,
) -> None:
    """Ask the targets whether they have what `sync` with the same arguments would bring there.

    What refers to the images at their sources has to be there too, unless --referrers off. A line an image
    on stdout; with --quiet only those that are wrong. Nothing is changed; `sync --verify`
    with the same level repairs what can be repaired, and --referrers always brings what refers to images.
    """
    from blobflow.cli.expand_request import may_skip_all, request_settings
    from blobflow.cli.run_command import check_not_all_skipped

    request = read_request(selection)
    run = RunOptions(concurrency=concurrency, compress=compress, cache_dir=cache_dir)
    settings = request_settings(request, connection, run)
    found = run_one_shot(
        settings, connection.output, lambda client: _verify(client, request, platforms, verify, referrers)
    )
    wrong = skipped = 0
    for pair, error in found.items():
        if isinstance(error, NoSuchPlatform) and pair.missing_platform == "skip":
            skipped += 1
            if not connection.output.quiet:
                print_lines(f"skipped: {pair.target}: {error.message}")
            continue
        wrong += error is not None
        if error is not None or not connection.output.quiet:
            print_lines(f"wrong: {pair.target}: {error}" if error else f"right: {pair.target}")
    if wrong:
        errors = [error for error in found.values() if error is not None]
        sentence = f"{wrong} of {count_text(len(found), 'image')} are not what they should be"
        raise error_of_set(errors, len(found), sentence)
    if not may_skip_all(request, platforms):
        check_not_all_skipped(skipped, len(found))


async def _verify(
    client: Client,
    request: MirrorRequest,
    platforms: PlatformOptions,
    level: VerifyLevel,
    referrers: Lookup | None,
) -> Mapping[Pair, BlobflowError | None]:
    """What is wrong with each pair; None if nothing."""
    from blobflow.cli.expand_request import expand_request

    expanded = await expand_request(client, request, platforms)
    return {**await client.verify(expanded.pairs, level, referrers=referrers), **expanded.unresolved}
