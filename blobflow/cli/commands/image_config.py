"""`blobflow config REF`: the config of an image."""

from __future__ import annotations

import json
import sys

import click

from blobflow.cli.inputs.platforms import parse_single
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, source_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import compress_option
from blobflow.cli.options.single_platform import SinglePlatform, single_platform_option
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.oci import parse_reference
from blobflow.oci.media import CompressMode


@click.command("image", cls=Verb, short_help="Show the config of an image: `config REF`.")
@click.argument("reference", type=PLACE, metavar="REF")
@single_platform_option
@compress_option
@source_connection_options
def image(
    reference: str, wanted: SinglePlatform, compress: CompressMode, connection: ConnectionOptions
) -> None:
    """Show the config of an image: what it runs, its environment, history and layers.

    Of an index the image for --platform, by default this machine's, or the only one. On a terminal it is
    indented; else it is the config's bytes exactly, so that its digest is what the manifest says.

    \b
      blobflow config alpine:3
      blobflow config alpine:3 --platform linux/arm64 | jq .config.Env
    """
    from blobflow.operations.single_image import image_config

    named, platform = parse_reference(reference), parse_single(wanted)
    settings = run_settings(connection, hosts=Hosts(sources=frozenset({named.host})), compress=compress)
    raw_config = run_one_shot(
        settings,
        connection.output,
        lambda client: image_config(client, named, platform, chosen=wanted.chooses),
    )
    if sys.stdout.isatty():
        print_lines(*config_lines(raw_config))
    else:
        write_stdout(raw_config, nl=False)


def config_lines(raw: bytes) -> list[str]:
    """A config for people; one that is no JSON (charts have such) as far as it is text."""
    try:
        return json.dumps(json.loads(raw), indent=2, ensure_ascii=False).splitlines()
    except (ValueError, RecursionError):
        return raw.decode(errors="replace").splitlines()
