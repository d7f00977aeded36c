"""`blobflow pull`: an artifact's files into a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.inputs.platforms import parse_single
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import LOGINS, ConnectionOptions, source_connection_options
from blobflow.cli.options.option_group import OnceOption, show_first
from blobflow.cli.options.param_types import FOLDER
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import RunOptions, cache_dir_option, concurrency_option
from blobflow.cli.options.single_platform import SinglePlatform, single_platform_option
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.oci import Reference, parse_reference

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.operations.artifacts.pull import PulledArtifact


@click.command("pull", cls=Verb)
@show_first("folder", "overwrite", "platform", "as_json", *LOGINS, "quiet", "verbose")
@click.argument("reference", type=PLACE, metavar="REF")
@click.option(
    "-o",
    "--output",
    "folder",
    cls=OnceOption,
    type=FOLDER,
    default=".",
    metavar="DIR",
    help="Where to. [default: here]",
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there and differ.")
@single_platform_option
@click.option("--json", "as_json", is_flag=True, help="Print what came as JSON.")
@concurrency_option
@cache_dir_option
@source_connection_options
def verb(
    reference: str,
    folder: Path,
    overwrite: bool,
    wanted: SinglePlatform,
    as_json: bool,
    concurrency: int | None,
    cache_dir: Path | None,
    connection: ConnectionOptions,
) -> None:
    """Write the files of an artifact into a folder, verified, as `oras pull` does.

    Each goes where its layer's title says, never out of the folder nor through a link. Images have no files
    by name: `blobflow copy REF oci:DIR` keeps one, `docker-archive:FILE` is for `docker load`.

    \b
      blobflow pull HOST/app/docs:1 -o docs
    """
    from blobflow.cli.output.artifact_text import left_line, pulled_document, pulled_lines
    from blobflow.operations.artifacts.pull import pull_artifact

    named, platform = parse_reference(reference), parse_single(wanted) if wanted.chooses else None

    async def pull(client: Client) -> PulledArtifact:
        artifact = named
        if platform is not None:
            from blobflow.operations.single_image import image_digest

            digest = await image_digest(client, named, platform)
            artifact = Reference(named.host, named.repository, digest=digest)
        return await pull_artifact(client, artifact, folder, overwrite=overwrite)

    run = RunOptions(concurrency=concurrency, cache_dir=cache_dir)
    settings = run_settings(connection, run, Hosts(sources=frozenset({named.host})))
    pulled = run_one_shot(settings, connection.output, pull)
    if as_json:
        write_stdout(json.dumps(pulled_document(pulled), indent=2))
    elif not connection.output.quiet:
        print_lines(*pulled_lines(pulled))
    if left := left_line(pulled):
        print_lines(f"blobflow: {left}", err=True)
