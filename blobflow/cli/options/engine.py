"""Options of the engine: the workers that carry a run's blobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from blobflow.cli.options.option_group import Option, option_group
from blobflow.cli.options.param_types import FILE

if TYPE_CHECKING:
    from blobflow.cluster.address import Engine


class EngineOptions(msgspec.Struct, frozen=True):
    """What was said of the engine; None where that is for the configuration file to say."""

    engine: str | None = None
    engine_ca: Path | None = None
    engine_cert: Path | None = None
    engine_key: Path | None = None

    def resolve(self, config: Path | None) -> Engine | None:
        """The engine, from these options, else from the configuration file; None: this process alone.

        Raises UsageError and InvalidConfig for what can't be used.
        """
        from blobflow.environment import config_file

        named, ca, cert, key = self.engine, self.engine_ca, self.engine_cert, self.engine_key
        file = config or config_file(os.environ)
        if file is not None:
            from blobflow.config_file import read_engine  # its TOML is paid for where there is some

            said = read_engine(file)
            if not _is_plain(named):
                ca, cert, key = ca or said.ca, cert or said.cert, key or said.key
            named = named or said.address
        if named in (None, "", "none"):
            return None
        from blobflow.cluster.address import is_local, parse_engine

        if is_local(named):
            return parse_engine(named)
        return parse_engine(named, ca=ca, cert=cert, key=key)


def _is_plain(named: str | None) -> bool:
    """Whether a scheduler was named that speaks no TLS: the file's certificates are for another one, then."""
    return named is not None and named.startswith(("dask://", "tcp://"))


def certificate_options(what: str) -> tuple[Option, ...]:
    """The certificates for a tls:// scheduler, of `what`."""
    return (
        click.option(
            "--engine-ca",
            type=FILE,
            metavar="FILE",
            envvar="BLOBFLOW_ENGINE_CA",
            help="The authority that signed the certificates of scheduler and workers, in PEM form.",
        ),
        click.option(
            "--engine-cert",
            type=FILE,
            metavar="FILE",
            envvar="BLOBFLOW_ENGINE_CERT",
            help=f"The certificate that {what} shows them.",
        ),
        click.option(
            "--engine-key",
            type=FILE,
            metavar="FILE",
            envvar="BLOBFLOW_ENGINE_KEY",
            help="The key of --engine-cert.",
        ),
    )


engine_options = option_group(
    "engine",
    EngineOptions,
    click.option(
        "--engine",
        metavar="ENGINE",
        envvar="BLOBFLOW_ENGINE",
        help="Let workers carry the blobs: those of a Dask scheduler at dask://HOST:PORT or tls://HOST:PORT, "
        "or local:N processes here. [default: none, this process alone]",
    ),
    *certificate_options("this process"),
    title="Engine",
    common=("engine",),
)
