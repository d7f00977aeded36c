"""`blobflow serve`: an embedded registry over a store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from blobflow.cli.options.connection import (
    ConnectionOptions,
    Seconds,
    byte_size,
    connection_options_without_logins,
)
from blobflow.cli.output.access_log import LogFormat, open_access_log
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.runtime.event_loop import raise_open_file_limit
from blobflow.cli.runtime.event_loop import run as run_loop
from blobflow.cli.runtime.reload import (
    HangupSignals,
    certificate_reloader,
    load_access_rules,
    load_logins,
    print_notice,
    reload_on_change,
)
from blobflow.errors import StorageError, UsageError
from blobflow.events import Event, Warned
from blobflow.oci.reference import is_loopback
from blobflow.variables import xdg_folder

if TYPE_CHECKING:
    from blobflow.content import SourceAt
    from blobflow.server.admin.file_reload import Reloadable
    from blobflow.server.http.public_url import Addressing
    from blobflow.server.registry import SparsePolicy
    from blobflow.transports.store import Store

_LISTEN = "127.0.0.1:5000"
# Seconds that requests under way have after SIGTERM; container platforms kill after 30.
_GRACE = 10.0
_TTL = 60.0
_UPLOAD_TTL = 3600.0
# Seconds that an upstream's wish for fewer requests is waited for; one that wants more is left alone, and
# clients are told.
_UPSTREAM_WAIT = 2.0

_FILE = click.Path(path_type=Path, dir_okay=False)
# `--trust-proxy` without addresses.
_ANY_PROXY: Final = "any"


class ServeOptions(msgspec.Struct, frozen=True):
    """What was asked for, beyond where to listen."""

    htpasswd: Path | None
    access: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    anonymous: bool
    read_only: bool
    max_blob_size: int | None
    upload_ttl: float
    sparse: SparsePolicy
    upstream: tuple[str, ...]
    upstream_ttl: float
    max_size: int | None
    grace: float
    access_log: LogFormat | None
    access_log_file: Path | None
    public_url: str | None
    trust_proxy: str | None
    connection: ConnectionOptions


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
@click.option(
    "--access",
    type=_FILE,
    metavar="FILE",
    help="Who may pull, push and delete what (TOML; see `blobflow help access`).",
)
@click.option("--tls-cert", type=_FILE, metavar="FILE", help="Serve https: the certificate with its chain.")
@click.option("--tls-key", type=_FILE, metavar="FILE", help="The certificate's key, if it is not beside it.")
@click.option(
    "--anonymous",
    "--allow-remote",
    is_flag=True,
    help="Without --htpasswd, listen beyond loopback all the same: anybody there comes in.",
)
@click.option(
    "--read-only",
    is_flag=True,
    help="Pull only: what would change something is refused. Without --upstream nothing is written into the "
    "store, which may be on a read-only file system.",
)
@click.option(
    "--max-blob-size",
    type=byte_size,
    metavar="BYTES",
    help="Refuse larger blobs, as 20GB. [default: none is]",
)
@click.option(
    "--upload-ttl",
    type=Seconds(min=1),
    default=_UPLOAD_TTL,
    show_default=True,
    metavar="SECONDS",
    help="How long an unfinished upload is kept without a byte, also of a process that died.",
)
@click.option(
    "--sparse",
    type=click.Choice(("accept", "indexes", "refuse")),
    default="indexes",
    show_default=True,
    help="Which manifests are taken while something that they name is not here: all, indexes, or none.",
)
@click.option(
    "--upstream",
    multiple=True,
    metavar="HOST[=PREFIX]",
    help="Pull through: what is not here is fetched from HOST, and kept. With PREFIX its repositories are "
    "under PREFIX/. Repeatable.",
)
@click.option(
    "--upstream-ttl",
    type=Seconds(min=0),
    default=_TTL,
    show_default=True,
    metavar="SECONDS",
    help="How long a tag is taken for what its upstream said last.",
)
@click.option(
    "--max-size",
    type=byte_size,
    metavar="BYTES",
    help="What the store may hold, as 20GB: beyond that, what was pulled through and not asked for longest "
    "goes. It is looked at every ten minutes, and what came in the last hour stays.",
)
@click.option(
    "--access-log",
    type=click.Choice(("brief", "common", "combined", "json")),
    help="Log each request: in a form of our own (as -v does), or as httpd does, or as JSON lines.",
)
@click.option(
    "--access-log-file", type=_FILE, metavar="FILE", help="Append the access log to FILE. [default: stderr]"
)
@click.option(
    "--public-url",
    metavar="URL",
    help="How clients reach it, as https://registry.example/mirror: answers then name whole URLs.",
)
@click.option(
    "--trust-proxy",
    is_flag=False,
    flag_value=_ANY_PROXY,
    metavar="[ADDRESS,...]",
    help="Believe what a reverse proxy at these addresses or networks says of clients and how they come "
    "(Forwarded, or X-Forwarded-Proto, -Host, -Prefix, -For). Without any address: whoever connects.",
)
@click.option(
    "--grace",
    type=Seconds(min=0),
    default=_GRACE,
    show_default=True,
    metavar="SECONDS",
    help="How long requests under way may still take after SIGTERM or Ctrl-C. A second one ends them "
    "at once.",
)
@connection_options_without_logins
def verb(
    listen: str,
    root: Path | None,
    htpasswd: Path | None,
    access: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    anonymous: bool,
    read_only: bool,
    max_blob_size: int | None,
    upload_ttl: float,
    sparse: SparsePolicy,
    upstream: tuple[str, ...],
    upstream_ttl: float,
    max_size: int | None,
    access_log: LogFormat | None,
    access_log_file: Path | None,
    public_url: str | None,
    trust_proxy: str | None,
    grace: float,
    connection: ConnectionOptions,
) -> None:
    """Run a registry (OCI distribution-spec 1.1) until Ctrl-C or SIGTERM.

    On loopback anybody comes in, over plain HTTP. Beyond it, it wants logins (--htpasswd, and --tls-cert so
    that nobody reads them on the way), or to be told that it needs none (--anonymous).

    / is a page for people, /metrics is for Prometheus, and /healthz answers 200 without a login. Changes
    of the --htpasswd and --access files take effect within seconds; SIGHUP also reads the certificate again.
    The options on how hosts are reached (--ca, --plain-http and so on) are about upstreams.

    \b
      blobflow serve --upstream docker.io --upstream quay.io=quay
    """
    host, port = parse_listen_address(listen)
    wish = ServeOptions(
        htpasswd=htpasswd,
        access=access,
        tls_cert=tls_cert,
        tls_key=tls_key,
        anonymous=anonymous,
        read_only=read_only,
        max_blob_size=max_blob_size,
        upload_ttl=upload_ttl,
        sparse=sparse,
        upstream=upstream,
        upstream_ttl=upstream_ttl,
        max_size=max_size,
        grace=grace,
        access_log=access_log or ("brief" if connection.output.verbose else None),
        access_log_file=access_log_file,
        public_url=public_url,
        trust_proxy=trust_proxy,
        connection=connection,
    )
    with HangupSignals().caught() as hangups:
        _check_options(listen, wish)
        raise_open_file_limit()
        run_loop(_serve(host, port, root or _default_root(), wish, hangups))


def _check_options(listen: str, wish: ServeOptions) -> None:
    """Raise UsageError for what nobody can mean; warn of logins that would cross a network in the clear."""
    if wish.tls_key and not wish.tls_cert:
        raise UsageError("--tls-key goes with --tls-cert; name the certificate too")
    if wish.max_size is not None and not wish.upstream:
        raise UsageError("--max-size is for what is pulled through; say from where with --upstream")
    if is_loopback(listen):
        return
    if not (wish.htpasswd or wish.anonymous):
        raise UsageError(
            f"on {listen} anyone who reaches this machine could {'read' if wish.read_only else 'change'} the "
            f"registry; listen on {_LISTEN}, ask for logins with --htpasswd FILE, or say --anonymous"
        )
    if wish.htpasswd and not wish.tls_cert:
        print_lines("warning: without --tls-cert logins cross the network in the clear", err=True)


async def _serve(host: str, port: int, root: Path, wish: ServeOptions, hangups: HangupSignals) -> None:
    """Serve until cancelled, which is how serving ends well."""
    from blobflow.server import Certificate, PullThroughCache, Server, Upstreams, make_app, parse_upstream
    from blobflow.server.pullthrough.eviction import evict_periodically

    addressing = _parse_addressing(wish)
    upstreams = Upstreams([parse_upstream(text) for text in wish.upstream])
    logins, access, certificate = None, None, None
    files: list[Reloadable] = []
    if wish.htpasswd:
        logins, file = load_logins(wish.htpasswd)
        files.append(file)
    if wish.access:
        access, file = load_access_rules(wish.access, lambda: logins.names if logins else frozenset())
        files.append(file)
    if wish.tls_cert:
        certificate = Certificate(wish.tls_cert, wish.tls_key)
        files.append(certificate_reloader(certificate))
    async with AsyncExitStack() as stack:
        observe = stack.enter_context(open_access_log(wish.access_log, wish.access_log_file))
        sources = await stack.enter_async_context(_open_upstreams(wish)) if wish.upstream else None
        # Where something is pulled through, pull only is for clients: the store takes what upstreams have.
        untouched = wish.read_only and not wish.upstream
        store = stack.enter_context(closing(_open_store(root, untouched)))
        app = make_app(
            store,
            read_only=wish.read_only,
            max_blob_size=wish.max_blob_size,
            upload_ttl=wish.upload_ttl,
            sparse=wish.sparse,
            logins=logins,
            access=access,
            pullthrough=PullThroughCache(store, upstreams, sources, ttl=wish.upstream_ttl)
            if sources
            else None,
            addressing=addressing,
            observe=observe,
        )
        allowed = wish.anonymous or logins is not None
        tls = certificate.context if certificate else None
        server = Server(
            app,
            host=host,
            port=port,
            allow_remote=allowed,
            tls=tls,
            grace=wish.grace,
            observer=_print_warning,
        )
        async with reload_on_change(files, hangups), server:
            print_lines(f"blobflow registry at {server.url}, store {root}")
            try:
                if wish.max_size is not None:
                    await evict_periodically(store, upstreams, wish.max_size)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print_lines("stopping", err=True)


def _parse_addressing(wish: ServeOptions) -> Addressing:
    """Raises InvalidConfig."""
    from blobflow.server.http.public_url import EVERYBODY, Addressing, parse_networks, parse_public_url

    public = parse_public_url(wish.public_url) if wish.public_url is not None else None
    match wish.trust_proxy:
        case None:
            return Addressing(public)
        case "any":
            return Addressing(public, EVERYBODY)
        case listed:
            return Addressing(public, parse_networks(listed))


def _open_store(root: Path, read_only: bool) -> Store:
    """Raises StorageError."""
    from blobflow.transports.store import Store

    try:
        return Store.open(root, read_only=read_only, observer=_print_warning)
    except StorageError as error:
        if read_only or "read-only" not in error.message:
            raise
        raise StorageError(f"{error.message}, or serve it as it is with --read-only") from None


@asynccontextmanager
async def _open_upstreams(wish: ServeOptions) -> AsyncIterator[SourceAt]:
    """Where upstreams' repositories are read."""
    from blobflow import __version__
    from blobflow.cli.options.connection import Hosts
    from blobflow.cli.settings import connection_settings
    from blobflow.settings import host_access, logins_of
    from blobflow.transports.registry import Registries

    settings = connection_settings(wish.connection, os.environ, Hosts())
    logins = logins_of(settings)
    registries = Registries(
        lambda host: host_access(host, settings, logins),
        observer=_print_warning,
        user_agent=f"blobflow/{__version__}",
        longest_wait=_UPSTREAM_WAIT,
    )
    try:
        yield registries.source
    finally:
        await registries.close()


def _print_warning(event: Event) -> None:
    """Say on stderr what the operator should know of the store and of upstreams."""
    if isinstance(event, Warned):
        print_notice(event.message)


def parse_listen_address(text: str) -> tuple[str, int]:
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
