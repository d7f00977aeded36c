"""`blobflow tags`: the tags of a repository."""

from __future__ import annotations

import click

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, connection_options
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.settings import Hosts, run_settings
from blobflow.errors import UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.reference import split_name


@click.command("tags")
@click.argument("repository", metavar="[HOST/]REPOSITORY")
@connection_options
def verb(repository: str, connection: ConnectionOptions) -> None:
    """List the tags of a repository, one a line, in the order in which its registry tells them."""
    from blobflow.operations.tags.names import list_tags

    named = _repository(repository)
    settings = run_settings(connection, hosts=Hosts(sources=frozenset({named.host})))
    for tag in run_one_shot(settings, connection.output, lambda client: list_tags(client, named)):
        print_lines(tag)


def _repository(text: str) -> Reference:
    found = parse_reference(text)
    if found.transport:
        return found  # told what to do instead where the registry would be asked
    _, _, tag, digest = split_name(text.removeprefix("docker://"))
    if tag or digest:
        raise UsageError(
            f"{text[:300]!r} is one image; leave its tag and digest out to list the repository's"
        )
    return Reference(found.host, found.repository)
