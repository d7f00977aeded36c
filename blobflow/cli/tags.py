"""`blobflow tags`: the tags of a repository."""

from __future__ import annotations

import click

from blobflow.cli.asking import ask
from blobflow.cli.options import Ends, Link, link_options
from blobflow.cli.writing import say
from blobflow.errors import UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.reference import split_name


@click.command("tags")
@click.argument("repository", metavar="[HOST/]REPOSITORY")
@link_options
def verb(repository: str, link: Link) -> None:
    """List the tags of a repository, one a line, in the order in which its registry tells them."""
    from blobflow.tending.naming import list_tags

    named = _repository(repository)
    ends = Ends(sources=frozenset({named.host}))
    for tag in ask(link, ends, lambda settings, show: list_tags(named, settings, observer=show)):
        say(tag)


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
