"""Asking a registry one thing: the loop, the display and the settings of verbs that move nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from blobflow.cli.console import display
from blobflow.cli.options import Ends, Link, settings_of
from blobflow.cli.running import run as run_loop
from blobflow.events import Meter, Observer

if TYPE_CHECKING:
    from blobflow.mirror import Settings

T = TypeVar("T")


def ask(link: Link, ends: Ends, question: Callable[[Settings, Observer], Awaitable[T]]) -> T:
    """Run the question to its end, and return its answer."""

    async def asked() -> T:
        async with display(link.look, Meter()) as show:
            return await question(settings_of(link, ends=ends), show)

    return run_loop(asked())
