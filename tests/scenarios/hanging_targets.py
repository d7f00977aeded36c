"""Targets that answer some calls late or never, and runs that have to go on beside them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from blobflow.content import Site
from blobflow.engine.execution import Run
from blobflow.events import Event, ImageDone
from tests.deadlines import HANGS_AFTER
from tests.fakes.memory_registry import MemoryPlace, MemoryRegistry
from tests.scenarios.mirror import MirrorScenario


class Late(MemoryPlace):
    """A place that does not answer some of its calls until it is let."""

    def __init__(
        self,
        registry: MemoryRegistry,
        site: Site,
        calls: tuple[str, ...],
        let: asyncio.Event,
        held: Counter[str],
    ) -> None:
        super().__init__(registry, site)
        self._late = calls
        self._let = let
        self._held = held

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name not in self._late:
            return found

        async def late(*args: Any) -> Any:
            self._held[name] += 1
            await self._let.wait()
            return await found(*args)

        return late


class Hanging(MemoryRegistry):
    """A registry that accepts, and answers some calls only when `let` is set. `held` counts those by name."""

    def __init__(self, name: str, calls: tuple[str, ...]) -> None:
        super().__init__(name)
        self.calls_late = calls
        self.let = asyncio.Event()
        self.held = Counter[str]()

    def at(self, site: Site) -> MemoryPlace:
        return Late(self, site, self.calls_late, self.let, self.held)


def hang(bench: MirrorScenario, *calls: str, name: str = "hanging") -> Hanging:
    bench.targets[name] = hanging = Hanging(name, calls)
    return hanging


def when_done(target: str, images: int, act: Callable[[], None]) -> tuple[Callable[[Event], None], list[str]]:
    """An observer that acts when so many images have arrived at a target; and those that have."""
    arrived: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, ImageDone) and event.target.startswith(f"{target}/") and event.status == "done":
            arrived.append(event.target)
            if len(arrived) == images:
                act()

    return observe, arrived


async def until(true: Callable[[], bool]) -> None:
    """Let others go on until something is so."""
    async with asyncio.timeout(HANGS_AFTER):
        while not true():  # noqa: ASYNC110  what is waited for are counts, which wake nobody
            await asyncio.sleep(0)


async def go(bench: MirrorScenario, run: Run, **changes: Any) -> Any:
    async with asyncio.timeout(HANGS_AFTER):  # what would hang for ever is to fail
        return await run.execute(bench.services(patience=0, **changes))
