"""`blobflow warm`: pull-through caches, or the store of this machine, fetch a set before it is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.inputs.selection import SelectionOptions, any_host_option, read_request
from blobflow.cli.options.connection import (
    ConnectionOptions,
    RunOptions,
    Seconds,
    byte_rate,
    byte_size,
    cache_dir_option,
    concurrency_option,
    connection_options,
)
from blobflow.cli.options.platforms import PlatformOptions, missing_platform_option
from blobflow.cli.output.progress import show_progress
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.output.units import count_text, size_text
from blobflow.cli.runtime.event_loop import run as run_loop
from blobflow.errors import RunIncomplete, UsageError
from blobflow.events import Meter

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import ImageRequest, MirrorRequest, RegistryPrefix
    from blobflow.cli.inputs.spec_formats import SpecFormat
    from blobflow.engine.plan.steps import MissingPlatform
    from blobflow.operations.prefetch import WarmResult

_FILE = click.Path(path_type=Path, dir_okay=False)
_SETTLE = 30.0  # as blobflow.operations.prefetch has it, which is imported only when it is run


class WarmRequest(msgspec.Struct, frozen=True):
    """What is to be warmed: the images, where, and how it is found out. No edges: the store."""

    asked: MirrorRequest
    platforms: PlatformOptions
    edges: tuple[RegistryPrefix, ...]
    again: bool
    settle: float


@click.command("warm")
@click.argument("spec", type=_FILE, required=False)
@click.option("--from", "source", metavar="HOST[/prefix]", help="Where the images of the list come from.")
@click.option(
    "--images", type=_FILE, metavar="LIST", help="One repository:tag or repository@digest a line; - is stdin."
)
@any_host_option
@click.option(
    "--edge",
    "edges",
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
@click.option(
    "--spec-format",
    type=click.Choice(["auto", "blobflow", "skopeo", "regsync"]),
    default="auto",
    help="What SPEC is, if it is not recognised.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@concurrency_option
@cache_dir_option
@click.option(
    "--cache-size", type=byte_size, metavar="BYTES", help="What the store may hold, as 20GB or 512MiB."
)
@click.option("--limit-rate", type=byte_rate, metavar="BYTES", help="Read at most so much a second in all.")
@connection_options
def verb(
    spec: Path | None,
    source: str | None,
    images: Path | None,
    any_host: bool,
    edges: tuple[str, ...],
    into_cache: bool,
    platform: tuple[str, ...],
    missing_platform: MissingPlatform | None,
    again: bool,
    settle: float,
    spec_format: SpecFormat,
    as_json: bool,
    concurrency: int,
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
    from blobflow.cli.expand import may_skip_all
    from blobflow.cli.inputs.requests import parse_registry_prefix
    from blobflow.cli.run_command import check_not_all_skipped
    from blobflow.oci.local_reference import transport_of

    if bool(edges) == into_cache:
        raise UsageError("say what is to be warmed: --edge HOST, once or several times, or --into-cache")
    places = tuple(dict.fromkeys(parse_registry_prefix(edge) for edge in edges))
    for place in places:
        if transport_of(place.host):
            raise UsageError(f"--edge {place} is no registry; an edge is a pull-through cache, HOST[/prefix]")
    selection = SelectionOptions(
        spec=spec, source=source, images=images, spec_format=spec_format, any_host=any_host
    )
    platforms = PlatformOptions(platform=platform, missing_platform=missing_platform)
    order = WarmRequest(request_at_edges(selection, places), platforms, places, again, settle)
    run = RunOptions(
        concurrency=concurrency,
        cache="all" if into_cache else "off",
        cache_dir=cache_dir,
        cache_size=cache_size,
        limit_rate=limit_rate,
    )
    told, lost = run_loop(_warm_on_loop(order, connection, run))
    _print_results(told, lost, connection, as_json=as_json)
    if not may_skip_all(order.asked, order.platforms):
        check_not_all_skipped(sum(each.status == "skipped" for each in told), len(told) + len(lost))


def request_at_edges(selection: SelectionOptions, edges: Sequence[RegistryPrefix]) -> MirrorRequest:
    """What is asked for, at the edges, under the names that it has at its sources.

    What a spec says of targets and of names there is not about edges. Raises as `read_request`.
    """
    from blobflow.cli.inputs.requests import RegistryPrefix, read_text
    from blobflow.cli.inputs.spec_formats import detect_format, read_spec

    # The store is no place with a name; images need one to be pairs, and theirs is never asked.
    places = tuple(edges) or (RegistryPrefix("store.invalid"),)
    if selection.spec and not (selection.source or selection.images or selection.any_host):
        name = "stdin" if str(selection.spec) == "-" else str(selection.spec)
        text = read_text(selection.spec)
        form = detect_format(text, name) if selection.spec_format == "auto" else selection.spec_format
        asked = read_spec(text, name, places if form == "skopeo" else (), form, environ=os.environ)
    else:
        asked = read_request(msgspec.structs.replace(selection, targets=tuple(map(str, places))))
    return msgspec.structs.replace(asked, wanted=tuple(_merge_mentions(asked.wanted)), targets=places)


def _merge_mentions(wanted: Iterable[ImageRequest]) -> Iterable[ImageRequest]:
    """Each image once, by its name at the source, with all platforms that any mention of it wants. It has to
    have one of them if a mention says so."""
    from blobflow.cli.inputs.renaming import KEEP_NAMES
    from blobflow.oci.platform_choice import PlatformChoice

    merged: dict[ImageRequest, list[ImageRequest]] = {}
    for image in wanted:
        bare = msgspec.structs.replace(
            image,
            where="",
            target="",
            target_tag="",
            rename=KEEP_NAMES,
            targets=(),
            choice=PlatformChoice(),
            missing_platform=None,
        )
        merged.setdefault(bare, []).append(image)
    for image, mentions in merged.items():
        platforms = {platform for each in mentions for platform in each.choice.platforms}
        some = all(each.choice.platforms for each in mentions)
        choice = PlatformChoice(tuple(sorted(platforms)) if some else ())
        where = f"{image}" if image.search is None else str(image.source)
        said = {each.missing_platform for each in mentions} - {None}
        missing = min(said, default=None, key=str)  # fail before skip
        yield msgspec.structs.replace(
            image, choice=choice, where=where, chosen=True, missing_platform=missing
        )


async def _warm_on_loop(
    order: WarmRequest, connection: ConnectionOptions, run: RunOptions
) -> tuple[list[WarmResult], dict[str, str]]:
    from blobflow.cli.expand import expand_request, request_settings
    from blobflow.operations.prefetch import warm_caches, warm_store

    meter = Meter()
    async with show_progress(connection.output, meter, hosts=len(order.edges)) as show:
        settings = request_settings(order.asked, connection, run)
        expanded = await expand_request(order.asked, order.platforms, settings, show, meter)
        if order.edges:
            told = await warm_caches(
                expanded.pairs,
                settings,
                again=order.again,
                settle=order.settle,
                observer=show,
                meter=meter,
            )
        else:
            told = await warm_store(expanded.pairs, settings, observer=show, meter=meter)
        return told, {str(pair.source): str(error) for pair, error in expanded.lost.items()}


def _print_results(
    told: Sequence[WarmResult], lost: dict[str, str], connection: ConnectionOptions, *, as_json: bool
) -> None:
    """Tell what became of each image; raise RunIncomplete unless all are warm."""
    if as_json:
        document = {"images": msgspec.to_builtins(told), "lost": lost}
        write_stdout(json.dumps(document, indent=2))
    else:
        for each in told:
            if each.status != "warm" or not connection.output.quiet:
                print_lines(_result_line(each))
        for image, error in lost.items():
            print_lines(f"failed: {image}: {error}")
    missing = sum(each.status not in ("warm", "skipped") for each in told) + len(lost)
    if missing:
        raise RunIncomplete(f"{missing} of {count_text(len(told) + len(lost), 'image')} are not warm")


def _result_line(each: WarmResult) -> str:
    if each.status == "failed":
        return f"failed: {each.image}: {each.error}"
    if each.status == "skipped":
        return f"skipped: {each.image}: {each.reason}"
    pulled = f"{each.pulled} pulled ({size_text(each.bytes_pulled)})" if each.pulled else "all there before"
    cold = f", {each.cold} not stored yet" if each.cold else ""
    blobs = f"{count_text(each.blobs, 'blob')}, {size_text(each.bytes)}"
    return f"{each.status}: {each.image}: {blobs}; {pulled}{cold}"
