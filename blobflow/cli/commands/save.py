"""`blobflow save`: a set of images into one bundle."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.inputs.image_list import read_image_list
from blobflow.cli.inputs.platforms import choose_platforms
from blobflow.cli.options.bundle import SavedBundleOptions, saved_bundle_options
from blobflow.cli.options.connection import LOGINS, ConnectionOptions, source_connection_options
from blobflow.cli.options.images import SelectionOptions, saved_selection_options
from blobflow.cli.options.option_group import hide_options, show_first
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
    *("platform", *LOGINS, "plain_http", "quiet"),
)
@saved_selection_options
@saved_bundle_options
@platform_options
@hide_options("dry_run")
@run_options
@source_connection_options
def verb(
    selection: SelectionOptions,
    bundle: SavedBundleOptions,
    platforms: PlatformOptions,
    run: RunOptions,
    connection: ConnectionOptions,
) -> None:
    """Save a set of images, each blob once, into one OCI archive.

    `blobflow load` brings it to any registry; docker, podman, containerd and skopeo read it too, unless it is
    in parts or was made with --since. The same images give the same bytes. Of a SPEC (skopeo's and regsync's,
    too) the images have the names that they would have at its targets.

    \b
      blobflow save --images images.txt -o bundle.tar
      blobflow save --images-from manifests/ --file install.sh -o bundle.tar
      blobflow save mirror.yaml -o may.tar --since april.tar
    """
    from blobflow.cli.expand_request import expand_request, may_skip_all, request_hosts
    from blobflow.cli.inputs.bundle_request import read_request_for_bundle
    from blobflow.operations.artifacts.files import parse_file

    _check(bundle, run)
    place = local_host(OCI_ARCHIVE, bundle.output)
    files = tuple(parse_file(text) for text in bundle.files)
    request = read_request_for_bundle(selection, place, has_files=bool(files))
    pairs = choose_platforms(_pairs(selection, place), platforms)

    async def work(client: Client, recorder: RunRecorder) -> Sequence[str]:
        from blobflow.cli.inputs.archives import parse_archives
        from blobflow.cli.inputs.digest_lists import write_digest_list
        from blobflow.operations.airgap.save import Bundle, save

        expanded = await expand_request(client, request, platforms)
        recorder.unresolved = expanded.unresolved
        since, deployments = tuple(parse_archives(bundle.since)), request.collected
        to = Bundle(place, bundle.split_size, since, files, deployments, request.custom_resources)
        written = await save(client, (*pairs, *expanded.pairs), to, recorder)
        if bundle.digests and written:
            await write_digest_list(client, Path(bundle.output), written)
        return expanded.notes

    hosts = Hosts(request_hosts(request).sources | hosts_of(pairs).sources, frozenset({place}))
    judged = partial(with_signatures, run, connection.config, request.signature_policies)
    outcome = run_command(work, hosts, connection, run, host_defaults=request.hosts, policy=judged)
    outcome.check_set(may_skip_all=may_skip_all(request, platforms))


def _check(bundle: SavedBundleOptions, run: RunOptions) -> None:
    if run.dry_run:
        raise UsageError(
            "save has no --dry-run; `blobflow plan --to oci-archive:FILE` says what it would cost"
        )
    if bundle.output == STREAM and bundle.split_size is not None:
        raise UsageError("standard output is one file: --split-size needs the name of a file")
    if bundle.output == STREAM and bundle.digests:
        raise UsageError("standard output has no name to stand in a list: --digests needs that of a file")


def _pairs(selection: SelectionOptions, place: str) -> list[Pair]:
    """The images of the list, in the bundle under the names that they have in it, behind their host."""
    from blobflow.cli.inputs.requests import RegistryPrefix, parse_registry_prefix
    from blobflow.engine.pairs import Pair

    if selection.images is None:
        return []
    origin = parse_registry_prefix(selection.source) if selection.source else None
    bundle, pairs = RegistryPrefix(place), []
    for image in read_image_list(selection.images, origin, any_host=selection.any_host):
        local = transport_of(image.source.host)
        name = image.named if local else f"{image.source.host}/{image.path}"
        target = bundle.under(name, image.tag, "" if image.tag else image.digest)
        pairs.append(Pair(image.origin, target, missing_platform="skip"))
    return pairs
