"""`blobflow tag`: further tags for what is at a registry."""

from __future__ import annotations

import click

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, target_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.errors import InvalidReference, UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.reference import check_tag


@click.command("tag", cls=Verb)
@click.argument("reference", type=PLACE, metavar="REF")
@click.argument("names", metavar="NEW...", nargs=-1, required=True)
@target_connection_options
def verb(reference: str, names: tuple[str, ...], connection: ConnectionOptions) -> None:
    """Put an image or index that is at a registry under further tags of its repository.

    Its manifest is put again, byte for byte; nothing else is sent. A tag that names something else is moved.

    \b
      blobflow tag HOST/app:1.2.3 1.2 1 latest
    """
    from blobflow.operations.tags.names import retag

    found = parse_reference(reference)
    for name in names:
        _check(name, found)
    settings = run_settings(connection, hosts=Hosts(targets=frozenset({found.host})))
    root = run_one_shot(settings, connection.output, lambda client: retag(client, found, names))
    if not connection.output.quiet:
        for name in names:
            print_lines(f"{found.host}/{found.repository}:{name} {root.digest}")


def _check(name: str, reference: Reference) -> None:
    try:
        check_tag(name)
    except InvalidReference as error:
        if "/" not in name and ":" not in name:
            raise
        where = f"{reference.host}/{reference.repository}"
        raise UsageError(
            f"{name[:300]!r} is no tag; write bare tags of {where}, or use `blobflow copy` for another place"
        ) from error
