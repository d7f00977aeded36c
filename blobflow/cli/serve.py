"""`blobflow serve`: an embedded registry over a store."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blobflow.cli.figures import one_line, seconds_text
from blobflow.cli.options import xdg_folder
from blobflow.cli.running import run as run_loop
from blobflow.errors import UsageError
from blobflow.events import Event, Warned
from blobflow.oci.reference import is_loopback

if TYPE_CHECKING:
    from blobflow.server import Access

_LISTEN = "127.0.0.1:5000"


@click.command("serve")
@click.option("--listen", default=_LISTEN, metavar="HOST:PORT", show_default=True, help="Port 0: a free one.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The store's folder; made if it is not there. Default: blobflow/registry under XDG_DATA_HOME.",
)
@click.option("--allow-remote", is_flag=True, help="Listen beyond loopback: anyone there can change it all.")
@click.option("-v", "--verbose", is_flag=True, help="Log each request on stderr.")
def verb(listen: str, root: Path | None, allow_remote: bool, verbose: bool) -> None:
    """Run a registry (OCI distribution-spec 1.1) until Ctrl-C or SIGTERM, over plain HTTP."""
    host, port = parse_listen(listen)
    if not (allow_remote or is_loopback(listen)):
        raise UsageError(
            f"on {listen} anyone who reaches this machine could change the registry; "
            f"listen on {_LISTEN}, or say --allow-remote"
        )
    run_loop(_served(host, port, root or _default_root(), allow_remote=allow_remote, verbose=verbose))


async def _served(host: str, port: int, root: Path, *, allow_remote: bool, verbose: bool) -> None:
    """Serve until cancelled, which is how serving ends well."""
    from blobflow.server import Server, make_app
    from blobflow.transports.store import Store

    with closing(Store.open(root, observer=_warn)) as store:
        app = make_app(store, observe=_log if verbose else None)
        async with Server(app, host=host, port=port, allow_remote=allow_remote) as server:
            click.echo(f"blobflow registry at {server.url}, store {root}")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                click.echo("stopping", err=True)


def _warn(event: Event) -> None:
    """Say on stderr what the operator should know of the store."""
    if isinstance(event, Warned):
        click.echo(one_line(f"blobflow: {event.message}"), err=True)


def _log(access: Access) -> None:
    target = f"{access.path}?{access.query}" if access.query else access.path
    click.echo(
        one_line(
            f"{access.remote} {access.method} {target} {access.status} in={access.received} "
            f"out={access.sent} {seconds_text(access.seconds)} {access.user_agent}"
        ),
        err=True,
    )


def parse_listen(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`; IPv6 in brackets, no host is every address. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"--listen {text!r}: write HOST:PORT, as {_LISTEN} or [::1]:5000")
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare and bare == host:
        raise UsageError(f"--listen {text!r}: write an IPv6 address in brackets, as [::1]:5000")
    return bare or "0.0.0.0", int(port)


def _default_root() -> Path:
    folder = xdg_folder(os.environ, "XDG_DATA_HOME", ".local/share")
    if folder is None:
        raise UsageError("there is no home folder; say where the store is with --root DIR")
    return folder / "blobflow" / "registry"
