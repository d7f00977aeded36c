"""`blobflow rewrite`: deployment files with their images replaced by those of a mirror."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.options.connection import ConnectionOptions, target_connection_options
from blobflow.cli.options.images import custom_resources_option
from blobflow.cli.options.option_group import OnceOption, show_first
from blobflow.cli.options.param_types import FILE, FOLDER
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import ignore_closed_pipe, print_lines, write_stdout
from blobflow.cli.output.units import count_text
from blobflow.cli.output.warnings import print_warnings
from blobflow.cli.verb import Verb
from blobflow.errors import RunIncomplete, UsageError

if TYPE_CHECKING:
    from blobflow.cli.inputs.mirror_place import PlaceOf
    from blobflow.cli.rewriting import Replaced
    from blobflow.deployment_files.contract import FoundImages, NamedImage
    from blobflow.deployment_files.rewritten_files import RewrittenFile

# What is said of files that could not just be replaced.
_MOVED = "left: {} was changed by somebody while it was rewritten, and stays as it is now; do it again"
_PARTED = "{} has further names (hard links), which keep what they had"


@click.command("rewrite", cls=Verb)
@show_first("mirror", "spec", "digest", "lock", "in_place", "output", "kustomize", "strict", "quiet")
@click.argument("files", type=click.Path(), metavar="FILE|DIR|-...", nargs=-1, required=True)
@click.option(
    "--to",
    "mirror",
    cls=OnceOption,
    instead="files name an image once",
    type=PLACE,
    metavar="HOST[/prefix]",
    help="The mirror: where `sync --to` brought them.",
)
@click.option(
    "--from",
    "source",
    type=PLACE,
    metavar="HOST[/prefix]",
    help="As sync had it: replace what is there alone.",
)
@click.option(
    "--spec", type=FILE, metavar="SPEC", help="Where the images are by a spec, with its renamed ones."
)
@click.option(
    "--digest",
    is_flag=True,
    help="Write digests beside the tags; those of the mirror now, unless --lock has them.",
)
@click.option("--lock", type=FILE, metavar="LOCK", help="Write the digests of this lock file.")
@click.option(
    "-i", "--in-place", is_flag=True, help="Replace the files themselves, each whole or not at all."
)
@click.option(
    "-o",
    "--output",
    cls=OnceOption,
    type=FOLDER,
    metavar="DIR",
    help="Write the files below DIR, named as in their folders.",
)
@click.option("--kustomize", is_flag=True, help="Print a Kustomize `images:` list instead.")
@custom_resources_option
@click.option("--strict", is_flag=True, help="Exit with 3 if a place is found whose image can't be told.")
@target_connection_options
def verb(
    files: tuple[str, ...],
    mirror: str | None,
    source: str | None,
    spec: Path | None,
    digest: bool,
    lock: Path | None,
    in_place: bool,
    output: Path | None,
    kustomize: bool,
    custom_resources: bool,
    strict: bool,
    connection: ConnectionOptions,
) -> None:
    """Print deployment files with their images replaced by their place in a mirror.

    All else stays as it is, byte for byte: comments, quotes, line ends. What is in the mirror already stays,
    so doing it twice changes nothing. What was made is read again before it is written, and has to name what
    it should. An image that can't be replaced is told on stderr, and the exit code is 3.

    \b
      blobflow rewrite deploy.yaml --to registry.example.com/mirror | kubectl apply -f -
      blobflow rewrite manifests/ --to registry.example.com/mirror --lock images.lock -o mirrored/
      blobflow rewrite manifests/ --spec mirror.yaml --kustomize
    """
    from blobflow.cli.rewriting import Rewriting
    from blobflow.cli.runtime.files import ended_like_interrupts

    _check_options(files, in_place=in_place, output=output, kustomize=kustomize)
    work = Rewriting(files, custom_resources, _places(mirror, source, spec))
    if lock is not None or digest:
        work.add_digests(lock, connection)
    warnings, moved = work.shared_places, 0
    if kustomize:
        made, left = work.kustomize()
        print_lines(*made)
    else:
        with ended_like_interrupts():
            rewritten = work.rewrite()
            replaced = _write(rewritten, files, in_place=in_place, output=output)
        rewritten = [file for file in rewritten if file not in replaced.moved]
        left = [each for file in rewritten for each in file.left]
        warnings += [_matched_sentence(each) for file in rewritten for each in file.matched]
        warnings += [_PARTED.format(file.path) for file in replaced.parted]
        if not connection.output.quiet:
            print_lines(_summary(rewritten), err=True)
        moved = len(replaced.moved)
        for file in replaced.moved:
            print_lines(_MOVED.format(file.path), err=True)
    _tell(work.found, files, connection, warnings, left)
    if moved:
        stay = "stays as it is" if moved == 1 else "stay as they are"
        raise RunIncomplete(f"{count_text(moved, 'file')} changed meanwhile, and {stay}")
    if strict and work.found.untold:
        raise RunIncomplete(f"{count_text(len(work.found.untold), 'place')} can't be told")


def _check_options(files: Sequence[str], *, in_place: bool, output: Path | None, kustomize: bool) -> None:
    from blobflow.cli.rewriting import stream_among

    if sum((in_place, output is not None, kustomize)) > 1:
        raise UsageError("--in-place, --output and --kustomize are three ways to get the result; choose one")
    if stream_among(files) and (in_place or output is not None):
        raise UsageError("what comes from stdin goes to stdout; leave --in-place and --output out")


def _places(mirror: str | None, source: str | None, spec: Path | None) -> PlaceOf:
    """Where images have their places. Raises UsageError for no mirror, or too much said of it."""
    from blobflow.cli.inputs.mirror_place import places_below, read_places
    from blobflow.cli.inputs.requests import parse_registry_prefix

    to = parse_registry_prefix(mirror) if mirror else None
    if spec is not None:
        if source:
            raise UsageError("--from goes with --to alone; a spec says itself where its images come from")
        return read_places(spec, to)
    if to is None:
        raise UsageError("say where the images are now: --to HOST[/prefix], or --spec SPEC")
    return places_below(to, parse_registry_prefix(source) if source else None)


def _write(
    rewritten: Sequence[RewrittenFile], files: Sequence[str], *, in_place: bool, output: Path | None
) -> Replaced:
    from blobflow.cli.rewriting import Replaced, joined, write_below, write_in_place

    if in_place:
        return write_in_place(rewritten)
    if output is not None:
        write_below(output, rewritten, files)
    elif rewritten:
        with ignore_closed_pipe():
            write_stdout(joined(rewritten), nl=False)
    return Replaced()


def _summary(rewritten: Sequence[RewrittenFile]) -> str:
    replaced, changed = sum(file.replaced for file in rewritten), sum(file.changed for file in rewritten)
    return f"{count_text(replaced, 'image')} replaced in {changed} of {count_text(len(rewritten), 'file')}"


def _matched_sentence(matched: tuple[NamedImage, str]) -> str:
    image, by = matched
    return f"{image.path} line {image.line}: {image.written} stays: {by} replaces images of that name"


def _tell(
    found: FoundImages,
    files: Sequence[str],
    connection: ConnectionOptions,
    matched: Sequence[str],
    left: Sequence[tuple[NamedImage, str]],
) -> None:
    """Say what stays as it is. Raises RunIncomplete where an image does that should not."""
    from blobflow.cli.inputs.collected import passed_over, untold_sentence

    untold = map(untold_sentence, found.untold)
    print_warnings([*passed_over(found, files), *matched, *untold], connection.output)
    for image, why in left:
        print_lines(f"left: {image.path} line {image.line}: {image.written} {why}", err=True)
    if left:
        raise RunIncomplete(f"{len(left)} of {count_text(len(found.images), 'image')} stay as they are")
