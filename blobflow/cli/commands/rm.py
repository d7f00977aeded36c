"""`blobflow rm`: take a tag or an image away."""

from __future__ import annotations

import click

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, target_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.oci import parse_reference


@click.command("rm", cls=Verb)
@click.argument("reference", type=PLACE, metavar="REF")
@click.option("--digest", "by_digest", is_flag=True, help="Remove what the tag names, not just the tag.")
@click.option(
    "--all-tags", is_flag=True, help="With a digest: also if other tags name it, which then go too."
)
@click.option("--dry-run", is_flag=True, help="Look, and remove nothing.")
@target_connection_options
def verb(
    reference: str, by_digest: bool, all_tags: bool, dry_run: bool, connection: ConnectionOptions
) -> None:
    """Remove a tag from its registry; or with --digest, or a REF with a digest, the image or index itself.

    An image goes with every tag that names it, and not while an index under another tag lists it. Not every
    registry removes tags, or anything; what is shared with others stays, and space is the registry's affair.
    """
    from blobflow.operations.tags.remove import remove

    found = parse_reference(reference)
    gone = run_one_shot(
        run_settings(connection, hosts=Hosts(targets=frozenset({found.host}))),
        connection.output,
        lambda client: remove(client, found, by_digest=by_digest, all_tags=all_tags, dry_run=dry_run),
    )
    if connection.output.quiet:
        return
    word, place = "would remove" if dry_run else "removed", f"{found.host}/{found.repository}"
    for tag in gone.tags:
        print_lines(f"{word} {place}:{tag}")
    if gone.digest:
        print_lines(f"{word} {place}@{gone.digest}")
