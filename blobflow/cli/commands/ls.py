"""`blobflow ls`: what there is: the tags of a repository, or the repositories of a registry."""

from __future__ import annotations

import click

from blobflow.cli.inputs.repositories import parse_repository, split_host
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, source_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb


@click.command("ls", cls=Verb)
@click.argument("place", type=PLACE, metavar="HOST[/REPOSITORY]")
@click.option("--full-ref", is_flag=True, help="Print HOST/REPOSITORY:TAG, not the tag alone.")
@click.option(
    "-O", "--omit-digest-tags", is_flag=True, help="Leave out tags of signatures and referrers (sha256-…)."
)
@source_connection_options
def verb(place: str, full_ref: bool, omit_digest_tags: bool, connection: ConnectionOptions) -> None:
    """List the tags of a repository; of a HOST alone its repositories, as far as it shows them.

    One a line, in the registry's order.

    \b
      blobflow ls alpine
      blobflow ls registry.example.com/team/app --full-ref
      blobflow ls registry.example.com
    """
    host = split_host(place)
    if host:
        from blobflow.operations.tags.names import list_repositories

        settings = run_settings(connection, hosts=Hosts(sources=frozenset({host})))
        names = run_one_shot(settings, connection.output, lambda client: list_repositories(client, host))
        for name in names:
            print_lines(f"{host}/{name}")
        return
    from blobflow.oci.referrers import subject_in_tag
    from blobflow.operations.tags.names import list_tags

    named = parse_repository(place)
    settings = run_settings(connection, hosts=Hosts(sources=frozenset({named.host})))
    for tag in run_one_shot(settings, connection.output, lambda client: list_tags(client, named)):
        if not (omit_digest_tags and subject_in_tag(tag)):
            print_lines(f"{named}:{tag}" if full_ref else tag)
