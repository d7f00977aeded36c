"""Runs one client operation, for verbs without a run of their own: the event loop and the progress."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.progress import show_progress
from blobflow.cli.runtime.event_loop import SHUTDOWN, run_loop
from blobflow.events import Meter

if TYPE_CHECKING:
    from blobflow.client import Client
    from blobflow.settings import Settings

T = TypeVar("T")


def run_one_shot(
    settings: Settings,
    output: OutputOptions,
    question: Callable[[Client], Awaitable[T]],
    *,
    targets: int = 1,
) -> T:
    """Run `question` to its end on an event loop of its own, and return its answer. Raises as it does.

    `targets`: how many hosts it is about; with several, progress says which.
    """

    async def answer() -> T:
        from blobflow.client import Client

        meter = Meter()
        SHUTDOWN.get().waits = meter.waits
        async with (
            show_progress(output, meter, hosts=targets) as show,
            Client(settings, observer=show, meter=meter) as client,
        ):
            return await question(client)

    return run_loop(answer())
