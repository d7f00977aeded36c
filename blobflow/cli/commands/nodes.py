"""`blobflow nodes`: what points machines at a mirror."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, connection_options_without_logins
from blobflow.cli.options.nodes import NodeOptions, NodeSelection, node_options, node_selection_options
from blobflow.cli.options.option_group import show_first
from blobflow.cli.output.warnings import print_warnings
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import ImageRequest
    from blobflow.operations.tags.search import ChosenTags, TagSearch


_PRUNED = (
    "images of which some platforms are mirrored may have an index of their own there, with another digest:"
    " by the digest of their source's they are found in no mirror"
)


@click.command("nodes", cls=Verb)
@show_first(
    *("sources", "targets", "images", "form", "output", "by_digest", "no_upstream", "partial"),
    *("ca", "plain_http", "quiet"),
)
@node_selection_options
@node_options
@connection_options_without_logins
def verb(selection: NodeSelection, nodes: NodeOptions, connection: ConnectionOptions) -> None:
    """Print what points machines at a mirror: the configuration of a container runtime, or a policy.

    \b
      blobflow nodes mirror.yaml --format containerd --output ./node
      blobflow nodes --from docker.io --to registry.example.com/mirror --format podman
      blobflow nodes --to registry.example.com/mirror --format k3s > registries.yaml

    It says of each image where `sync` with the same SPEC or list puts it, in the fewest rules. Without
    either, --from HOST --to MIRROR is all of a registry, and --to MIRROR alone every registry. Several
    targets are asked in their order. The mirror is reached as blobflow reaches it (--ca, --plain-http,
    config.toml); logins are never written. What a format can't say is an error that names it.
    """
    from blobflow.cli.inputs.mirrors import mirrors_of
    from blobflow.cli.node_output import make_node_files, notes_of, write_node_files

    def find_tags(searches: Sequence[TagSearch]) -> Mapping[TagSearch, Sequence[ChosenTags]]:
        from blobflow.operations.tags.select import select_tags

        hosts = Hosts(sources=frozenset(search.host for search in searches))
        settings = run_settings(connection, hosts=hosts)
        return run_one_shot(settings, connection.output, lambda client: select_tags(client, searches))

    selected = mirrors_of(selection, find_tags)
    defaults = selected.request.hosts if selected.request else {}
    settings = run_settings(connection, host_defaults=defaults)
    made = make_node_files(selected.mirrors, nodes, settings)
    if selected.request is not None and any(_may_be_pruned(image) for image in selected.request.images):
        made = msgspec.structs.replace(made, notes=(*made.notes, _PRUNED))
    said = selected.request.warnings if selected.request else ()
    output, events = connection.output, connection.output.log_format == "json"
    print_warnings((*said, *(f"left out: {each}" for each in made.refused)), output)
    write_node_files(made, nodes, quiet=output.quiet or events)
    if events:
        print_warnings(notes_of(made, nodes), output)


def _may_be_pruned(image: ImageRequest) -> bool:
    """Whether its root in the mirror may be another than at its source."""
    return bool(image.choice.platforms) and image.choice.index != "keep"
