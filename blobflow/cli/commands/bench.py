"""`blobflow bench`: how fast are these registries, and which settings suit them?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import LOGINS, ConnectionOptions, connection_options
from blobflow.cli.options.option_group import show_first
from blobflow.cli.options.param_types import byte_size
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.output.units import count_text, one_line, size_text, table
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.errors import InvalidReference
from blobflow.oci.local_reference import transport_of

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.content import Site
    from blobflow.operations.measure import LeftBehind, Measurements, Trial, TrialMatrix

_FORMS = ("single", "stream", "chunked")
_HEADING = ("way", "form", "size", "at once", "GB/s", "CPU s/GB", "p50 ms", "p99 ms", "requests")


def _positive_size(text: str) -> int:
    """An amount of bytes above 0."""
    found = byte_size(text)
    if not found:
        raise click.BadParameter("a blob of 0 bytes tells nothing")
    return found


def _comma_separated(kind: Any) -> Callable[[str], tuple[Any, ...]]:
    """The type of an option that takes words separated by commas, each of type `kind`."""
    each = click.types.convert_type(kind)

    def listed(text: str) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(each.convert(word.strip(), None, None) for word in text.split(",")))

    return listed


@click.command("bench", cls=Verb)
@show_first("source", "sizes", "at_once", "forms", "volume", "as_json", *LOGINS, "quiet")
@click.argument("target", type=PLACE, metavar="HOST/REPOSITORY")
@click.option(
    "--source",
    type=PLACE,
    metavar="HOST/REPOSITORY",
    help="Copy from there to the target as well, registry to registry.",
)
@click.option(
    "--sizes",
    type=_comma_separated(_positive_size),
    default="1MiB,8MiB,32MiB",
    show_default=True,
    metavar="BYTES,…",
    help="Sizes of blobs.",
)
@click.option(
    "--concurrency",
    "at_once",
    type=_comma_separated(click.IntRange(min=1, max=512)),
    default="1,4,16",
    show_default=True,
    metavar="N,…",
    help="Blobs at once.",
)
@click.option(
    "--forms",
    type=_comma_separated(click.Choice(_FORMS)),
    default=",".join(_FORMS),
    show_default=True,
    metavar="FORM,…",
    help="How blobs go up: POST and PUT; POST, PATCH and PUT; or by chunks.",
)
@click.option(
    "--volume",
    type=byte_size,
    default="128MiB",
    show_default=True,
    metavar="BYTES",
    help="What each leg moves at most; what does not fit as often as it is to move at once is left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@connection_options
def verb(
    target: str,
    source: str | None,
    sizes: tuple[int, ...],
    at_once: tuple[int, ...],
    forms: tuple[str, ...],
    volume: int,
    as_json: bool,
    connection: ConnectionOptions,
) -> None:
    """Measure how fast blobs go to a repository of yours and come from it, by size, concurrency and form.

    The blobs are generated, and taken out again at the end, also after Ctrl-C; what the registry would not
    let go of is told. Says which settings it would choose.

    \b
      blobflow bench registry.example.com/scratch/bench
      blobflow bench registry.example.com/scratch/bench --source old.example.com/scratch/bench
    """
    from blobflow.operations.measure import TrialMatrix

    matrix = msgspec.convert(
        {"sizes": sizes, "at_once": at_once, "forms": forms, "volume": volume}, type=TrialMatrix
    )
    at, origin = _parse_site(target), _parse_site(source) if source else None
    sources = frozenset({origin.registry}) if origin is not None else frozenset[str]()
    found = run_one_shot(
        run_settings(connection, hosts=Hosts(sources, frozenset({at.registry}))),
        connection.output,
        lambda client: _run_bench(client, at, matrix, origin, quiet=connection.output.quiet),
    )
    if as_json:
        write_stdout(json.dumps(bench_document(found), indent=2))
        return
    for line in bench_lines(found):
        print_lines(line)


async def _run_bench(
    client: Client, target: Site, matrix: TrialMatrix, source: Site | None, *, quiet: bool
) -> Measurements:
    from blobflow.operations.measure import measure, tell_nobody

    if not quiet:
        amount = size_text(matrix.bytes_to_move(copies=source is not None))
        print_lines(f"moving {amount} in all, in {count_text(len(matrix.lots()), 'round')}", err=True)
    return await measure(client, target, matrix, source=source, tell=tell_nobody if quiet else _print_leg)


def _print_leg(leg: Trial) -> None:
    """One line for each measurement, as it ends."""
    form = f" {leg.form}" if leg.form else ""
    came = leg.failed if leg.failed else f"{leg.rate / 1e9:.3f} GB/s"
    print_lines(f"{leg.way}{form}, {size_text(leg.size)}, {leg.at_once} at once: {came}", err=True)


def _parse_site(text: str) -> Site:
    """Read `HOST/REPOSITORY`. Raises InvalidReference."""
    from blobflow.cli.inputs.requests import parse_registry_prefix
    from blobflow.content import Site

    place = parse_registry_prefix(text)
    if transport_of(place.host) or not place.prefix:
        raise InvalidReference(f"{text[:300]!r} is not HOST/REPOSITORY, where blobs can go for a while")
    return Site(place.host, place.prefix)


def _table_row(leg: Trial) -> tuple[str, ...]:
    """One measurement as a row of the table."""
    what = (leg.way, leg.form, size_text(leg.size), str(leg.at_once))
    if leg.failed:
        return (*what, "failed", "", "", "", "")
    figures = f"{leg.rate / 1e9:.3f}", f"{leg.cpu_a_gb:.2f}", f"{leg.p50 * 1e3:.1f}", f"{leg.p99 * 1e3:.1f}"
    return (*what, *figures, str(leg.requests))


def bench_lines(found: Measurements) -> Iterator[str]:
    """The findings for people: a table, what failed, the settings to use, and what is left."""
    yield from table([_HEADING, *map(_table_row, found.legs)])
    for leg in found.legs:
        if leg.failed:
            yield one_line(f"failed: {leg.way} {leg.form} of {size_text(leg.size)}: {leg.failed}")
    host = found.target.partition("/")[0]
    if found.choice is not None:
        best = found.choice
        yield f"as fast as more at once are {best.up} up and {best.down} down; use"
        yield f"    --concurrency {max(best.up, best.down)}"
        yield "or in the configuration file"
        yield f'    [registry."{host}"]'
        yield f"    connections = {max(best.up, best.down)}"
        yield f'    profile = {{name = "measured", rungs = [{", ".join(map(_quoted, best.forms))}]}}'
    else:
        yield f"{host} took none of these forms of upload"
    for left in found.left:
        yield _leftover_text(left)
    if not found.left:
        yield "nothing is left of it there"


def _leftover_text(left: LeftBehind) -> str:
    many = count_text(left.blobs, "blob")
    return f"left at {left.site}: {many}, {size_text(left.size)}, which the registry would not let go of"


def _quoted(word: str) -> str:
    return f'"{word}"'


def bench_document(found: Measurements) -> dict[str, Any]:
    """The findings for programs; `legs` have their rates as well."""
    plain: dict[str, Any] = msgspec.to_builtins(found)
    for leg, fields in zip(found.legs, plain["legs"], strict=True):
        fields |= {"bytes_per_second": leg.rate, "cpu_seconds_per_gb": leg.cpu_a_gb}
    return plain
