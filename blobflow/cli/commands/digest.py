"""`blobflow digest`: the digest that a name means now."""

from __future__ import annotations

import click

from blobflow.cli.inputs.platforms import parse_single
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, source_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import compress_option
from blobflow.cli.options.single_platform import SinglePlatform, single_platform_option
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.oci import Reference, parse_reference
from blobflow.oci.media import CompressMode


@click.command("digest", cls=Verb)
@click.argument("reference", type=PLACE, metavar="REF")
@single_platform_option
@click.option("--full-ref", is_flag=True, help="Print HOST/REPOSITORY@DIGEST, not the digest alone.")
@compress_option
@source_connection_options
def verb(
    reference: str,
    wanted: SinglePlatform,
    full_ref: bool,
    compress: CompressMode,
    connection: ConnectionOptions,
) -> None:
    """Print the digest of what a name means now: one HEAD, one line.

    Of an index that is the index's own, or with --platform that of its image for the platform.

    \b
      blobflow digest alpine:3
      blobflow digest alpine:3 --platform linux/arm64 --full-ref
    """
    from blobflow.operations.single_image import image_digest

    named, platform = parse_reference(reference), parse_single(wanted) if wanted.chooses else None
    settings = run_settings(connection, hosts=Hosts(sources=frozenset({named.host})), compress=compress)
    found = run_one_shot(settings, connection.output, lambda client: image_digest(client, named, platform))
    print_lines(str(Reference(named.host, named.repository, digest=found)) if full_ref else found)
