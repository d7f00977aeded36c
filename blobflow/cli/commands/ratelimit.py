"""`blobflow ratelimit`: how many manifests a registry lets be read, and how many of them are left."""

from __future__ import annotations

import json

import click
import msgspec

from blobflow.cli.inputs.repositories import split_host
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, source_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.oci import parse_reference


@click.command("ratelimit", cls=Verb)
@click.argument("place", type=PLACE, metavar="HOST|REF")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON; null where there is no limit.")
@source_connection_options
def verb(place: str, as_json: bool, connection: ConnectionOptions) -> None:
    """Show how many manifests a registry lets be read, and how many of them are left.

    Docker Hub counts what is read (a HEAD, as this one, is free), by login or by address. Others tell of no
    limit, which is then said.

    \b
      blobflow ratelimit docker.io
      blobflow ratelimit alpine:3 --json
    """
    from blobflow.operations.pull_quota import read_allowance

    host = split_host(place)
    image = None if host else parse_reference(place)
    named = host or (image.host if image else "")
    settings = run_settings(connection, hosts=Hosts(sources=frozenset({named})))
    found = run_one_shot(settings, connection.output, lambda client: read_allowance(client, named, image))
    if as_json:
        write_stdout(json.dumps(msgspec.to_builtins(found)))
    elif found is None:
        print_lines(f"{named} tells of no limit on what is read")
    else:
        whom = f", counted for {found.source}" if found.source else ""
        print_lines(f"{named}: {found.remaining} of {found.rate} left{whom}")
