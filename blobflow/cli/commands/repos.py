"""`blobflow repos`: the repositories of a registry."""

from __future__ import annotations

import click

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, source_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError
from blobflow.oci.reference import check_host


@click.command("repos", cls=Verb)
@click.argument("host", type=PLACE, metavar="HOST")
@source_connection_options
def verb(host: str, connection: ConnectionOptions) -> None:
    """List the repositories of a registry, one a line, as far as it has a catalog and shows it to us."""
    from blobflow.operations.tags.names import list_repositories

    text = host.removeprefix("docker://").rstrip("/")
    if "/" in text:
        raise UsageError(
            f"{host[:300]!r} is more than a host; `blobflow tags` lists the tags of a repository"
        )
    named = check_host(text)
    settings = run_settings(connection, hosts=Hosts(sources=frozenset({named})))
    for name in run_one_shot(settings, connection.output, lambda client: list_repositories(client, named)):
        print_lines(f"{named}/{name}")
