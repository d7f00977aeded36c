"""`blobflow bundle`: what is in a bundle, whether all of it is sound, and whether all its parts are there."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.bundle import digests_option
from blobflow.cli.options.output import OutputOptions, local_output_options
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.verb import VerbFamily
from blobflow.errors import (
    BlobflowError,
    IntegrityError,
    NoSuchFile,
    StorageError,
    UnsupportedContent,
)

if TYPE_CHECKING:
    from blobflow.cli.inputs.bundle_files import Bundles
    from blobflow.client import Client
    from blobflow.oci import Digest
    from blobflow.operations.airgap.bundle import BundleContent, BundleFile

T = TypeVar("T")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
_files_argument = click.argument("files", metavar="FILE...", nargs=-1, required=True)


@click.group("bundle", cls=VerbFamily)
def verb() -> None:
    """Look into bundles that `save` wrote, and into any other archive that `load` takes.

    Several files count together, as for `load`: all parts of a bundle, or one that was saved --since another
    and that one. A part's name, or the bundle's without a number, stands for all its parts; - is standard
    input, for ls and verify.

    Exit codes: 2 something is missing, 7 it is no archive, 8 it is damaged.
    """


@verb.command("ls", short_help="List the images: platforms, sizes, parts.")
@_files_argument
@_json_option
@digests_option
@local_output_options
def ls(files: tuple[str, ...], as_json: bool, digests: Path | None, output: OutputOptions) -> None:
    """List the images: name, digest, platforms, and the size of all that belongs to each.

    Charts, files and other artifacts are listed with them. What several images share counts for each of
    them, and once in the sum. Layers are not read; `verify` does that.

    \b
      blobflow bundle ls bundle.tar
      blobflow bundle ls may.tar april.tar
    """
    from blobflow.cli.output.bundle_text import content_document, content_lines
    from blobflow.operations.airgap.bundle import read_bundle

    async def look(client: Client) -> tuple[Bundles, BundleContent]:
        bundles = await _open_bundles(client, files, digests)
        return bundles, await read_bundle(client, bundles.inputs)

    bundles, found = _run(look, files, output)
    if as_json:
        write_stdout(json.dumps(content_document(bundles.files, found), indent=2))
    else:
        print_lines(*content_lines(bundles.files, found))
    _raise_worst([*_problems(bundles, found, {})])


@verb.command("verify", short_help="Read and hash everything, and look for what is missing.")
@_files_argument
@digests_option
@local_output_options
def verify(files: tuple[str, ...], digests: Path | None, output: OutputOptions) -> None:
    """Read everything, and compare each layer, config and manifest with its digest and size.

    A line for each name of an image on stdout; with --quiet only those that are wrong. What belongs to no
    image is checked as well. With a bundle that was saved --since another, give that one, too.

    \b
      blobflow bundle verify bundle.tar
      blobflow bundle verify may.tar april.tar
    """
    from blobflow.cli.inputs.bundle_files import missing_parts_of
    from blobflow.cli.output.bundle_text import total_lines, verdict_lines
    from blobflow.operations.airgap.bundle import verify_bundle

    async def look(client: Client) -> tuple[Bundles, BundleContent, Mapping[Digest, BlobflowError]]:
        bundles = await _open_bundles(client, files, digests)
        return bundles, *await verify_bundle(client, bundles.inputs)

    bundles, found, damaged = _run(look, files, output)
    incomplete = any(missing_parts_of(bundles.files, found.named))
    lines = [*verdict_lines(found, damaged, quiet=output.quiet, incomplete=incomplete)]
    lines += [] if output.quiet else total_lines(bundles.files, found)
    if lines:
        print_lines(*lines)
    _raise_worst([*_problems(bundles, found, damaged)])


@verb.command("parts", short_help="Say which parts exist, and which are missing.")
@_files_argument
@_json_option
@local_output_options
def parts(files: tuple[str, ...], as_json: bool, output: OutputOptions) -> None:
    """Say which files a bundle has, and which parts are missing, by name. Only their lists are read.

    The last part names the images: a bundle whose last part names none has lost that.

    \b
      blobflow bundle parts bundle.tar
      blobflow bundle parts bundle.002.tar
    """
    from blobflow.cli.inputs.bundle_files import find_bundles, missing_parts_of
    from blobflow.cli.output.bundle_text import parts_document, parts_lines
    from blobflow.operations.airgap.bundle import look_at_file

    bundles = find_bundles(files)

    async def look(client: Client) -> list[BundleFile]:
        return [await look_at_file(client, path) for bundle in bundles for path in bundle.there]

    found = _run(look, files, output)
    named = [file.images if file.error is None else None for file in found]
    if as_json:
        write_stdout(json.dumps(parts_document(bundles, found), indent=2))
    else:
        print_lines(*parts_lines(bundles, found))
    _raise_worst([*missing_parts_of(bundles, named), *(file.error for file in found if file.error)])


def _run(look: Callable[[Client], Awaitable[T]], files: Sequence[str], output: OutputOptions) -> T:
    """Nothing is moved, so bare layers of docker archives stay as they are, and no registry is asked."""
    from blobflow.settings import Settings

    try:
        return run_one_shot(Settings(compress="none"), output, look)
    except IntegrityError as error:  # of a compressed archive, which is verified as it is unpacked
        raise StorageError(f"{', '.join(files)}: damaged: {error.message}") from None


async def _open_bundles(client: Client, files: Sequence[str], digests: Path | None) -> Bundles:
    from blobflow.cli.inputs.bundle_files import open_bundles
    from blobflow.cli.inputs.digest_lists import check_digest_list

    bundles = await open_bundles(client, files)
    await check_digest_list(client, digests, bundles.inputs)
    return bundles


def _problems(
    bundles: Bundles, found: BundleContent, damaged: Mapping[Digest, BlobflowError]
) -> Iterator[BlobflowError]:
    from blobflow.cli.inputs.bundle_files import missing_parts_of
    from blobflow.cli.output.bundle_text import damage_text, missing_text

    label = ", ".join(str(each.path) for each in bundles.files)
    if damage := damage_text(found, damaged):
        yield StorageError(f"{label}: {damage}")
    yield from (image.error for image in found.images if isinstance(image.error, UnsupportedContent))
    yield from missing_parts_of(bundles.files, found.named)
    if missing := missing_text(found):
        yield NoSuchFile(f"{label}: {missing}")


def _raise_worst(problems: Sequence[BlobflowError]) -> None:
    """Raise what counts most: something is damaged, or else not ours, or else missing."""
    for kind in (StorageError, UnsupportedContent, NoSuchFile, BlobflowError):
        for error in problems:
            if isinstance(error, kind):
                raise error
