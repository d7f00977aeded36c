"""`blobflow save`: a set of images into one bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.carrying import Begin, carry_out_work
from blobflow.cli.choosing import Choosing, choice_options, choose
from blobflow.cli.images import any_host_option, read_list
from blobflow.cli.options import Link, Run, ends_of, link_options, run_options, size, unlisted
from blobflow.errors import UsageError
from blobflow.events import Meter, Observer
from blobflow.oci.location import OCI_ARCHIVE, STREAM, place_at, transport_of

if TYPE_CHECKING:
    from blobflow.engine.plan import Pair
    from blobflow.mirror import Settings


@click.command("save")
@click.option("--from", "source", metavar="HOST[/prefix]", required=True, help="Where the images are.")
@click.option(
    "--images",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="LIST",
    required=True,
    help="One repository:tag or repository@digest a line; # comments; - is stdin.",
)
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="The bundle, as bundle.tar; - is standard output."
)
@click.option(
    "--split-size",
    type=size,
    metavar="BYTES",
    help="Write parts of at most so much, bundle.001.tar and so on, as 4GB or 650MiB.",
)
@click.option(
    "--since",
    metavar="BUNDLE",
    multiple=True,
    help="Leave out the blobs that this earlier bundle has. Repeatable.",
)
@any_host_option
@choice_options
@unlisted("dry_run")
@run_options
@link_options
def verb(
    source: str,
    images: Path,
    output: str,
    split_size: int | None,
    since: tuple[str, ...],
    any_host: bool,
    choosing: Choosing,
    run: Run,
    link: Link,
) -> None:
    """Save a set of images, each blob once, into one OCI archive.

    `blobflow load` brings it to any registry; docker, podman, containerd and skopeo read it too, unless it is
    in parts or was made with --since. The same images give the same bytes.

    \b
      blobflow save --from docker.io --images images.txt -o bundle.tar
      blobflow save --from docker.io --images images.txt -o may.tar --since april.tar
    """
    if run.dry_run:
        raise UsageError(
            "save has no --dry-run; `blobflow plan --to oci-archive:FILE` says what it would cost"
        )
    if output == STREAM and split_size is not None:
        raise UsageError("standard output is one file: --split-size needs the name of a file")
    place = place_at(OCI_ARCHIVE, output)
    pairs = choose(_pairs(source, images, place, any_host=any_host), choosing)

    async def work(settings: Settings, begin: Begin, show: Observer, meter: Meter) -> Sequence[str]:
        from blobflow.airgap.saving import Bundle, save
        from blobflow.cli.archives import read_inputs

        bundle = Bundle(place, split_size, tuple(read_inputs(since)))
        await save(pairs, bundle, begin, settings, observer=show, meter=meter)
        return ()

    outcome = carry_out_work(work, ends_of(pairs), link, run)
    outcome.check_set(may_skip_all=choosing.missing_platform is not None)


def _pairs(source: str, images: Path, place: str, *, any_host: bool) -> list[Pair]:
    """The images of the list, in the bundle under the names that they have in it, behind their host."""
    from blobflow.cli.selection import Place, parse_place
    from blobflow.engine.plan import Pair

    origin, bundle = parse_place(source), Place(place)
    pairs = []
    for wanted in read_list(images, origin, any_host=any_host):
        name = wanted.named if transport_of(origin.host) else f"{origin.host}/{wanted.path}"
        target = bundle.under(name, wanted.tag, "" if wanted.tag else wanted.digest)
        pairs.append(Pair(wanted.origin, target, missing_platform="skip"))
    return pairs
