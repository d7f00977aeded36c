"""`blobflow warm`: pull-through caches, or the store of this machine, fetch a set before it is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import LOGINS, ConnectionOptions, connection_options
from blobflow.cli.options.images import (
    SelectionOptions,
    any_host_option,
    custom_resources_option,
    images_from_option,
)
from blobflow.cli.options.option_group import OnceOption, option_group, show_first
from blobflow.cli.options.param_types import Seconds, byte_rate
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.platforms import PlatformOptions, missing_platform_option
from blobflow.cli.options.run import RunOptions, cache_dir_option, concurrency_option, max_size_option
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.output.units import count_text, size_text
from blobflow.cli.verb import Verb
from blobflow.errors import RunIncomplete, UsageError

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import MirrorRequest, RegistryPrefix
    from blobflow.client import Client
    from blobflow.engine.pairs import MissingPlatform
    from blobflow.operations.prefetch import WarmResult

_FILE = click.Path(path_type=Path, dir_okay=False)
_SETTLE = 30.0  # as blobflow.operations.prefetch has it, which is imported only when it is run


class WarmRequest(msgspec.Struct, frozen=True):
    """What is to be warmed: the images, where, and how it is found out. No edges: the store."""

    request: MirrorRequest
    platforms: PlatformOptions
    edges: tuple[RegistryPrefix, ...]
    again: bool
    settle: float


_selection_options = option_group(
    "selection",
    SelectionOptions,
    click.argument("spec", type=_FILE, required=False),
    click.option(
        "--from",
        "source",
        cls=OnceOption,
        type=PLACE,
        metavar="HOST[/prefix]",
        help="Where the images of the list come from.",
    ),
    click.option(
        "--images",
        cls=OnceOption,
        type=_FILE,
        metavar="LIST",
        help="One repository:tag or repository@digest a line; - is stdin.",
    ),
    images_from_option,
    custom_resources_option,
    any_host_option,
    click.option(
        "--spec-format",
        type=click.Choice(["auto", "blobflow", "skopeo", "regsync"]),
        default="auto",
        help="What SPEC is, if it is not recognised.",
    ),
)


@click.command("warm", cls=Verb)
@show_first(
    "source",
    "images",
    "edges",
    "into_cache",
    "platform",
    "as_json",
    "cache_size",
    "limit_rate",
    *LOGINS,
    "quiet",
    "verbose",
)
@_selection_options
@click.option(
    "--edge",
    "edges",
    type=PLACE,
    multiple=True,
    metavar="HOST[/prefix]",
    help="A pull-through cache of those sources; its images have their sources' paths. Repeatable.",
)
@click.option("--into-cache", is_flag=True, help="Fill the store of this machine instead.")
@click.option(
    "--platform",
    multiple=True,
    metavar="PLATFORM",
    help="os/architecture[/variant], `system` or `all` (the default); several by commas or by repeating.",
)
@missing_platform_option
@click.option(
    "--again",
    is_flag=True,
    help="Pull also what the edge says it has: for caches that answer ranges of what they have not stored.",
)
@click.option(
    "--settle",
    type=Seconds(min=0),
    default=_SETTLE,
    metavar="SECONDS",
    show_default=True,
    help="How long edges may take to store what was pulled.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@concurrency_option
@cache_dir_option
@max_size_option("What the store may hold, as 20GB or 512MiB.", name="cache_size")
@click.option("--limit-rate", type=byte_rate, metavar="BYTES", help="Read at most so much a second in all.")
@connection_options
def verb(
    selection: SelectionOptions,
    edges: tuple[str, ...],
    into_cache: bool,
    platform: tuple[str, ...],
    missing_platform: MissingPlatform | None,
    again: bool,
    settle: float,
    as_json: bool,
    concurrency: int | None,
    cache_dir: Path | None,
    cache_size: int | None,
    limit_rate: int | None,
    connection: ConnectionOptions,
) -> None:
    """Pull a set of images through pull-through caches, so that their clients find it there.

    What a cache has stored already is left alone: a request for the first byte of each blob tells, on
    distribution and on what behaves like it. The rest is pulled, checked against its digest and dropped.
    Afterwards each edge is asked again, until it has stored what went through it.

    \b
      blobflow warm mirror.yaml --edge edge-1:5000 --edge edge-2:5000
      blobflow warm --from docker.io --images images.txt --edge edge-1:5000 --platform linux/arm64
      blobflow warm mirror.yaml --into-cache
    """
    from blobflow.cli.expand_request import may_skip_all, request_settings
    from blobflow.cli.inputs.warm_request import request_at_edges
    from blobflow.cli.run_command import check_not_all_skipped

    places = _parse_edges(edges, into_cache=into_cache)
    platforms = PlatformOptions(platform=platform, missing_platform=missing_platform)
    order = WarmRequest(request_at_edges(selection, places), platforms, places, again, settle)
    run = RunOptions(
        concurrency=concurrency,
        cache="all" if into_cache else "off",
        cache_dir=cache_dir,
        cache_size=cache_size,
        limit_rate=limit_rate,
    )
    settings = request_settings(order.request, connection, run)
    results, unresolved = run_one_shot(
        settings, connection.output, lambda client: _warm(client, order), targets=len(places)
    )
    _print_results(results, unresolved, connection, as_json=as_json)
    if not may_skip_all(order.request, order.platforms):
        check_not_all_skipped(
            sum(each.status == "skipped" for each in results), len(results) + len(unresolved)
        )


def _parse_edges(edges: Sequence[str], *, into_cache: bool) -> tuple[RegistryPrefix, ...]:
    """The edges, each once; none for the store of this machine. Raises UsageError."""
    from blobflow.cli.inputs.requests import parse_registry_prefix
    from blobflow.oci.local_reference import transport_of

    if bool(edges) == into_cache:
        raise UsageError("say what is to be warmed: --edge HOST, once or several times, or --into-cache")
    places = tuple(dict.fromkeys(parse_registry_prefix(edge) for edge in edges))
    for place in places:
        if transport_of(place.host):
            raise UsageError(f"--edge {place} is no registry; an edge is a pull-through cache, HOST[/prefix]")
    return places


async def _warm(client: Client, order: WarmRequest) -> tuple[list[WarmResult], dict[str, str]]:
    """What became of each image; and the repositories that could not be listed, each with why."""
    from blobflow.cli.expand_request import expand_request
    from blobflow.operations.prefetch import warm_caches, warm_store

    expanded = await expand_request(client, order.request, order.platforms)
    if order.edges:
        results = await warm_caches(client, expanded.pairs, again=order.again, settle=order.settle)
    else:
        results = await warm_store(client, expanded.pairs)
    return results, {str(pair.source): str(error) for pair, error in expanded.unresolved.items()}


def _print_results(
    results: Sequence[WarmResult], unresolved: dict[str, str], connection: ConnectionOptions, *, as_json: bool
) -> None:
    """Tell what became of each image; raise RunIncomplete unless all are warm."""
    if as_json:
        document = {"images": msgspec.to_builtins(results), "lost": unresolved}
        write_stdout(json.dumps(document, indent=2))
    else:
        for each in results:
            if each.status != "warm" or not connection.output.quiet:
                print_lines(_result_line(each))
        for image, error in unresolved.items():
            print_lines(f"failed: {image}: {error}")
    missing = sum(each.status not in ("warm", "skipped") for each in results) + len(unresolved)
    if missing:
        raise RunIncomplete(
            f"{missing} of {count_text(len(results) + len(unresolved), 'image')} are not warm"
        )


def _result_line(each: WarmResult) -> str:
    if each.status == "failed":
        return f"failed: {each.image}: {each.error}"
    if each.status == "skipped":
        return f"skipped: {each.image}: {each.reason}"
    pulled = f"{each.pulled} pulled ({size_text(each.bytes_pulled)})" if each.pulled else "all there before"
    cold = f", {each.cold} not stored yet" if each.cold else ""
    blobs = f"{count_text(each.blobs, 'blob')}, {size_text(each.bytes)}"
    return f"{each.status}: {each.image}: {blobs}; {pulled}{cold}"
