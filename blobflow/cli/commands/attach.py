"""`blobflow attach`: files as an artifact that refers to an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.inputs.platforms import parse_single
from blobflow.cli.options.artifact import ArtifactOptions, artifact_options
from blobflow.cli.options.connection import LOGINS, ConnectionOptions, target_connection_options
from blobflow.cli.options.option_group import show_first
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import RunOptions, cache_dir_option, concurrency_option
from blobflow.cli.options.single_platform import SinglePlatform, single_platform_option
from blobflow.cli.put_artifact import put_artifact
from blobflow.cli.verb import Verb
from blobflow.errors import BlobflowError, UsageError
from blobflow.oci import Reference, parse_reference

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.operations.artifacts.push import PushedArtifact


@click.command("attach", cls=Verb)
@show_first("artifact_type", "annotations", "platform", "as_json", *LOGINS, "quiet", "verbose")
@click.argument("reference", type=PLACE, metavar="REF")
@click.argument("files", metavar="FILE[:TYPE]...", nargs=-1)
@artifact_options
@single_platform_option
@click.option("--json", "as_json", is_flag=True, help="Print what was put as JSON.")
@concurrency_option
@cache_dir_option
@target_connection_options
def verb(
    reference: str,
    files: tuple[str, ...],
    artifact: ArtifactOptions,
    wanted: SinglePlatform,
    as_json: bool,
    concurrency: int | None,
    cache_dir: Path | None,
    connection: ConnectionOptions,
) -> None:
    """Put files as an artifact that refers to an image at a registry or in a layout, as `oras attach` does.

    It is found by `blobflow referrers`, and goes along wherever the image is mirrored. --artifact-type says
    what it is, and has to be given. Files are named as by `push`.

    \b
      blobflow attach HOST/app:1 sbom.json --artifact-type application/spdx+json
      blobflow attach HOST/app:1 --artifact-type application/vnd.example -a reviewed=yes
    """
    from blobflow.oci.artifact import check_media_type
    from blobflow.operations.artifacts.files import parse_file
    from blobflow.operations.artifacts.push import attach_artifact

    named, notes, given = parse_reference(reference), artifact.notes(), [parse_file(text) for text in files]
    platform = parse_single(wanted) if wanted.chooses else None
    if not artifact.artifact_type:
        raise UsageError("--artifact-type is missing: what is attached, as application/spdx+json")
    check_media_type(artifact.artifact_type, "--artifact-type")

    async def attach(client: Client) -> PushedArtifact:
        image = named
        if platform is not None:
            from blobflow.operations.single_image import image_digest

            try:
                digest = await image_digest(client, named, platform)
            except BlobflowError as error:
                error.side = "target"  # that it is read there does not make it a source
                raise
            image = Reference(named.host, named.repository, digest=digest)
        return await attach_artifact(
            client, image, given, artifact_type=artifact.artifact_type, annotations=notes
        )

    run = RunOptions(concurrency=concurrency, cache_dir=cache_dir)
    put_artifact(attach, named, run, connection, as_json=as_json)
