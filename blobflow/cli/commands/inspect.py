"""`blobflow inspect`: what an image is made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from blobflow.cli.inputs.platforms import parse_single
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, source_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import compress_option
from blobflow.cli.options.single_platform import SinglePlatform, single_platform_option
from blobflow.cli.output.image_text import image_lines
from blobflow.cli.output.json_documents import image_document
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError
from blobflow.oci import Reference, parse_reference

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.oci import Platform
    from blobflow.operations.inspection import Inspection
    from blobflow.transports.archive import CompressMode


@click.command("inspect", cls=Verb)
@click.argument("reference", type=PLACE, metavar="REF", required=False)
@single_platform_option
@click.option("--raw", is_flag=True, help="Print the manifest's bytes exactly as the registry has them.")
@click.option("--json", "as_json", is_flag=True, help="Print the image and what is under it as JSON.")
@compress_option
@source_connection_options
def verb(
    reference: str | None,
    wanted: SinglePlatform,
    raw: bool,
    as_json: bool,
    compress: CompressMode,
    connection: ConnectionOptions,
) -> None:
    """Show an image or index: platform, digest, size and layers of each manifest in it.

    What a sparse index lists and its place does not have is marked absent.

    \b
      blobflow inspect alpine:3
      blobflow inspect alpine:3 --platform linux/arm64 --raw
    """
    if reference is None:
        raise _without_reference(connection)
    if raw and as_json:
        raise UsageError("--raw and --json exclude each other: raw is what the registry has, byte for byte")
    named, platform = parse_reference(reference), parse_single(wanted) if wanted.chooses else None
    settings = run_settings(connection, hosts=Hosts(sources=frozenset({named.host})), compress=compress)
    found = run_one_shot(settings, connection.output, lambda client: _inspect(client, named, platform, raw))
    if raw:
        write_stdout(found.root.raw, nl=False)
    elif as_json:
        write_stdout(json.dumps(image_document(found), indent=2))
    else:
        for line in image_lines(found):
            print_lines(line)


async def _inspect(client: Client, named: Reference, platform: Platform | None, raw: bool) -> Inspection:
    if platform is None:
        return await client.inspect(named, alone=raw)
    from blobflow.operations.single_image import image_digest

    digest = await image_digest(client, named, platform)
    return await client.inspect(Reference(named.host, named.repository, digest=digest), alone=raw)


def _without_reference(connection: ConnectionOptions) -> click.UsageError:
    """skopeo's `inspect --config REF` gives our --config a file."""
    own = connection.config
    hint = f" --config is blobflow's own file; an image's config is `blobflow config {own}`." if own else ""
    return click.UsageError(f"Missing argument 'REF'.{hint}", click.get_current_context())
