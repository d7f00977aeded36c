"""`blobflow tags`: the tags of a repository."""

from __future__ import annotations

import click

from blobflow.cli.inputs.repositories import parse_repository
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, source_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb


@click.command("tags", cls=Verb)
@click.argument("repository", type=PLACE, metavar="[HOST/]REPOSITORY")
@source_connection_options
def verb(repository: str, connection: ConnectionOptions) -> None:
    """List the tags of a repository, one a line, in the order in which its registry tells them."""
    from blobflow.operations.tags.names import list_tags

    named = parse_repository(repository)
    settings = run_settings(connection, hosts=Hosts(sources=frozenset({named.host})))
    for tag in run_one_shot(settings, connection.output, lambda client: list_tags(client, named)):
        print_lines(tag)
