"""`blobflow logout`: drop a login that was kept."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import click

from blobflow.cli.options.param_types import FILE
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.verb import Verb
from blobflow.oci.reference import check_host


@click.command("logout", cls=Verb)
@click.argument("host", type=PLACE, metavar="HOST")
@click.option("--authfile", type=FILE, metavar="FILE", help="Where the login is kept, in docker's format.")
def verb(host: str, authfile: Path | None) -> None:
    """Drop the login that is kept for a registry, from the file and its credential helper.

    Those in other files, and for a part of the registry, stay, and are told.
    """
    from blobflow.environment import login_file, login_files
    from blobflow.errors import InvalidConfig
    from blobflow.transports.registry.auth.credential_store import erase_login, logins_in

    host, file = check_host(host), login_file(os.environ, authfile)
    known = asyncio.run(erase_login(file, host))
    print_lines(f"logged out of {host}" if known else f"{file} has no login for {host}")
    for other in login_files(os.environ, authfile):
        with suppress(InvalidConfig):  # one that can't be used is no login
            for key in logins_in(other, host):
                print_lines(f"warning: {other} still has a login for {key}", err=True)
