"""`blobflow warm`: pull-through caches, or the store of this machine, fetch a set before it is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.choosing import Choosing, missing_platform_option
from blobflow.cli.console import display
from blobflow.cli.figures import count_text, size_text
from blobflow.cli.images import Selection, any_host_option, select
from blobflow.cli.options import (
    Link,
    Run,
    Seconds,
    cache_dir_option,
    concurrency_option,
    link_options,
    rate,
    size,
)
from blobflow.cli.running import run as run_loop
from blobflow.cli.writing import put_out, say
from blobflow.errors import RunIncomplete, UsageError
from blobflow.events import Meter

if TYPE_CHECKING:
    from blobflow.cli.selection import Asked, Place, Wanted
    from blobflow.cli.specs import SpecFormat
    from blobflow.engine.plan import MissingPlatform
    from blobflow.warming import Warmth

_FILE = click.Path(path_type=Path, dir_okay=False)
_SETTLE = 30.0  # as blobflow.warming has it, which is imported only when it is run


class Order(msgspec.Struct, frozen=True):
    """What is to be warmed: the images, where, and how it is found out. No edges: the store."""

    asked: Asked
    choosing: Choosing
    edges: tuple[Place, ...]
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
@click.option("--cache-size", type=size, metavar="BYTES", help="What the store may hold, as 20GB or 512MiB.")
@click.option("--limit-rate", type=rate, metavar="BYTES", help="Read at most so much a second in all.")
@link_options
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
    link: Link,
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
    from blobflow.cli.carrying import check_skipped
    from blobflow.cli.selection import parse_place
    from blobflow.cli.settling import may_skip_all
    from blobflow.oci.location import transport_of

    if bool(edges) == into_cache:
        raise UsageError("say what is to be warmed: --edge HOST, once or several times, or --into-cache")
    places = tuple(dict.fromkeys(parse_place(edge) for edge in edges))
    for place in places:
        if transport_of(place.host):
            raise UsageError(f"--edge {place} is no registry; an edge is a pull-through cache, HOST[/prefix]")
    selection = Selection(spec=spec, source=source, images=images, spec_format=spec_format, any_host=any_host)
    choosing = Choosing(platform=platform, missing_platform=missing_platform)
    order = Order(asked_of(selection, places), choosing, places, again, settle)
    run = Run(
        concurrency=concurrency,
        cache="all" if into_cache else "off",
        cache_dir=cache_dir,
        cache_size=cache_size,
        limit_rate=limit_rate,
    )
    told, lost = run_loop(_warmed(order, link, run))
    _show(told, lost, link, as_json=as_json)
    if not may_skip_all(order.asked, order.choosing):
        check_skipped(sum(each.status == "skipped" for each in told), len(told) + len(lost))


def asked_of(selection: Selection, edges: Sequence[Place]) -> Asked:
    """What is asked for, at the edges, under the names that it has at its sources.

    What a spec says of targets and of names there is not about edges. Raises as `select`.
    """
    from blobflow.cli.selection import Place, read_text
    from blobflow.cli.specs import read_spec, recognised

    # The store is no place with a name; images need one to be pairs, and theirs is never asked.
    places = tuple(edges) or (Place("store.invalid"),)
    if selection.spec and not (selection.source or selection.images or selection.any_host):
        name = "stdin" if str(selection.spec) == "-" else str(selection.spec)
        text = read_text(selection.spec)
        form = recognised(text, name) if selection.spec_format == "auto" else selection.spec_format
        asked = read_spec(text, name, places if form == "skopeo" else (), form, environ=os.environ)
    else:
        asked = select(msgspec.structs.replace(selection, targets=tuple(map(str, places))))
    return msgspec.structs.replace(asked, wanted=tuple(_merged(asked.wanted)), targets=places)


def _merged(wanted: Iterable[Wanted]) -> Iterable[Wanted]:
    """Each image once, by its name at the source, with all platforms that any mention of it wants. It has to
    have one of them if a mention says so."""
    from blobflow.cli.renaming import AS_IT_IS
    from blobflow.oci.choice import Choice

    merged: dict[Wanted, list[Wanted]] = {}
    for image in wanted:
        bare = msgspec.structs.replace(
            image,
            where="",
            target="",
            target_tag="",
            rename=AS_IT_IS,
            targets=(),
            choice=Choice(),
            missing_platform=None,
        )
        merged.setdefault(bare, []).append(image)
    for image, mentions in merged.items():
        platforms = {platform for each in mentions for platform in each.choice.platforms}
        some = all(each.choice.platforms for each in mentions)
        choice = Choice(tuple(sorted(platforms)) if some else ())
        where = f"{image}" if image.search is None else str(image.source)
        said = {each.missing_platform for each in mentions} - {None}
        missing = min(said, default=None, key=str)  # fail before skip
        yield msgspec.structs.replace(
            image, choice=choice, where=where, chosen=True, missing_platform=missing
        )


async def _warmed(order: Order, link: Link, run: Run) -> tuple[list[Warmth], dict[str, str]]:
    from blobflow.cli.settling import find_pairs, settings_for
    from blobflow.warming import warm, warm_cache

    meter = Meter()
    async with display(link.look, meter, hosts=len(order.edges)) as show:
        settings = settings_for(order.asked, link, run)
        settled = await find_pairs(order.asked, order.choosing, settings, show, meter)
        if order.edges:
            told = await warm(
                settled.pairs,
                settings,
                again=order.again,
                settle=order.settle,
                observer=show,
                meter=meter,
            )
        else:
            told = await warm_cache(settled.pairs, settings, observer=show, meter=meter)
        return told, {str(pair.source): str(error) for pair, error in settled.lost.items()}


def _show(told: Sequence[Warmth], lost: dict[str, str], link: Link, *, as_json: bool) -> None:
    """Tell what became of each image; raise RunIncomplete unless all are warm."""
    if as_json:
        document = {"images": msgspec.to_builtins(told), "lost": lost}
        put_out(json.dumps(document, indent=2))
    else:
        for each in told:
            if each.status != "warm" or not link.look.quiet:
                say(_line(each))
        for image, error in lost.items():
            say(f"failed: {image}: {error}")
    missing = sum(each.status not in ("warm", "skipped") for each in told) + len(lost)
    if missing:
        raise RunIncomplete(f"{missing} of {count_text(len(told) + len(lost), 'image')} are not warm")


def _line(each: Warmth) -> str:
    if each.status == "failed":
        return f"failed: {each.image}: {each.error}"
    if each.status == "skipped":
        return f"skipped: {each.image}: {each.reason}"
    pulled = f"{each.pulled} pulled ({size_text(each.bytes_pulled)})" if each.pulled else "all there before"
    cold = f", {each.cold} not stored yet" if each.cold else ""
    blobs = f"{count_text(each.blobs, 'blob')}, {size_text(each.bytes)}"
    return f"{each.status}: {each.image}: {blobs}; {pulled}{cold}"
