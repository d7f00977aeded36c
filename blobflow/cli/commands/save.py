"""`blobflow save`: a set of images into one bundle."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.inputs.image_list import read_image_list
from blobflow.cli.inputs.platforms import choose_platforms
from blobflow.cli.options.connection import COMMON, ConnectionOptions, source_connection_options
from blobflow.cli.options.images import (
    SpecFormat,
    any_host_option,
    custom_resources_option,
    images_from_option,
    spec_format_option,
)
from blobflow.cli.options.option_group import hide_options, show_first
from blobflow.cli.options.param_types import FILE, byte_size
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.platforms import PlatformOptions, platform_options
from blobflow.cli.options.run import RunOptions, run_options
from blobflow.cli.run_command import RunRecorder, run_command
from blobflow.cli.settings import Hosts, hosts_of
from blobflow.cli.signature_policies import with_signatures
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError
from blobflow.oci.local_reference import OCI_ARCHIVE, STREAM, local_host, transport_of

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.engine.pairs import Pair


@click.command("save", cls=Verb)
@show_first(
    *("source", "images", "images_from", "output", "files", "split_size", "since", "digests"),
    *("platform", "limit_rate", "report", *COMMON),
)
@click.argument("spec", type=FILE, required=False)
@click.option(
    "--from",
    "source",
    type=PLACE,
    metavar="HOST[/prefix]",
    help="Where the images of the list are. [default: each line's own host, or docker.io]",
)
@click.option(
    "--images",
    type=FILE,
    metavar="LIST",
    help="One repository:tag or repository@digest a line; # comments; - is stdin.",
)
@images_from_option
@custom_resources_option
@spec_format_option
@click.option(
    "-o", "--output", metavar="FILE", required=True, help="The bundle, as bundle.tar; - is standard output."
)
@click.option(
    "--split-size",
    type=byte_size,
    metavar="BYTES",
    help="Write parts of at most so much, bundle.001.tar and so on, as 4GB or 650MiB.",
)
@click.option(
    "--since",
    metavar="BUNDLE",
    multiple=True,
    help="Leave out the blobs that this earlier bundle has. Repeatable.",
)
@click.option(
    "--file",
    "files",
    metavar="PATH[:TYPE]",
    multiple=True,
    help="A file or folder that goes along, as `push` takes them. Repeatable.",
)
@click.option(
    "--digests",
    is_flag=True,
    help="Write FILE.sha256 as well, which `sha256sum -c` and `load --digests` check.",
)
@any_host_option
@platform_options
@hide_options("dry_run")
@run_options
@source_connection_options
def verb(
    spec: Path | None,
    source: str | None,
    images: Path | None,
    images_from: tuple[str, ...],
    custom_resources: bool,
    spec_format: SpecFormat,
    output: str,
    split_size: int | None,
    since: tuple[str, ...],
    files: tuple[str, ...],
    digests: bool,
    any_host: bool,
    platforms: PlatformOptions,
    run: RunOptions,
    connection: ConnectionOptions,
) -> None:
    """Save a set of images, each blob once, into one OCI archive.

    `blobflow load` brings it to any registry; docker, podman, containerd and skopeo read it too, unless it is
    in parts or was made with --since. The same images give the same bytes. Of a SPEC (skopeo's and regsync's,
    too) the images go into the bundle, under the names that they would have at its targets. Charts and other
    artifacts of registries are listed like images; --file is for what is in no registry.

    \b
      blobflow save mirror.yaml -o bundle.tar
      blobflow save --images images.txt -o bundle.tar
      blobflow save --images-from manifests/ -o bundle.tar
      blobflow save --from docker.io --images images.txt -o may.tar --since april.tar
      blobflow save mirror.yaml --file install.sh --file config -o bundle.tar --digests
    """
    from blobflow.cli.expand_request import expand_request, may_skip_all, request_hosts
    from blobflow.cli.inputs.bundle_request import read_request_for_bundle
    from blobflow.operations.artifacts.files import parse_file

    if run.dry_run:
        raise UsageError(
            "save has no --dry-run; `blobflow plan --to oci-archive:FILE` says what it would cost"
        )
    if output == STREAM and split_size is not None:
        raise UsageError("standard output is one file: --split-size needs the name of a file")
    if output == STREAM and digests:
        raise UsageError("standard output has no name to stand in a list: --digests needs that of a file")
    place = local_host(OCI_ARCHIVE, output)
    given = tuple(parse_file(text) for text in files)
    if not (images or images_from) and (source or any_host):
        raise UsageError("--from and --any-host are about the lines of --images; give that, too")
    request = read_request_for_bundle(
        spec, spec_format, place, is_list=images is not None, has_more=bool(images_from or files)
    )
    if images_from:
        from blobflow.cli.inputs.collected import add_collected
        from blobflow.cli.inputs.requests import parse_registry_prefix

        origin = parse_registry_prefix(source) if source else None
        request = add_collected(
            request, images_from, origin, any_host=any_host, custom_resources=custom_resources
        )
    pairs: Sequence[Pair] = ()
    if images is not None:
        pairs = choose_platforms(_pairs(source, images, place, any_host=any_host), platforms)

    async def work(client: Client, recorder: RunRecorder) -> Sequence[str]:
        from blobflow.cli.inputs.archives import parse_archives
        from blobflow.cli.inputs.digest_lists import write_digest_list
        from blobflow.operations.airgap.save import Bundle, save

        expanded = await expand_request(client, request, platforms)
        recorder.unresolved = expanded.unresolved
        bundle = Bundle(place, split_size, tuple(parse_archives(since)), given)
        written = await save(client, (*pairs, *expanded.pairs), bundle, recorder)
        if digests and written:
            await write_digest_list(client, Path(output), written)
        return expanded.notes

    hosts = Hosts(request_hosts(request).sources | hosts_of(pairs).sources, frozenset({place}))
    judged = partial(with_signatures, run, connection.config, request.signature_policies)
    outcome = run_command(work, hosts, connection, run, host_defaults=request.hosts, policy=judged)
    outcome.check_set(may_skip_all=may_skip_all(request, platforms))


def _pairs(source: str | None, images: Path, place: str, *, any_host: bool) -> list[Pair]:
    """The images of the list, in the bundle under the names that they have in it, behind their host."""
    from blobflow.cli.inputs.requests import RegistryPrefix, parse_registry_prefix
    from blobflow.engine.pairs import Pair

    origin, bundle = parse_registry_prefix(source) if source else None, RegistryPrefix(place)
    pairs = []
    for image in read_image_list(images, origin, any_host=any_host):
        local = transport_of(image.source.host)
        name = image.named if local else f"{image.source.host}/{image.path}"
        target = bundle.under(name, image.tag, "" if image.tag else image.digest)
        pairs.append(Pair(image.origin, target, missing_platform="skip"))
    return pairs
