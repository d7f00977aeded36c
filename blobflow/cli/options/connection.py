"""Connection options: how registries are reached (names, certificates, logins), with the output options.

What is about one side has its option twice, `--source-…` and `--target-…`, where a verb has two sides, and
once where it has one. skopeo's names for them, `--src-…` and `--dest-…`, are the same options.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from blobflow.cli.options.option_group import AliasedOption, Option, TruthOption, option_group, was_typed
from blobflow.cli.options.output import OUTPUT_OPTIONS, OutputOptions
from blobflow.cli.options.param_types import FILE
from blobflow.cli.options.places import PLACE, schemes_given

if TYPE_CHECKING:
    from blobflow.errors import Side
    from blobflow.transports.registry import Credentials

# skopeo's words for our sides.
_THEIRS: dict[Side, str] = {"source": "src", "target": "dest"}
# What `show_first` is given of them: of these a verb has what is about its sides.
LOGINS = ("source_creds", "target_creds", "authfile", "tls_verify")
COMMON = (*LOGINS, "plain_http", "quiet", "verbose")


class SideOptions(msgspec.Struct, frozen=True):
    """What is said of the registries at one side alone."""

    creds: Credentials | None = None
    authfile: Path | None = None
    no_creds: bool = False
    tls_verify: bool | None = None


class ConnectionOptions(msgspec.Struct, frozen=True):
    """How registries are reached. None if an option was not given: then the configuration file holds."""

    plain_http: frozenset[str] = frozenset()
    tls: frozenset[str] = frozenset()
    tls_verify: bool | None = None
    config: Path | None = None
    ca: tuple[Path, ...] = ()
    cert: Path | None = None
    key: Path | None = None
    authfile: Path | None = None
    retry_times: int | None = None
    source: SideOptions = SideOptions()
    target: SideOptions = SideOptions()
    output: OutputOptions = OutputOptions()


def _parse_login_option(
    _: click.Context, parameter: click.Parameter, value: str | None
) -> Credentials | None:
    if value is None:
        return None
    from blobflow.cli.options.credentials import parse_login

    return parse_login(value, parameter.opts[0])


def _make_connection_options(
    *,
    plain_http: tuple[str, ...],
    tls: tuple[str, ...],
    tls_verify: bool | None,
    insecure: bool,
    config: Path | None,
    ca: tuple[Path, ...],
    cert: Path | None,
    key: Path | None,
    authfile: Path | None,
    retry_times: int | None,
    quiet: bool,
    verbose: bool,
    log_format: str,
    **sides: Any,
) -> ConnectionOptions:
    from blobflow.oci.reference import check_host
    from blobflow.variables import read_variables

    said, schemes = read_variables(os.environ), schemes_given()
    verify = False if insecure else tls_verify
    plain, encrypted = frozenset(map(check_host, plain_http)), frozenset(map(check_host, tls))
    return ConnectionOptions(
        plain_http=(plain or said.plain_http - encrypted - schemes.https) | schemes.http,
        tls=(encrypted or said.tls - plain - schemes.http) | schemes.https,
        tls_verify=said.tls_verify if verify is None else verify,
        config=config or said.config,
        ca=ca or said.ca,
        cert=cert or said.cert,
        key=key or said.key,
        authfile=authfile,
        retry_times=retry_times,
        source=_side_options("source", sides),
        target=_side_options("target", sides),
        output=OutputOptions(
            quiet=quiet, verbose=verbose, log_format="json" if log_format == "json" else "text"
        ),
    )


def _side_options(side: Side, said: dict[str, Any]) -> SideOptions:
    """What was said of a side; of its login by options, or else by the environment. Raises UsageError for
    half a login."""
    username, password = said.get(f"{side}_username"), said.get(f"{side}_password")
    creds: Credentials | None = said.get(f"{side}_creds")
    authfile = f"{side}_authfile"
    others = [f"{side}_{each}" for each in ("username", "password", "no_creds")]
    others.append(authfile if authfile in said else "authfile")  # of a verb with one side it is that side's
    if not was_typed(f"{side}_creds") and any(map(was_typed, others)):
        creds = None
    if username is not None or password is not None:
        from blobflow.cli.options.credentials import join_login

        creds = join_login(username, password, side, creds)
    return SideOptions(
        creds=creds,
        authfile=said.get(f"{side}_authfile"),
        no_creds=said.get(f"{side}_no_creds", False),
        tls_verify=said.get(f"{side}_tls_verify"),
    )


def _login_options(side: Side, *, alone: bool, what: str) -> tuple[Option, ...]:
    """The login options of a side; `alone`: of a verb without the other."""
    own, theirs = f"--{side}-", f"--{_THEIRS[side]}-"

    def option(word: str, **attributes: Any) -> Option:
        shown, others = (f"--{word}", [f"{own}{word}"]) if alone else (f"{own}{word}", [])
        name, aliases = f"{side}_{word.replace('-', '_')}", [*others, f"{theirs}{word}"]
        return click.option(shown, name, cls=AliasedOption, aliases=aliases, **attributes)

    return (
        option(
            "creds",
            metavar="LOGIN",
            callback=_parse_login_option,
            envvar=f"BLOBFLOW_{side.upper()}_CREDS",
            help=what,
        ),
        option("no-creds", is_flag=True, help="Give it no login, whatever is kept."),
        option("username", metavar="USER", hidden=True),
        option("password", metavar="PASSWORD", hidden=True),
    )


def _side_access_options(side: Side) -> tuple[Option, ...]:
    """What a verb with two sides lets be said of one of them beside its login."""
    own, theirs = f"--{side}-", f"--{_THEIRS[side]}-"
    return (
        click.option(
            f"{own}authfile",
            cls=AliasedOption,
            aliases=[f"{theirs}authfile"],
            type=FILE,
            metavar="FILE",
            help=f"As --authfile, for the {side} alone.",
        ),
        click.option(
            f"{own}tls-verify",
            cls=TruthOption,
            aliases=[f"{theirs}tls-verify"],
            help=f"As --tls-verify, for the {side} alone.",
        ),
    )


_OTHER_OPTIONS: tuple[Option, ...] = (
    click.option(
        "--ca",
        type=FILE,
        multiple=True,
        metavar="FILE",
        help="Trust these certificates as well, in PEM form. Repeatable.",
    ),
    click.option(
        "--cert",
        type=FILE,
        metavar="FILE",
        help="The client certificate for registries that ask for one.",
    ),
    click.option("--key", type=FILE, metavar="FILE", help="The key of --cert."),
    click.option(
        "--plain-http",
        type=PLACE,
        metavar="HOST",
        multiple=True,
        help="Speak http, not https, to HOST (loopback hosts do anyway). Repeatable.",
    ),
    click.option(
        "--tls",
        type=PLACE,
        metavar="HOST",
        multiple=True,
        help="Speak https, and nothing else, to HOST, be it a loopback host. Repeatable.",
    ),
    click.option(
        "--config",
        type=FILE,
        metavar="FILE",
        help="What is different at some registries. [default: blobflow/config.toml of XDG's folder]",
    ),
    click.option(
        "--retry-times",
        type=click.IntRange(min=0, max=1000),
        metavar="N",
        help="Try what failed for a while so many times again. [default: 2 to 9 times, by the failure]",
    ),
)


def _connection_options(*sides: Side) -> tuple[Option, ...]:
    """The options of all verbs; `sides`: the only side that a verb has, whose names mean the same there."""
    aliases = {
        word: [f"--{prefix}-{word}" for side in sides for prefix in (side, _THEIRS[side])]
        for word in ("authfile", "tls-verify")
    }
    return (
        click.option(
            "--authfile",
            cls=AliasedOption,
            aliases=aliases["authfile"],
            type=FILE,
            metavar="FILE",
            help="Where logins are kept, in docker's format. [default: as docker and podman have it]",
        ),
        click.option(
            "--tls-verify",
            cls=TruthOption,
            aliases=aliases["tls-verify"],
            help="=false takes any certificate. And http from a host that has no TLS.",
        ),
        click.option("--insecure", is_flag=True, hidden=True),
        *_OTHER_OPTIONS,
        *OUTPUT_OPTIONS,
    )


def _group(*options: Option) -> Option:
    return option_group("connection", _make_connection_options, *options, title="Connection", common=COMMON)


_SOURCE_LOGIN = (
    "The source's login: USER[:PASSWORD], or @FILE with that in it. A file keeps it out of the process list."
)
_LOGIN = "USER[:PASSWORD], or @FILE with that in it. A file keeps it out of the process list."

# For verbs that move images between registries; that read at one; and that change something at one.
connection_options = _group(
    *_login_options("source", alone=False, what=_SOURCE_LOGIN),
    *_login_options("target", alone=False, what="The target's login, as that."),
    *_side_access_options("source"),
    *_side_access_options("target"),
    *_connection_options(),
)
source_connection_options = _group(
    *_login_options("source", alone=True, what=_LOGIN), *_connection_options("source")
)
target_connection_options = _group(
    *_login_options("target", alone=True, what=_LOGIN), *_connection_options("target")
)
# For verbs about registries as such, which have no side.
connection_options_without_logins = _group(*_connection_options())
