"""`blobflow serve`: an embedded registry over a store."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.figures import one_line, seconds_text
from blobflow.cli.options import size, xdg_folder
from blobflow.cli.running import run as run_loop
from blobflow.cli.selection import read_text
from blobflow.errors import UsageError
from blobflow.events import Event, Warned
from blobflow.oci.reference import is_loopback

if TYPE_CHECKING:
    from blobflow.server import Access
    from blobflow.server.state import Sparse

_LISTEN = "127.0.0.1:5000"


_FILE = click.Path(path_type=Path, dir_okay=False)


class _Wish(msgspec.Struct, frozen=True):
    """What was asked for, beyond where to listen."""

    htpasswd: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    anonymous: bool
    read_only: bool
    max_blob_size: int | None
    sparse: Sparse
    verbose: bool


@click.command("serve")
@click.option("--listen", default=_LISTEN, metavar="HOST:PORT", show_default=True, help="Port 0: a free one.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The store's folder; made if it is not there. Default: blobflow/registry under XDG_DATA_HOME.",
)
@click.option(
    "--htpasswd", type=_FILE, metavar="FILE", help="Only these logins come in (bcrypt: `htpasswd -B`)."
)
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="Serve https: the certificate with its chain.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="The certificate's key, if it is not beside it.")
@click.option(
    "--anonymous",
    "--allow-remote",
    is_flag=True,
    help="Without --htpasswd, listen beyond loopback all the same: anybody there comes in.",
)
@click.option("--read-only", is_flag=True, help="Pull only: what would change something is refused.")
@click.option(
    "--max-blob-size", type=size, metavar="BYTES", help="Refuse larger blobs, as 20GB. [default: none is]"
)
@click.option(
    "--sparse",
    type=click.Choice(("accept", "refuse")),
    default="accept",
    show_default=True,
    help="Indexes whose images are not all here.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log each request on stderr.")
def verb(
    listen: str,
    root: Path | None,
    htpasswd: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    anonymous: bool,
    read_only: bool,
    max_blob_size: int | None,
    sparse: Sparse,
    verbose: bool,
) -> None:
    """Run a registry (OCI distribution-spec 1.1) until Ctrl-C or SIGTERM.

    On loopback anybody comes in, over plain HTTP. Beyond it, it wants logins (--htpasswd, and --tls-cert so
    that nobody reads them on the way), or to be told that it needs none (--anonymous).
    """
    host, port = parse_listen(listen)
    wish = _Wish(htpasswd, tls_cert, tls_key, anonymous, read_only, max_blob_size, sparse, verbose)
    _check(listen, wish)
    run_loop(_served(host, port, root or _default_root(), wish))


def _check(listen: str, wish: _Wish) -> None:
    """Raise UsageError for what nobody can mean; warn of logins that would cross a network in the clear."""
    if wish.tls_key and not wish.tls_cert:
        raise UsageError("--tls-key goes with --tls-cert; name the certificate too")
    if is_loopback(listen):
        return
    if not (wish.htpasswd or wish.anonymous):
        raise UsageError(
            f"on {listen} anyone who reaches this machine could {'read' if wish.read_only else 'change'} the "
            f"registry; listen on {_LISTEN}, ask for logins with --htpasswd FILE, or say --anonymous"
        )
    if wish.htpasswd and not wish.tls_cert:
        click.echo("warning: without --tls-cert logins cross the network in the clear", err=True)


async def _served(host: str, port: int, root: Path, wish: _Wish) -> None:
    """Serve until cancelled, which is how serving ends well."""
    from blobflow.server import Logins, Server, make_app, parse_htpasswd, tls_context
    from blobflow.transports.store import Store

    users = parse_htpasswd(read_text(wish.htpasswd), str(wish.htpasswd)) if wish.htpasswd else None
    tls = tls_context(wish.tls_cert, wish.tls_key) if wish.tls_cert else None
    with closing(Store.open(root, observer=_warn)) as store:
        app = make_app(
            store,
            read_only=wish.read_only,
            max_blob_size=wish.max_blob_size,
            sparse=wish.sparse,
            logins=Logins(users) if users else None,
            observe=_log if wish.verbose else None,
        )
        allowed = wish.anonymous or users is not None
        async with Server(app, host=host, port=port, allow_remote=allowed, tls=tls) as server:
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
