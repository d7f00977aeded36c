"""`blobflow referrers`: what hangs on an image."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.inputs.platforms import parse_single
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, source_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import compress_option
from blobflow.cli.options.single_platform import SinglePlatform, single_platform_option
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.oci import Reference, parse_reference

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.oci import Platform
    from blobflow.operations.artifacts.tree import ReferrerTree
    from blobflow.transports.archive import CompressMode


@click.command("referrers", cls=Verb)
@click.argument("reference", type=PLACE, metavar="REF")
@click.option(
    "--artifact-type",
    "artifact_types",
    multiple=True,
    metavar="TYPE",
    help="Show those of this type alone, and what they hang on. Repeatable.",
)
@single_platform_option
@click.option("--json", "as_json", is_flag=True, help="Print the tree as JSON.")
@compress_option
@source_connection_options
def verb(
    reference: str,
    artifact_types: tuple[str, ...],
    wanted: SinglePlatform,
    as_json: bool,
    compress: CompressMode,
    connection: ConnectionOptions,
) -> None:
    """Show what hangs on an image: signatures, SBOMs and attestations of its index, of each manifest in it,
    and of those in turn.

    By artifact type: digest, bytes with blobs, when it was made, and where it was found.

    \b
      blobflow referrers HOST/app:1
      blobflow referrers HOST/app:1 --artifact-type application/spdx+json --json
    """
    from blobflow.cli.output.referrers_document import referrers_document
    from blobflow.cli.output.referrers_text import referrers_lines

    named, platform = parse_reference(reference), parse_single(wanted) if wanted.chooses else None
    settings = run_settings(connection, hosts=Hosts(sources=frozenset({named.host})), compress=compress)
    types = frozenset(artifact_types)
    tree = run_one_shot(settings, connection.output, lambda client: _look(client, named, platform, types))
    if as_json:
        write_stdout(json.dumps(msgspec.to_builtins(referrers_document(tree)), indent=2))
    else:
        print_lines(*referrers_lines(tree))


async def _look(
    client: Client, named: Reference, platform: Platform | None, artifact_types: frozenset[str]
) -> ReferrerTree:
    from blobflow.operations.artifacts.tree import referrer_tree

    if platform is not None:
        from blobflow.operations.single_image import image_digest

        digest = await image_digest(client, named, platform)
        named = Reference(named.host, named.repository, digest=digest)
    async with client.services() as services:
        return await referrer_tree(services, named, artifact_types=artifact_types)
