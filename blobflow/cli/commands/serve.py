"""`blobflow serve`: an embedded registry over a store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from blobflow.cli.options.connection import ConnectionOptions, connection_options_without_logins
from blobflow.cli.options.option_group import show_first
from blobflow.cli.options.serve import LISTEN, ServeOptions, serve_options
from blobflow.cli.output.access_log import open_access_log
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.runtime.event_loop import raise_open_file_limit, run_loop
from blobflow.cli.runtime.listen_address import parse_listen_address
from blobflow.cli.runtime.reload import (
    HangupSignals,
    PolicyReloader,
    certificate_reloader,
    load_access_rules,
    load_logins,
    print_notice,
    reload_on_change,
)
from blobflow.cli.verb import Verb
from blobflow.errors import StorageError, UsageError
from blobflow.events import Event, Warned
from blobflow.oci.reference import is_loopback
from blobflow.variables import xdg_folder

if TYPE_CHECKING:
    from blobflow.cli.signature_policies import PolicyFiles
    from blobflow.content import SourceAt
    from blobflow.server import AccessRules, Certificate, Logins
    from blobflow.server.admin.file_reload import Reloadable
    from blobflow.server.http.public_url import Addressing
    from blobflow.server.registry import Aliases
    from blobflow.signatures.contract import SignatureJudge
    from blobflow.transports.archive.served.content import BundleContent
    from blobflow.transports.store import Store

# Seconds that an upstream's wish for fewer requests is waited for; one that wants more is left alone, and
# clients are told.
_UPSTREAM_WAIT = 2.0


@click.command("serve", cls=Verb)
@show_first(
    "listen",
    "root",
    "bundle",
    "htpasswd",
    "access",
    "tls_cert",
    "tls_key",
    "read_only",
    "upstream",
    "verbose",
)
@serve_options
@connection_options_without_logins
def verb(options: ServeOptions, connection: ConnectionOptions) -> None:
    """Run a registry (OCI distribution-spec 1.1) until Ctrl-C or SIGTERM.

    On loopback anybody comes in, over plain HTTP. Beyond it, it wants logins (--htpasswd, and --tls-cert so
    that nobody reads them on the way), or to be told that it needs none (--anonymous).

    / is a page for people, /metrics is for Prometheus, and /healthz answers 200 without a login. Changes
    of the --htpasswd and --access files take effect within seconds; SIGHUP also reads the certificate and the
    signature policy again.
    The options on how hosts are reached (--ca, --plain-http and so on) are about upstreams.

    With --bundle it is a registry on a stick: it answers from bundles without unpacking them, and an image is
    there under the name that `load` would give it, and under its whole name.

    \b
      blobflow serve --upstream docker.io --upstream quay.io=quay
      blobflow serve --bundle bundle.tar
    """
    host, port = parse_listen_address(options.listen)
    with HangupSignals().caught() as hangups:
        _check(options)
        raise_open_file_limit()
        run_loop(_serve(host, port, options, connection, hangups))


def _check(options: ServeOptions) -> None:
    """Raise UsageError for what nobody can mean; warn of logins that would cross a network in the clear."""
    if options.tls_key and not options.tls_cert:
        raise UsageError("--tls-key goes with --tls-cert; name the certificate too")
    if options.bundle:
        _check_bundle(options)
    if options.max_size is not None and not options.upstream:
        raise UsageError("--max-size is for what is pulled through; say from where with --upstream")
    if options.policy is not None and not options.upstream:
        raise UsageError("--policy is for what is pulled through; say from where with --upstream")
    if options.trusted_root is not None and not options.upstream:
        raise UsageError("--trusted-root is for what is pulled through; say from where with --upstream")
    if is_loopback(options.listen):
        return
    if not (options.htpasswd or options.anonymous):
        could = "read" if options.read_only or options.upstream or options.bundle else "change"
        raise UsageError(
            f"on {options.listen} anyone who reaches this machine could {could} the registry; listen on "
            f"{LISTEN}, ask for logins with --htpasswd FILE, or say --anonymous"
        )
    if options.htpasswd and not options.tls_cert:
        print_lines("warning: without --tls-cert logins cross the network in the clear", err=True)


def _check_bundle(options: ServeOptions) -> None:
    """Raise UsageError for what is about a store, or about what it takes."""
    for option, given in (
        ("--root", options.root is not None),
        ("--upstream", bool(options.upstream)),
        ("--max-blob-size", options.max_blob_size is not None),
        ("--max-size", options.max_size is not None),
    ):
        if given:
            raise UsageError(f"{option} is for a store, and --bundle serves files as they are; leave one out")
    for option, file in (("--policy", options.policy), ("--trusted-root", options.trusted_root)):
        if file is not None:
            raise UsageError(
                f"{option} is for what is pulled through, and --bundle serves files as they are;"
                f" `save {option} {file}` judges what goes into one, `load {option} {file}` what is in it"
            )


class _AccessFiles:
    """Who comes in, and how: what the files of the options say, as long as they say it."""

    def __init__(self, options: ServeOptions) -> None:
        """Raises InvalidConfig."""
        self.logins: Logins | None = None
        self.access: AccessRules | None = None
        self.certificate: Certificate | None = None
        self.files: list[Reloadable] = []
        if options.htpasswd:
            self.logins, file = load_logins(options.htpasswd)
            self.files.append(file)
        if options.access:
            self.access, file = load_access_rules(options.access, self._names)
            self.files.append(file)
        if options.tls_cert:
            from blobflow.server import Certificate

            self.certificate = Certificate(options.tls_cert, options.tls_key)
            self.files.append(certificate_reloader(self.certificate))

    def _names(self) -> frozenset[str]:
        return self.logins.names if self.logins else frozenset()


class _Served(NamedTuple):
    """What the registry answers from, and what it is called in the first line. `store`: if it is one."""

    content: Store | BundleContent
    called: str
    store: Store | None = None
    aliases: Aliases | None = None


async def _serve(
    host: str, port: int, options: ServeOptions, connection: ConnectionOptions, hangups: HangupSignals
) -> None:
    """Serve until cancelled, which is how serving ends well."""
    from blobflow.server import PullThroughCache, Server, Upstreams, make_app, parse_upstream
    from blobflow.server.pullthrough.eviction import evict_periodically

    log_form = options.access_log or ("brief" if connection.output.verbose else None)
    addressing = _parse_addressing(options)
    upstreams = Upstreams([parse_upstream(text) for text in options.upstream])
    policy = _policy_files(options, connection.config)
    judge = _load_judge(policy) if policy is not None else None
    access_files = _AccessFiles(options)
    async with AsyncExitStack() as stack:
        observe = stack.enter_context(open_access_log(log_form, options.access_log_file))
        sources = await stack.enter_async_context(_open_upstreams(connection)) if options.upstream else None
        served = _open_bundles(options.bundle) if options.bundle else _open_store(options)
        stack.enter_context(closing(served.content))
        pullthrough, reloaded = None, access_files.files
        if sources is not None and served.store is not None:
            ttl, retry_times = options.upstream_ttl, connection.retry_times
            pullthrough = PullThroughCache(
                served.store, upstreams, sources, ttl=ttl, judge=judge, retry_times=retry_times
            )
            if policy is not None and judge is not None:
                load, take = partial(_load_judge, policy), pullthrough.replace_judge
                reloaded = [*reloaded, PolicyReloader(policy.policy, judge, load, take)]
        app = make_app(
            served.content,
            read_only=options.read_only,
            max_blob_size=options.max_blob_size,
            upload_ttl=options.upload_ttl,
            sparse=options.sparse,
            logins=access_files.logins,
            access=access_files.access,
            pullthrough=pullthrough,
            addressing=addressing,
            aliases=served.aliases,
            observe=observe,
        )
        server = Server(
            app,
            host=host,
            port=port,
            allow_remote=options.anonymous or access_files.logins is not None,
            tls=access_files.certificate.context if access_files.certificate else None,
            grace=options.grace,
            observer=_print_warning,
        )
        async with reload_on_change(reloaded, hangups), server:
            print_lines(f"blobflow registry at {server.url}, {served.called}")
            try:
                if options.max_size is not None and served.store is not None:
                    await evict_periodically(served.store, upstreams, options.max_size)
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                print_lines("stopping", err=True)


def _policy_files(options: ServeOptions, config: Path | None) -> PolicyFiles | None:
    """What says which images of upstreams are given out: the policy of the options, or else of the
    configuration file. That one judges no bundle, and it is said. Raises InvalidConfig, UsageError."""
    if not (options.upstream or options.bundle):
        return None
    from blobflow.cli.signature_policies import PolicyFiles, configured_signatures

    settings = configured_signatures(config)
    if options.bundle:
        if settings.policy is not None:
            print_notice(
                f"what a bundle holds is not judged by {settings.policy}, as the configuration has it;"
                " `load` judges it"
            )
        return None
    policy = options.policy or settings.policy
    if options.trusted_root is not None and policy is None:
        raise UsageError("--trusted-root is about a signature policy; say which one with --policy FILE")
    if policy is None:
        return None
    return PolicyFiles(policy, options.trusted_root or settings.trusted_root)


def _load_judge(policy: PolicyFiles) -> SignatureJudge:
    """Raises InvalidConfig."""
    from blobflow.cli.signature_policies import load_judges

    return load_judges({"": policy})[""]


def _parse_addressing(options: ServeOptions) -> Addressing:
    """Raises InvalidConfig."""
    from blobflow.server.http.public_url import EVERYBODY, Addressing, parse_networks, parse_public_url

    public = parse_public_url(options.public_url) if options.public_url is not None else None
    match options.trust_proxy:
        case None:
            return Addressing(public)
        case "any":
            return Addressing(public, EVERYBODY)
        case listed:
            return Addressing(public, parse_networks(listed))


def _open_store(options: ServeOptions) -> _Served:
    """Raises StorageError."""
    from blobflow.transports.store import Store

    root = options.root or _default_root()
    # Where something is pulled through, pull only is for clients: the store takes what upstreams have.
    read_only = options.read_only and not options.upstream
    try:
        store = Store.open(root, read_only=read_only, observer=_print_warning)
    except StorageError as error:
        if read_only or "read-only" not in error.message:
            raise
        raise StorageError(f"{error.message}, or serve it as it is with --read-only") from None
    return _Served(store, f"store {root}", store)


def _open_bundles(paths: tuple[Path, ...]) -> _Served:
    """Raises NoSuchFile, UnsupportedContent, StorageError, UsageError."""
    from blobflow.transports.archive.served.content import open_bundles

    content = open_bundles(paths, _print_warning)
    what = "bundle" if len(paths) == 1 else "bundles"
    return _Served(content, f"{what} {', '.join(map(str, paths))}, read-only", aliases=content.names)


@asynccontextmanager
async def _open_upstreams(connection: ConnectionOptions) -> AsyncIterator[SourceAt]:
    """Where upstreams' repositories are read."""
    from blobflow.cli.settings import Hosts, connection_settings
    from blobflow.settings import host_access, logins_of
    from blobflow.transports.registry import Registries
    from blobflow.version import USER_AGENT

    settings = connection_settings(connection, os.environ, Hosts())
    logins = logins_of(settings)
    registries = Registries(
        lambda host: host_access(host, settings, logins),
        observer=_print_warning,
        user_agent=USER_AGENT,
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


def _default_root() -> Path:
    folder = xdg_folder(os.environ, "XDG_DATA_HOME", ".local/share")
    if folder is None:
        raise UsageError("there is no home folder; say where the store is with --root DIR")
    return folder / "blobflow" / "registry"
