"""Connection options: how registries are reached (names, certificates, logins), with the output options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.options.option_group import option_group
from blobflow.cli.options.output import OUTPUT_OPTIONS, OutputOptions
from blobflow.cli.options.param_types import FILE

if TYPE_CHECKING:
    from blobflow.transports.registry import Credentials


class ConnectionOptions(msgspec.Struct, frozen=True):
    """How registries are reached. None if an option was not given: then the configuration file holds."""

    plain_http: frozenset[str] = frozenset()
    tls_verify: bool | None = None
    config: Path | None = None
    ca: tuple[Path, ...] = ()
    cert: Path | None = None
    key: Path | None = None
    source_creds: Credentials | None = None
    target_creds: Credentials | None = None
    output: OutputOptions = OutputOptions()


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
        type=FILE,
        metavar="FILE",
        help="What is different at some registries. [default: blobflow/config.toml in XDG's configuration]",
    ),
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
    *OUTPUT_OPTIONS,
)
# The first for verbs that move or show images, the second for those about a registry as such.
connection_options = option_group(
    "connection", _make_connection_options, *_LOGIN_OPTIONS, *_CONNECTION_OPTIONS
)
connection_options_without_logins = option_group("connection", _make_connection_options, *_CONNECTION_OPTIONS)
