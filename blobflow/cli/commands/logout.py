"""`blobflow logout`: drop a login that was kept."""

from __future__ import annotations

import asyncio
import os

import click

from blobflow.cli.output.stdio import print_lines
from blobflow.oci.reference import check_host


@click.command("logout")
@click.argument("host", metavar="HOST")
def verb(host: str) -> None:
    """Drop the login that is kept for a registry, from the file and its credential helper."""
    from blobflow.environment import login_file
    from blobflow.transports.registry.auth.credential_store import erase_login

    host, file = check_host(host), login_file(os.environ)
    known = asyncio.run(erase_login(file, host))
    print_lines(f"logged out of {host}" if known else f"{file} has no login for {host}")
