"""`blobflow config show|check|schema`: what holds on this machine and why, and whether a file says what it
should."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click
import msgspec

from blobflow.cli.options.param_types import FILE
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.output.units import table
from blobflow.cli.verb import Verb

_config_option = click.option(
    "--config",
    type=FILE,
    metavar="FILE",
    help="The configuration file. [default: blobflow/config.toml in XDG's configuration]",
)


@click.command("show", cls=Verb, short_help="Show what holds, and where each value comes from.")
@_config_option
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(config: Path | None, as_json: bool) -> None:
    """Show what holds for every verb that is given no options: each value, and whether it comes from the
    configuration file, the environment, or is the default. Passwords and tokens are left out.
    """
    from blobflow.cli.effective_settings import effective_settings

    found = effective_settings(os.environ, config)
    if as_json:
        write_stdout(json.dumps(msgspec.to_builtins(found), indent=2))
    else:
        print_lines(*table([(each.name, each.value, each.origin) for each in found]))


@click.command(
    "check", cls=Verb, short_help="Check a configuration file, or a spec: all errors, with their lines."
)
@click.argument("file", type=FILE, required=False)
@click.option(
    "--of",
    "kind",
    type=click.Choice(["config", "spec", "access"]),
    help="What FILE is. [default: a .toml is a configuration, anything else a spec]",
)
def check(file: Path | None, kind: str | None) -> None:
    """Check a file without asking any registry: the configuration (the one in use, if none is named), a spec
    (skopeo's and regsync's, too), or the rules of `serve --access`. Prints all errors, each with its line;
    exit code 2 if there is one.
    """
    from blobflow.cli.inputs.checked_files import check_file

    checked = check_file(file, kind, os.environ)
    print_lines(f"{checked.name}: {checked.summary}")


@click.command("schema", cls=Verb, short_help="Print the JSON schema of a file, for editors.")
@click.option(
    "--of",
    "kind",
    type=click.Choice(["config", "spec"]),
    default="config",
    show_default=True,
    help="Which file: the configuration, or a spec.",
)
def schema(kind: str) -> None:
    """Print the JSON schema of the configuration file or of a spec. Editors that know JSON schemas then offer
    keys, and mark mistakes; in a spec, tell them with the first line

    \b
      # yaml-language-server: $schema=blobflow-spec.json
    """
    if kind == "spec":
        from blobflow.cli.inputs.spec_keys import spec_schema

        write_stdout(json.dumps(spec_schema(), indent=2))
    else:
        from blobflow.config_file import config_schema

        write_stdout(json.dumps(config_schema(), indent=2))
