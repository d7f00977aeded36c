"""`blobflow repos`: the repositories of a registry."""

from __future__ import annotations

import click

from blobflow.cli.asking import ask
from blobflow.cli.options import Ends, Link, link_options
from blobflow.cli.writing import say
from blobflow.errors import UsageError
from blobflow.oci.reference import check_host


@click.command("repos")
@click.argument("host", metavar="HOST")
@link_options
def verb(host: str, link: Link) -> None:
    """List the repositories of a registry, one a line, as far as it has a catalog and shows it to us."""
    from blobflow.tending.naming import list_repositories

    text = host.removeprefix("docker://").rstrip("/")
    if "/" in text:
        raise UsageError(
            f"{host[:300]!r} is more than a host; `blobflow tags` lists the tags of a repository"
        )
    named = check_host(text)
    ends = Ends(sources=frozenset({named}))
    for name in ask(link, ends, lambda settings, show: list_repositories(named, settings, observer=show)):
        say(f"{named}/{name}")
