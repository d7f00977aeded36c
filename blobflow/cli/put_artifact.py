"""What `push` and `attach` have in common: an artifact is put, and told of."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions
from blobflow.cli.options.run import RunOptions
from blobflow.cli.output.stdio import print_lines, write_stdout
from blobflow.cli.settings import Hosts, run_settings
from blobflow.oci import Reference

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.operations.artifacts.push import PushedArtifact


def put_artifact(
    put: Callable[[Client], Awaitable[PushedArtifact]],
    named: Reference,
    run: RunOptions,
    connection: ConnectionOptions,
    *,
    as_json: bool,
) -> None:
    """Put an artifact where `named` says, and print what was put. Raises what `put` raises."""
    from blobflow.cli.output.artifact_text import pushed_document, pushed_lines

    settings = run_settings(connection, run, Hosts(targets=frozenset({named.host})))
    pushed = run_one_shot(settings, connection.output, put)
    if as_json:
        write_stdout(json.dumps(pushed_document(pushed), indent=2))
    elif not connection.output.quiet:
        print_lines(*pushed_lines(pushed, str(named)))
