"""`blobflow images`: which images deployment files name, and what those names mean now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.exit_codes import error_of_set
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import COMMON, ConnectionOptions, source_connection_options
from blobflow.cli.options.images import custom_resources_option
from blobflow.cli.options.option_group import OnceOption, show_first
from blobflow.cli.options.platforms import missing_platform_option
from blobflow.cli.output.stdio import ignore_closed_pipe, print_lines
from blobflow.cli.output.units import count_text
from blobflow.cli.output.warnings import print_warnings
from blobflow.cli.runtime.files import check_writable, write_atomic
from blobflow.cli.settings import Hosts, run_settings
from blobflow.cli.verb import Verb
from blobflow.errors import NoSuchPlatform, RunIncomplete, UsageError
from blobflow.printable import printable

if TYPE_CHECKING:
    from blobflow.cli.inputs.lock_file import Lock
    from blobflow.deployment_files.contract import FoundImages
    from blobflow.engine.pairs import MissingPlatform
    from blobflow.oci.platform_choice import PlatformChoice
    from blobflow.operations.pins import Pins

# What other tools' --output takes.
_FORMATS = {"json": "--json", "lines": "--plain", "list": "--plain", "plain": "--plain", "yaml": "--lock"}


@click.command("images", cls=Verb)
@show_first("plain", "as_json", "lock", "output", "platform", "custom_resources", "strict", *COMMON)
@click.argument("files", type=click.Path(), metavar="FILE|DIR|-...", nargs=-1, required=True)
@click.option("--plain", is_flag=True, help="Print the names alone, one a line.")
@click.option("--json", "as_json", is_flag=True, help="Print all that was found as JSON.")
@click.option(
    "--lock",
    is_flag=True,
    help="Ask registries what the names mean now, and print a lock file: digests, platforms, sizes.",
)
@click.option(
    "-o",
    "--output",
    cls=OnceOption,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE.",
)
@click.option(
    "--platform",
    multiple=True,
    metavar="PLATFORM",
    help="With --lock, what of each image is counted, and brought later: os/architecture[/variant], `system` "
    "or `all` (the default); several by commas or by repeating.",
)
@missing_platform_option
@custom_resources_option
@click.option("--strict", is_flag=True, help="Exit with 3 if a place is found whose image can't be told.")
@source_connection_options
def verb(
    files: tuple[str, ...],
    plain: bool,
    as_json: bool,
    lock: bool,
    output: Path | None,
    platform: tuple[str, ...],
    missing_platform: MissingPlatform | None,
    custom_resources: bool,
    strict: bool,
    connection: ConnectionOptions,
) -> None:
    """List the images that deployment files name, each once, with file and line.

    Kubernetes manifests, Helm's values and output, Kustomize, Compose, GitLab CI, GitHub Actions,
    Dockerfiles, Ansible, Jinja, Nomad, Terraform and plain lists are read, and folders of them. Names are
    whole: docker.io, library/ and :latest are put in, digests stay. What can't be told, as templates and
    variables, is listed as such on stderr, and never guessed. `sync`, `plan` and `save` take the same by
    --images-from.

    \b
      blobflow images manifests/
      helm template chart/ | blobflow images -
      blobflow images manifests/ --lock -o images.lock
    """
    from blobflow.cli.inputs.collected import collect
    from blobflow.cli.inputs.lock_file import lock_lines
    from blobflow.cli.output.found_text import by_name, found_document, found_lines

    _check_options(plain=plain, as_json=as_json, lock=lock, output=output, platform=platform)
    choice = _choice(platform)
    collected = collect(files, custom_resources=custom_resources)
    found = collected.found
    pins = _pin(found, choice, connection) if lock else None
    if pins is None or pins.by_name or not found.images:
        if as_json:
            document = found_document(found, pins.by_name if pins else None)
            written = json.dumps(document, indent=2).splitlines()
        elif pins is not None:
            written = lock_lines(_lock(found, pins, choice))
        else:
            written = [str(name) for name in by_name(found.images)] if plain else found_lines(found)
        _write(written, output)
    none = () if found.images or collected.warnings else ("no image is named there",)
    print_warnings([*collected.warnings, *none], connection.output)
    if pins is not None:
        _check_pins(pins, missing_platform)
    if strict and found.untold:
        raise RunIncomplete(f"{count_text(len(found.untold), 'place')} can't be told")


def _check_options(
    *, plain: bool, as_json: bool, lock: bool, output: Path | None, platform: tuple[str, ...]
) -> None:
    if plain and (as_json or lock):
        raise UsageError("--plain prints names alone; leave it, or --json and --lock, out")
    if platform and not lock:
        raise UsageError("--platform says what --lock counts; give that, too")
    if output is None:
        return
    if instead := _FORMATS.get(str(output)):
        raise UsageError(f"--output names a file; {instead} prints what other tools call {output}")
    check_writable(output, "--output")


def _choice(platform: tuple[str, ...]) -> PlatformChoice:
    from blobflow.cli.inputs.platforms import parse_platforms
    from blobflow.oci.platform_choice import PlatformChoice

    words = [word for text in platform for word in text.split(",")]
    return PlatformChoice(parse_platforms(words) if words else ())


def _pin(found: FoundImages, choice: PlatformChoice, connection: ConnectionOptions) -> Pins:
    """What all the names mean now."""
    from blobflow.operations.pins import Pins, pin_images

    names = {image.reference for image in found.images}
    if not names:
        return Pins({}, {})
    settings = run_settings(connection, hosts=Hosts(sources=frozenset(name.host for name in names)))
    return run_one_shot(settings, connection.output, lambda client: pin_images(client, names, choice))


def _lock(found: FoundImages, pins: Pins, choice: PlatformChoice) -> Lock:
    from blobflow.cli.inputs.lock_file import LockedImage, make_lock
    from blobflow.cli.output.found_text import by_name, place_text

    at = {name: tuple(dict.fromkeys(map(place_text, each))) for name, each in by_name(found.images).items()}
    images = [
        LockedImage(str(name), pin.digest, pin.platforms, pin.size, at[name])
        for name, pin in pins.by_name.items()
    ]
    return make_lock(images, map(str, choice.platforms))


def _write(lines: Sequence[str], output: Path | None) -> None:
    """Write the result to stdout, or to a file, whole or not at all."""
    if output is not None:
        write_atomic(output, "".join(f"{printable(line)}\n" for line in lines).encode())
    elif lines:
        with ignore_closed_pipe():
            print_lines(*lines)


def _check_pins(pins: Pins, missing_platform: MissingPlatform | None) -> None:
    """Say which images are not in the lock file, and why. Raises RunIncomplete where some failed, or all are
    for other platforms."""
    skipped = {
        name: error
        for name, error in pins.failures.items()
        if isinstance(error, NoSuchPlatform) and missing_platform != "fail"
    }
    failed = {name: error for name, error in pins.failures.items() if name not in skipped}
    for name, error in pins.failures.items():
        word = "skipped" if name in skipped else "failed"
        print_lines(f"{word}: {name}: {error}", err=True)
    images = len(pins.by_name) + len(pins.failures)
    if failed:
        sentence = f"{len(failed)} of {count_text(images, 'image')} could not be locked"
        raise error_of_set(failed.values(), images, sentence)
    if skipped and missing_platform is None:
        from blobflow.cli.run_command import check_not_all_skipped

        check_not_all_skipped(len(skipped), images)
