"""`blobflow push`: files as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.options.artifact import ArtifactOptions, artifact_options
from blobflow.cli.options.connection import LOGINS, ConnectionOptions, target_connection_options
from blobflow.cli.options.option_group import show_first
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import RunOptions, cache_dir_option, concurrency_option
from blobflow.cli.put_artifact import put_artifact
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError
from blobflow.oci import parse_reference

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.operations.artifacts.push import PushedArtifact


@click.command("push", cls=Verb)
@show_first("artifact_type", "annotations", "no_overwrite", "as_json", *LOGINS, "quiet", "verbose")
@click.argument("reference", type=PLACE, metavar="REF")
@click.argument("files", metavar="FILE[:TYPE]...", nargs=-1)
@artifact_options
@click.option("--no-overwrite", is_flag=True, help="A tag that names another digest is an error.")
@click.option("--json", "as_json", is_flag=True, help="Print what was put as JSON.")
@concurrency_option
@cache_dir_option
@target_connection_options
def verb(
    reference: str,
    files: tuple[str, ...],
    artifact: ArtifactOptions,
    no_overwrite: bool,
    as_json: bool,
    concurrency: int | None,
    cache_dir: Path | None,
    connection: ConnectionOptions,
) -> None:
    """Put files as an artifact under a tag of a registry, layout or oci-archive, as `oras push` does.

    A file keeps its path as its name, or its last part where that leads out of this folder; a folder is
    packed, the same files always to the same bytes. TYPE is a media type.

    \b
      blobflow push HOST/app/docs:1 manual.pdf:application/pdf
      blobflow push HOST/app/charts:1 charts --artifact-type application/vnd.example
    """
    from blobflow.engine.policy import Policy
    from blobflow.oci.artifact import check_media_type
    from blobflow.operations.artifacts.files import parse_file
    from blobflow.operations.artifacts.push import push_artifact

    target, notes, given = parse_reference(reference), artifact.notes(), [parse_file(text) for text in files]
    if artifact.artifact_type:
        check_media_type(artifact.artifact_type, "--artifact-type")
    if not given and not notes and not artifact.artifact_type:
        raise UsageError(
            "no file to push; an image goes from place to place by `blobflow copy`, as oci:DIR "
            f"{reference}, or out of `docker save` by `blobflow load FILE --to HOST`"
        )

    async def push(client: Client) -> PushedArtifact:
        return await push_artifact(
            client,
            target,
            given,
            artifact_type=artifact.artifact_type,
            annotations=notes,
            policy=Policy(no_overwrite=no_overwrite),
        )

    run = RunOptions(concurrency=concurrency, cache_dir=cache_dir)
    put_artifact(push, target, run, connection, as_json=as_json)
