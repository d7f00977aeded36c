"""Options of `worker`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from blobflow.cli.options.engine import certificate_options
from blobflow.cli.options.option_group import option_group
from blobflow.cli.options.param_types import FOLDER, Seconds
from blobflow.printable import printable

# What a container platform usually gives between SIGTERM and SIGKILL is 30 seconds.
_GRACE = 25.0
_CONNECTIONS = 32
_PATIENCE = 60.0


class WorkerVerbOptions(msgspec.Struct, frozen=True):
    """The options of `worker`. Times in seconds."""

    name: str | None
    store: Path | None
    connections: int
    listen: str | None
    patience: float
    grace: float
    engine_ca: Path | None
    engine_cert: Path | None
    engine_key: Path | None


def _sendable(context: click.Context, option: click.Parameter, name: str | None) -> str | None:
    """A name that can be sent: what the command line had was UTF-8."""
    try:
        (name or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter(f"{printable(name or '')} is not UTF-8") from None
    return name


worker_options = option_group(
    "options",
    WorkerVerbOptions,
    click.option(
        "--name",
        metavar="NAME",
        callback=_sendable,
        help="What reports and messages call it. [default: machine and process]",
    ),
    click.option(
        "--store",
        type=FOLDER,
        metavar="DIR",
        envvar="BLOBFLOW_WORKER_STORE",
        help="Where its store is; several workers of one machine may share it. "
        "[default: of this machine, in blobflow's cache]",
    ),
    click.option(
        "--connections",
        type=click.IntRange(min=1, max=10_000),
        default=_CONNECTIONS,
        metavar="N",
        show_default=True,
        help="Blobs that it carries at once, at most. Those of each host are for the run to share out.",
    ),
    click.option(
        "--listen",
        metavar="HOST[:PORT]",
        help="Where scheduler and coordinator reach it. [default: the address that leads to the scheduler]",
    ),
    click.option(
        "--patience",
        type=Seconds(min=0),
        default=_PATIENCE,
        metavar="SECONDS",
        show_default=True,
        help="How long to wait for the scheduler at the start.",
    ),
    click.option(
        "--grace",
        type=Seconds(min=0),
        default=_GRACE,
        metavar="SECONDS",
        show_default=True,
        help="How long blobs under way may still take after SIGTERM.",
    ),
    *certificate_options("the worker"),
)
