"""Options that several verbs share, read once into values, and the environment.

Each decorator adds its options to a command and hands the command one value in their place, so that a verb's
signature says what it takes. Outside of the command line nothing reads the environment.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec
from click.core import ParameterSource

from blobflow.byte_size import parse_size
from blobflow.cli.options.log_format import remember_log_format
from blobflow.cli.runtime.startup import fast_imports

if TYPE_CHECKING:
    from blobflow.client import Settings
    from blobflow.engine.execution import Policy
    from blobflow.engine.plan.steps import Lookup, Pair
    from blobflow.engine.targets.audit import AuditMode
    from blobflow.engine.targets.verification import VerifyLevel
    from blobflow.engine.transfer.staging import CacheMode
    from blobflow.transports.archive import CompressMode
    from blobflow.transports.registry import Credentials, HostSettings

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
# Blobs that move at once: enough to fill a long path; registries begin to throttle above a few dozen.
_CONCURRENCY = 8
# What a container platform usually gives between SIGTERM and SIGKILL is 30 seconds.
_GRACE = 25.0


class OutputOptions(msgspec.Struct, frozen=True):
    """How much is told meanwhile, and in which form."""

    quiet: bool = False
    verbose: bool = False
    log_format: Literal["text", "json"] = "text"


class ConnectionOptions(msgspec.Struct, frozen=True):
    """How registries are spoken to. None: nothing was said, and the configuration file counts."""

    plain_http: frozenset[str] = frozenset()
    tls_verify: bool | None = None
    config: Path | None = None
    ca: tuple[Path, ...] = ()
    cert: Path | None = None
    key: Path | None = None
    source_creds: Credentials | None = None
    target_creds: Credentials | None = None
    output: OutputOptions = OutputOptions()


class RunOptions(msgspec.Struct, frozen=True):
    """How a run goes about it, and what it leaves behind."""

    dry_run: bool = False
    keep_going: bool = True
    no_overwrite: bool = False
    trust_root: bool = False
    foreign_layers: bool = False
    referrers: Lookup | None = None
    concurrency: int = _CONCURRENCY
    compress: CompressMode = "gzip"
    report: tuple[Path, ...] = ()
    grace: float = _GRACE
    verify: VerifyLevel = "roots"
    audit: AuditMode = "rolling"
    cache: CacheMode = "auto"
    cache_dir: Path | None = None
    cache_size: int | None = None
    limit_rate: int | None = None
    wait: bool = False


def byte_size(text: str) -> int:
    """The type of an option that takes an amount of bytes: `20GB`, `512MiB`."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class Seconds(click.FloatRange):
    """The type of an option that takes seconds. Not "nan", which click's own takes for any range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


def byte_rate(text: str) -> int:
    """The type of an option that takes bytes a second: `10MB`, `10MB/s`; 0 would move nothing."""
    found = byte_size(text.removesuffix("/s"))
    if not found:
        raise click.BadParameter("0 would move nothing; leave it out for no limit")
    return found


_Command = Callable[..., None]
_Option = Callable[[_Command], _Command]


def option_group(name: str, kind: Callable[..., object], *options: _Option) -> _Option:
    """A decorator: adds `options`, and passes `kind` made of their values as the argument `name`."""

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def gather(**arguments: Any) -> None:
            own = {field: arguments.pop(field) for field in fields}
            command(**arguments, **{name: kind(**own)})

        before = _parameters(gather)
        decorated: _Command = gather
        for option in reversed(options):
            decorated = option(decorated)
        fields = [field for field in _parameters(decorated) if field not in before]
        return decorated

    return decorate


def hide_options(*names: str) -> _Option:
    """A decorator, above those that add options: --help does not list these, by their parameters' names. The
    verb refuses them, with a sentence that says what to use."""

    def decorate(command: _Command) -> _Command:
        for option in getattr(command, "__click_params__", ()):
            if isinstance(option, click.Option) and option.name in names:
                option.hidden = True
        return command

    return decorate


def _parameters(command: _Command) -> list[str]:
    """The names of the options that click has been told of so far."""
    return [parameter.name or "" for parameter in getattr(command, "__click_params__", [])]


def _parse_login_option(
    _: click.Context, parameter: click.Parameter, value: str | None
) -> Credentials | None:
    if value is None:
        return None
    from blobflow.cli.options.credentials import parse_login

    return parse_login(value, parameter.opts[0])


def _make_connection_options(
    plain_http: tuple[str, ...],
    tls_verify: bool | None,
    config: Path | None,
    ca: tuple[Path, ...],
    cert: Path | None,
    key: Path | None,
    quiet: bool,
    verbose: bool,
    log_format: str,
    source_creds: Credentials | None = None,
    target_creds: Credentials | None = None,
) -> ConnectionOptions:
    from blobflow.oci.reference import check_host
    from blobflow.variables import read_variables

    said = read_variables(os.environ)
    return ConnectionOptions(
        plain_http=frozenset(check_host(host) for host in plain_http) or said.plain_http,
        tls_verify=said.tls_verify if tls_verify is None else tls_verify,
        config=config or said.config,
        ca=ca or said.ca,
        cert=cert or said.cert,
        key=key or said.key,
        source_creds=source_creds,
        target_creds=target_creds,
        output=OutputOptions(
            quiet=quiet, verbose=verbose, log_format="json" if log_format == "json" else "text"
        ),
    )


_LOGIN_OPTIONS = (
    click.option(
        "--source-creds",
        metavar="USER[:PASSWORD]|@FILE",
        callback=_parse_login_option,
        envvar="BLOBFLOW_SOURCE_CREDS",
        help="The source's login. @FILE has USER:PASSWORD in it, and keeps it out of the process list.",
    ),
    click.option(
        "--target-creds",
        metavar="USER[:PASSWORD]|@FILE",
        callback=_parse_login_option,
        envvar="BLOBFLOW_TARGET_CREDS",
        help="The target's.",
    ),
)
_CONNECTION_OPTIONS = (
    click.option(
        "--config",
        type=_FILE,
        metavar="FILE",
        help="What is different at some registries. [default: blobflow/config.toml in XDG's configuration]",
    ),
    click.option(
        "--ca",
        type=_FILE,
        multiple=True,
        metavar="FILE",
        help="Trust these certificates as well, in PEM form. Repeatable.",
    ),
    click.option(
        "--cert",
        type=_FILE,
        metavar="FILE",
        help="The client certificate for registries that ask for one.",
    ),
    click.option("--key", type=_FILE, metavar="FILE", help="The key of --cert."),
    click.option(
        "--plain-http",
        metavar="HOST",
        multiple=True,
        help="Speak http, not https, to HOST (loopback hosts do anyway). Repeatable.",
    ),
    click.option(
        "--tls-verify",
        type=click.BOOL,
        metavar="BOOL",
        help="`--tls-verify=false` accepts any certificate.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong."),
    click.option("-v", "--verbose", is_flag=True, help="Show each HTTP exchange and retry, without secrets."),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        callback=remember_log_format,
        is_eager=True,
        help="`json`: events as JSON lines on stderr.",
    ),
)
# What verbs take that move or show images, and those that are about a registry as such.
connection_options = option_group(
    "connection", _make_connection_options, *_LOGIN_OPTIONS, *_CONNECTION_OPTIONS
)
connection_options_without_logins = option_group("connection", _make_connection_options, *_CONNECTION_OPTIONS)

concurrency_option = click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=_CONCURRENCY,
    metavar="N",
    show_default=True,
    help="Blobs that move at once at a host.",
)
cache_dir_option = click.option(
    "--cache-dir", type=_FOLDER, metavar="DIR", help="Where the store is. [default: blobflow in XDG's cache]"
)

compress_option = click.option(
    "--compress",
    type=click.Choice(["gzip", "gzip-portable", "zstd", "none"]),
    default="gzip",
    help="What becomes of the bare layers of docker archives: gzip (the default; digests depend on the "
    "processor), gzip-portable (slower, the same digests everywhere), zstd, or none.",
)


def verify_option(text: str) -> _Option:
    """`--verify LEVEL`, with its own line of help: what is verified depends on the verb."""
    return click.option(
        "--verify", type=click.Choice(["roots", "blobs", "content"]), default="roots", help=text
    )


run_options = option_group(
    "run",
    RunOptions,
    click.option("--dry-run", is_flag=True, help="Show the plan, a line an image, and move nothing."),
    click.option(
        "--keep-going/--fail-fast",
        default=True,
        help="After an image failed, go on with the others (the default), or stop.",
    ),
    click.option(
        "--no-overwrite", is_flag=True, help="An existing tag that names another digest is an error."
    ),
    click.option(
        "--trust-root",
        is_flag=True,
        help="Take a target tag with the right digest as whole, without asking for its children.",
    ),
    click.option(
        "--foreign-layers",
        is_flag=True,
        help="Mirror layers that registries need not hold (`urls`) where the source itself holds them.",
    ),
    click.option(
        "--referrers",
        type=click.Choice(["auto", "always", "off"]),
        help="Bring signatures, SBOMs and attestations too: look for them when an image moves or was never "
        "looked at (auto, the default), for unchanged images again, or not at all.",
    ),
    concurrency_option,
    verify_option(
        "Afterwards look at the tags that were put (the default), ask for every blob of every image, or read "
        "all of it back."
    ),
    click.option(
        "--audit",
        type=click.Choice(["rolling", "all", "none"]),
        default="rolling",
        help="Look below images that an earlier run put, and repair what is gone: below those looked at "
        "longest ago, for at most 5 % of the requests (the default), below all, or none.",
    ),
    click.option(
        "--cache",
        type=click.Choice(["auto", "all", "off"]),
        default="auto",
        help="What goes through the store on disk: what is needed more than once, or large (the default); "
        "all, kept for later runs; nothing but what is needed more than once, and no memory of the run.",
    ),
    cache_dir_option,
    click.option(
        "--cache-size",
        type=byte_size,
        metavar="BYTES",
        help="What the store may hold, as 20GB or 512MiB. [default: what it holds, and half of what is free]",
    ),
    click.option(
        "--limit-rate",
        type=byte_rate,
        metavar="BYTES",
        help="Read, and write, at most so much a second in all, as 10MB or 10MB/s.",
    ),
    click.option(
        "--wait",
        is_flag=True,
        help="Where a source lets fewer manifests be read than are needed (Docker Hub), read those and wait "
        "for more, for hours if need be.",
    ),
    compress_option,
    click.option(
        "--report",
        type=_FILE,
        multiple=True,
        metavar="FILE",
        help="Write a report, also of a failed run: JSON, or as FILE.html a page for people. Repeatable.",
    ),
    click.option(
        "--grace",
        type=Seconds(min=0),
        default=_GRACE,
        metavar="SECONDS",
        show_default=True,
        help="How long blobs in flight may still take after SIGTERM.",
    ),
)


class Hosts(msgspec.Struct, frozen=True):
    """The places that a command reads from, and those that it writes to."""

    sources: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()


def hosts_of(pairs: Iterable[Pair]) -> Hosts:
    """The hosts at both ends of the pairs."""
    pairs = tuple(pairs)
    return Hosts(frozenset(pair.source.host for pair in pairs), frozenset(pair.target.host for pair in pairs))


def run_settings(
    connection: ConnectionOptions,
    run: RunOptions | None = None,
    hosts: Hosts = Hosts(),  # noqa: B008  frozen
    *,
    compress: CompressMode = "gzip",
) -> Settings:
    """The library's settings, from options, the environment and the configuration file.

    A verb that only looks (`run` None) gets no cache folder, so that it works where nothing can be written,
    and says `compress` itself if it may look at archives.
    """
    with fast_imports():
        from blobflow.cli.settings import connection_settings

    settings = connection_settings(connection, os.environ, hosts)
    if run is None:
        return msgspec.structs.replace(settings, compress=compress)
    return msgspec.structs.replace(
        settings,
        concurrency=run.concurrency,
        hosts=_without_connections(settings.hosts) if was_given("concurrency") else settings.hosts,
        cache=run.cache,
        cache_dir=cache_folder(run.cache_dir),
        cache_size=run.cache_size,
        compress=run.compress,
        bytes_per_second=run.limit_rate or 0,
    )


def was_given(option: str) -> bool:
    """Whether the command under way was given an option, and did not take its default."""
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source(option) if context else None
    return source not in (None, ParameterSource.DEFAULT)


def _without_connections(hosts: Mapping[str, HostSettings]) -> dict[str, HostSettings]:
    return {host: msgspec.structs.replace(each, connections=None) for host, each in hosts.items()}


def run_policy(run: RunOptions) -> Policy:
    from blobflow.engine.execution import Policy

    return Policy(
        keep_going=run.keep_going,
        no_overwrite=run.no_overwrite,
        trust_root=run.trust_root,
        foreign_layers=run.foreign_layers,
        referrers=run.referrers,
        verify=run.verify,
        audit=run.audit,
        wait=run.wait,
    )


def cache_folder(named: Path | None) -> Path | None:
    """The store's root: the one named, else the environment's; None where there is no home."""
    from blobflow.variables import places_of

    return named or places_of(os.environ)[1]
