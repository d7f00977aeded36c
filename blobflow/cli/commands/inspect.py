"""`blobflow inspect`: what an image is made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, source_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import compress_option
from blobflow.cli.output.image_text import image_lines
from blobflow.cli.output.json_documents import image_document
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError
from blobflow.oci import parse_reference

if TYPE_CHECKING:
    from blobflow.transports.archive import CompressMode


@click.command("inspect", cls=Verb)
@click.argument("reference", type=PLACE, metavar="REF")
@click.option("--raw", is_flag=True, help="Print the manifest's bytes exactly as the registry has them.")
@click.option("--json", "as_json", is_flag=True, help="Print the image and what is under it as JSON.")
@compress_option
@source_connection_options
def verb(
    reference: str, raw: bool, as_json: bool, compress: CompressMode, connection: ConnectionOptions
) -> None:
    """Show an image or index: platform, digest, size and layers of each manifest in it.

    What a sparse index lists and its place does not have is marked absent.
    """
    if raw and as_json:
        raise UsageError("--raw and --json exclude each other: raw is what the registry has, byte for byte")
    named = parse_reference(reference)
    settings = run_settings(connection, hosts=Hosts(sources=frozenset({named.host})), compress=compress)
    found = run_one_shot(settings, connection.output, lambda client: client.inspect(named, alone=raw))
    if raw:
        write_stdout(found.root.raw, nl=False)
    elif as_json:
        write_stdout(json.dumps(image_document(found), indent=2))
    else:
        for line in image_lines(found):
            print_lines(line)
