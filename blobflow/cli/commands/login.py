"""`blobflow login`: try a login, and keep it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions, connection_options_without_logins
from blobflow.cli.options.places import PLACE
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.settings import Hosts, connection_settings
from blobflow.cli.verb import Verb
from blobflow.errors import UsageError
from blobflow.oci.reference import check_host

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.transports.registry.auth.credentials import Credentials


@click.command("login", cls=Verb)
@click.argument("host", type=PLACE, metavar="HOST")
@click.option("-u", "--username", metavar="NAME", help="Who to log in as; asked for if not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin, not from the terminal.")
@connection_options_without_logins
def verb(host: str, username: str | None, password_stdin: bool, connection: ConnectionOptions) -> None:
    """Try a login at a registry, and keep it where docker and this program find it.

    That is docker's config.json (DOCKER_CONFIG), or the file that --authfile or REGISTRY_AUTH_FILE names; or
    the credential helper that the file names for the host. For a token, give it as the password.

    \b
      blobflow login registry.example.com
      pass show registry | blobflow login registry.example.com -u joe --password-stdin
    """
    from blobflow.cli.options.credentials import prompt, read_password
    from blobflow.environment import login_file
    from blobflow.transports.registry.auth.credentials import Credentials

    host = check_host(host)
    file = login_file(os.environ, connection.authfile)
    name = username or prompt("Username", hidden=False, instead="--username")
    if ":" in name:
        raise UsageError(f"{name!r} is no user name: a login can't have a colon in it")
    if password_stdin:
        password = read_password()
    else:
        password = prompt("Password", hidden=True, instead="--password-stdin")
    login = Credentials(name, password)
    # The file that is to hold the login need not be there yet.
    environ = {name: value for name, value in os.environ.items() if name != "REGISTRY_AUTH_FILE"}
    settings = connection_settings(msgspec.structs.replace(connection, authfile=None), environ, Hosts())
    print_lines(run_one_shot(settings, connection.output, lambda client: _log_in(client, host, login, file)))


async def _log_in(client: Client, host: str, login: Credentials, file: Path) -> str:
    """Try the login and keep it; returns the sentence to end with."""
    from blobflow.transports.registry.auth.credential_store import store_login

    wanted = await client.login(host, login)
    where = await store_login(file, host, login)
    kept = f"kept in {where}" + (", not encrypted" if where == str(file) else "")
    if not wanted:
        return f"{host} lets anybody in, so the login was not tried; {kept}"
    return f"logged in to {host} as {login.username}; {kept}"
