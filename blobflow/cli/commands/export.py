"""`blobflow export`: one image, as what people want it as; the words of `docker buildx build --output`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.inputs.buildx_output import ExportOutput, parse_output
from blobflow.cli.options.connection import COMMON, ConnectionOptions, connection_options
from blobflow.cli.options.option_group import OnceOption, hide_options, show_first
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.platforms import missing_platform_option
from blobflow.cli.options.run import RunOptions, run_options
from blobflow.cli.run_command import RunOutcome, StartRun, run_command, run_mirror
from blobflow.cli.settings import Hosts
from blobflow.cli.verb import Verb
from blobflow.errors import NoSuchPlatform, UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.local_reference import DOCKER_ARCHIVE, LAYOUT, OCI_ARCHIVE, STREAM, local_host

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.engine.execution import Run as Flow
    from blobflow.engine.pairs import MissingPlatform, Pair
    from blobflow.oci.platform_choice import PlatformChoice


@click.command("export", cls=Verb)
@show_first("output", "platform", *COMMON)
@click.argument("reference", type=PLACE, metavar="REF")
@click.option(
    "-o",
    "--output",
    cls=OnceOption,
    instead="export once for each",
    required=True,
    metavar="type=TYPE[,dest=PATH|name=REF][,platform=…]",
    help="oci, docker: an archive; tar, local: the root file system; registry; cacheonly.",
)
@missing_platform_option
@hide_options("dry_run")
@run_options
@connection_options
def verb(
    reference: str,
    output: str,
    missing_platform: MissingPlatform | None,
    run: RunOptions,
    connection: ConnectionOptions,
) -> None:
    """Write one image out: as an archive, as its root file system, to a registry, or only into the store.

    The outputs are buildx's. dest=- is standard output. Several platforms get a folder each (linux_arm_v7) in
    a tar or local output; platform=linux/arm64 chooses, and can be given again. type=local makes device
    nodes only with devices=true, and as root.

    \b
      blobflow export alpine:3 --output type=local,dest=rootfs,platform=linux/arm64
      blobflow export alpine:3 --output type=oci,dest=alpine.tar
      blobflow export alpine:3 --output type=tar,dest=- | tar t
    """
    if run.dry_run:
        raise UsageError("export has no --dry-run; `blobflow inspect` shows what the image holds")
    source, wanted = parse_reference(reference), parse_output(output)
    missing = missing_platform or "fail"
    if wanted.type in ("tar", "local", "cacheonly"):
        _export_from_store(source, wanted, missing, run, connection).check_image()
    else:
        pairs = _pairs(source, wanted, missing)
        run_mirror(pairs, connection, run, list_failures=False).check_image()


def _choice(output: ExportOutput) -> PlatformChoice:
    from blobflow.cli.inputs.platforms import parse_platforms
    from blobflow.oci.platform_choice import PlatformChoice

    platforms = parse_platforms(output.platforms)
    return PlatformChoice(platforms, "prune" if platforms and output.type in ("oci", "docker") else "auto")


def _pairs(source: Reference, output: ExportOutput, missing: MissingPlatform) -> list[Pair]:
    """The copy that the output is."""
    from blobflow.cli.inputs.copy_arguments import copy_pairs
    from blobflow.engine.pairs import Pair

    if output.type == "registry":
        target = output.name
    else:
        word = {"oci": OCI_ARCHIVE if output.tar else LAYOUT, "docker": DOCKER_ARCHIVE}[output.type]
        target = local_host(word, output.dest) + (f":{output.name}" if output.name else "")
    choice = _choice(output)
    pairs = copy_pairs(str(source), [target])
    return [Pair(pair.source, pair.target, choice, missing_platform=missing) for pair in pairs]


def _export_from_store(
    source: Reference,
    output: ExportOutput,
    missing: MissingPlatform,
    run: RunOptions,
    connection: ConnectionOptions,
) -> RunOutcome:
    """Bring the image into the store, and from there to where the output wants it."""
    streams = output.type == "tar" and output.dest == STREAM
    choice = _choice(output)

    async def write(client: Client, begin: StartRun) -> Sequence[str]:
        from blobflow.operations.airgap.export import export_folder, export_tar, read_into_store

        if output.type == "local":
            return await export_folder(
                client, source, choice, begin, Path(output.dest), devices=output.devices
            )
        if output.type == "tar":
            path = None if streams else Path(output.dest)
            await export_tar(client, source, choice, begin, path)
        else:
            await read_into_store(client, source, choice, begin)
        return ()

    async def work(client: Client, begin: StartRun) -> Sequence[str]:
        def may_miss(pairs: Sequence[Pair], notes: Sequence[str]) -> Flow:
            return begin([msgspec.structs.replace(p, missing_platform=missing) for p in pairs], notes)

        try:
            return await write(client, may_miss)
        except NoSuchPlatform:
            if missing == "fail":
                raise
            return ()  # the report says so

    hosts = Hosts(frozenset({source.host}), frozenset({local_host(OCI_ARCHIVE, STREAM)} if streams else ()))
    return run_command(work, hosts, connection, run, list_failures=False)
