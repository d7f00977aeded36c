"""`blobflow inspect`: what an image is made of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from blobflow.cli.console import display
from blobflow.cli.options import Ends, Link, compress_option, link_options, settings_of
from blobflow.cli.running import run as run_loop
from blobflow.cli.telling import image_document, image_lines
from blobflow.cli.writing import put_out, say
from blobflow.errors import UsageError
from blobflow.events import Meter
from blobflow.oci import Reference, parse_reference

if TYPE_CHECKING:
    from blobflow.mirror import Inspection
    from blobflow.transports.archive import CompressMode


@click.command("inspect")
@click.argument("reference", metavar="REF")
@click.option("--raw", is_flag=True, help="Print the manifest's bytes exactly as the registry has them.")
@click.option("--json", "as_json", is_flag=True, help="Print the image and what is under it as JSON.")
@compress_option
@link_options
def verb(reference: str, raw: bool, as_json: bool, compress: CompressMode, link: Link) -> None:
    """Show an image or index: platform, digest, size and layers of each manifest in it.

    What a sparse index lists and its place does not have is marked absent.
    """
    if raw and as_json:
        raise UsageError("--raw and --json exclude each other: raw is what the registry has, byte for byte")
    found = run_loop(_inspected(parse_reference(reference), compress, link, alone=raw))
    if raw:
        put_out(found.root.raw, nl=False)
    elif as_json:
        put_out(json.dumps(image_document(found), indent=2))
    else:
        for line in image_lines(found):
            say(line)


async def _inspected(reference: Reference, compress: CompressMode, link: Link, *, alone: bool) -> Inspection:
    from blobflow.mirror import inspect

    meter = Meter()
    async with display(link.look, meter) as show:
        ends = Ends(sources=frozenset({reference.host}))
        settings = settings_of(link, ends=ends, compress=compress)
        return await inspect(reference, settings, alone=alone, observer=show, meter=meter)
