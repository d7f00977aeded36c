"""`blobflow verify`: is at the targets what should be there?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.choosing import Choosing, choice_options
from blobflow.cli.console import display
from blobflow.cli.figures import count_text
from blobflow.cli.images import Selection, select, selection_options
from blobflow.cli.options import (
    Link,
    Run,
    cache_dir_option,
    compress_option,
    concurrency_option,
    link_options,
    verify_option,
)
from blobflow.cli.running import run as run_loop
from blobflow.cli.writing import say
from blobflow.errors import BlobflowError, NoSuchPlatform, RunIncomplete
from blobflow.events import Meter

if TYPE_CHECKING:
    from blobflow.cli.selection import Asked
    from blobflow.engine.plan import Pair
    from blobflow.engine.verify import Level
    from blobflow.transports.archive import CompressMode


@click.command("verify")
@selection_options
@choice_options
@verify_option("Ask for the tags (the default), for all manifests and blobs below, or read it all back.")
@concurrency_option
@compress_option
@cache_dir_option
@link_options
def verb(
    selection: Selection,
    choosing: Choosing,
    verify: Level,
    concurrency: int,
    compress: CompressMode,
    cache_dir: Path | None,
    link: Link,
) -> None:
    """Ask the targets whether they have what `sync` with the same arguments would bring there.

    A line an image on stdout; with --quiet only those that are wrong. Nothing is changed; `sync --verify`
    with the same level repairs what can be repaired.
    """
    from blobflow.cli.carrying import check_skipped
    from blobflow.cli.settling import may_skip_all

    asked = select(selection)
    run = Run(concurrency=concurrency, compress=compress, cache_dir=cache_dir)
    found = run_loop(_verified(asked, choosing, verify, link, run))
    wrong = skipped = 0
    for pair, error in found.items():
        if isinstance(error, NoSuchPlatform) and pair.missing_platform == "skip":
            skipped += 1
            if not link.look.quiet:
                say(f"skipped: {pair.target}: {error.message}")
            continue
        wrong += error is not None
        if error is not None or not link.look.quiet:
            say(f"wrong: {pair.target}: {error}" if error else f"right: {pair.target}")
    if wrong:
        raise RunIncomplete(f"{wrong} of {count_text(len(found), 'image')} are not what they should be")
    if not may_skip_all(asked, choosing):
        check_skipped(skipped, len(found))


async def _verified(
    asked: Asked, choosing: Choosing, level: Level, link: Link, run: Run
) -> Mapping[Pair, BlobflowError | None]:
    from blobflow.cli.settling import find_pairs, settings_for
    from blobflow.mirror import verify_run

    meter = Meter()
    async with display(link.look, meter) as show:
        settings = settings_for(asked, link, run)
        settled = await find_pairs(asked, choosing, settings, show, meter)
        found = await verify_run(settled.pairs, level, settings, observer=show, meter=meter)
        return {**found, **settled.lost}
