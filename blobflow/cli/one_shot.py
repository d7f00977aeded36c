"""One question to a registry: the loop, the progress and the settings of verbs that move nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from blobflow.cli.options.connection import ConnectionOptions
from blobflow.cli.output.progress import show_progress
from blobflow.cli.runtime.event_loop import run_loop
from blobflow.cli.settings import Hosts, run_settings
from blobflow.events import Meter

if TYPE_CHECKING:
    from blobflow.client import Client

T = TypeVar("T")


def run_one_shot(
    connection: ConnectionOptions, hosts: Hosts, question: Callable[[Client], Awaitable[T]]
) -> T:
    """Run `question` to its end on an event loop of its own, and return its answer. Raises as it does."""

    async def answer() -> T:
        from blobflow.client import Client

        async with (
            show_progress(connection.output, Meter()) as show,
            Client(run_settings(connection, hosts=hosts), observer=show) as client,
        ):
            return await question(client)

    return run_loop(answer())
