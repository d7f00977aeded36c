"""`blobflow probe`: what a registry takes, found by trying, as a profile for the configuration file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.byte_size import parse_size
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, target_connection_options
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.runtime.files import read_text, write_atomic
from blobflow.cli.settings import Hosts, connection_settings
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError
from blobflow.oci.reference import check_host, check_repository

if TYPE_CHECKING:
    from blobflow.transports.registry.probe.questions import ProbeResult

_REPOSITORY = "blobflow-probe"
# The smallest chunk that is tried is a 64th of the largest.
_MIN_SIZE = 1024


@click.command("probe", cls=Verb)
@click.argument("place", type=PLACE, metavar="HOST[/REPOSITORY]")
@click.option(
    "--up-to",
    default="32MiB",
    metavar="SIZE",
    show_default=True,
    help="The largest request to try; some times as much is sent in all.",
)
@click.option(
    "--save", is_flag=True, help="Keep it in the configuration file, in place of what that said before."
)
@target_connection_options
def verb(place: str, up_to: str, save: bool, connection: ConnectionOptions) -> None:
    """Find out what a registry takes, by trying, and print a profile for the configuration file, or save it.

    Blobs and manifests without meaning are pushed to REPOSITORY (blobflow-probe) and REPOSITORY-mounts, and
    deleted as far as the registry allows; what is left is told on standard error.

    \b
      blobflow probe registry.example.com/scratch
      blobflow probe registry.example.com/scratch --save
    """
    host, _, repository = place.partition("/")
    host, repository = check_host(host), check_repository(repository or _REPOSITORY)
    try:
        largest = parse_size(up_to)
    except ValueError as error:
        raise UsageError(f"--up-to: {error}") from None
    if largest < _MIN_SIZE:
        raise UsageError(f"--up-to: {up_to} shows nothing; give at least {_MIN_SIZE} bytes")
    file = _config_file(connection.config) if save else None
    if file is not None and connection.config is not None and not file.exists():
        connection = msgspec.structs.replace(connection, config=Path(os.devnull))  # as one that says nothing
    settings = connection_settings(connection, os.environ, Hosts(targets=frozenset({host})))
    found = run_one_shot(
        settings, connection.output, lambda client: client.probe(host, repository, largest=largest)
    )
    if file is None:
        write_stdout(profile_toml(host, found), nl=False)
    else:
        _save(file, host, found)
        print_lines(f"the profile of {host} is kept in {file}")
    for left in found.left:
        print_lines(f"blobflow: {host} would not delete {left}", err=True)


def _config_file(named: Path | None) -> Path:
    """The configuration file, which need not be there. Raises UsageError without a home; InvalidConfig for
    one that can't be read, before anything is asked."""
    from blobflow.config_file import read_config
    from blobflow.variables import xdg_folder

    folder = xdg_folder(os.environ, "XDG_CONFIG_HOME", ".config")
    if named is None and folder is None:
        raise UsageError("there is no home for a configuration file; say which one with --config FILE")
    file = named or (folder or Path()) / "blobflow" / "config.toml"
    if named is None and file.exists():
        read_config(file)
    return file


def _save(file: Path, host: str, found: ProbeResult) -> None:
    """Put the profile into the file: whole or not at all, and as readable as it was. Raises StorageError."""
    from blobflow.cli.inputs.config_text import with_profile
    from blobflow.transports.files import translate_os_errors

    file = file.resolve()  # a link stays one
    text, mode = "", 0o644
    if file.exists():
        text, mode = read_text(file), file.stat().st_mode & 0o777
    body = profile_toml(host, found).partition("\n")[2]
    with translate_os_errors("write", file):
        file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, with_profile(text, str(file), host, body).encode(), mode=mode)


def profile_toml(host: str, found: ProbeResult) -> str:
    """The findings as a table of the configuration file, without what was not found out; what no profile
    holds, as comments."""
    from blobflow.transports.registry.probe.questions import FIELDS_OF_METHOD

    rungs = found.profile.rungs
    lines = [f"[registry.{json.dumps(host)}.profile]"]
    for name, value in msgspec.to_builtins(found.profile).items():
        if name in ("tags_with_digest", "mounts_need_manifest") and not value:
            continue  # as it is where nothing is said; few registries are so
        if name not in found.unproved and FIELDS_OF_METHOD.get(name, rungs[0]) in rungs:
            # Text, numbers, truth values and lists of text are the same in TOML as in JSON.
            lines.append(f"{name} = {json.dumps(value)}")
    lines += [f"# {question}: {'yes' if answer else 'no'}" for question, answer in found.facts.items()]
    return "\n".join(lines) + "\n"
