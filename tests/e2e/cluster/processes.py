"""A cluster on loopback: `dask scheduler` and `blobflow worker`, each a process with a home of its own.

What the scheduler knows is read from its HTTP side, as its dashboard's pages are. Nothing knows of pytest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import urllib.request
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.deadlines import HANGS_AFTER
from tools.checkout import TOP
from tools.ports import reserve_port
from tools.processes import environment

# Between two looks at what another process does.
_LOOK_SECONDS = 0.05


class Part:
    """A process of a cluster. `log`: all that it printed; `home`: what it keeps and is configured by."""

    def __init__(self, name: str, home: Path, process: Process) -> None:
        self.name = name
        self.home = home
        self.log = home / "log.txt"
        self.process = process

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        """As the kernel does when memory runs out: no word, no end of a connection but its own."""
        self.signal(signal.SIGKILL)

    async def ended(self) -> int:
        """Wait for the end: the exit code, negative for the signal that killed it."""
        async with asyncio.timeout(HANGS_AFTER):
            return await self.process.wait()


class Cluster:
    """A scheduler and its workers. `address` as `--engine` has it without its scheme, `dashboard` its pages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: dict[str, Part] = {}
        self.scheduler: Part | None = None
        self.address = f"127.0.0.1:{reserve_port()}"
        self.dashboard = f"127.0.0.1:{reserve_port()}"
        self._parts: list[Part] = []

    @property
    def engine(self) -> str:
        return f"dask://{self.address}"

    async def start_scheduler(self, *arguments: str | Path, name: str = "scheduler") -> Part:
        """`dask scheduler` at the address; once its pages answer."""
        words = ["-m", "distributed.cli.dask_scheduler", "--dashboard-address", self.dashboard, *arguments]
        if not arguments:
            words += ["--host", f"tcp://{self.address}"]
        self.scheduler = await self.start(name, words)
        await self._until(lambda: self._workers_known() is not None, self.scheduler)
        return self.scheduler

    async def start_worker(
        self, name: str, *arguments: str | Path, proxies: Mapping[str, str] | None = None, wait: bool = True
    ) -> Part:
        """`blobflow worker`, for which each host of `proxies` is behind that proxy; once the scheduler knows it
        (`wait`)."""
        home = self.home_of(name)
        for host, proxy in (proxies or {}).items():
            append_config(home, f'[registry."{host}"]\nproxy = "http://{proxy}"\n')
        worker = await self.start(name, ["-m", "blobflow", "worker", self.address, "--name", name, *arguments])
        self.workers[name] = worker
        if wait:
            await self.until_known(name)
        return worker

    async def start_workers(self, names: Sequence[str], **more: Any) -> list[Part]:
        """Several workers that come up together."""
        parts = [await self.start_worker(name, wait=False, **more) for name in names]
        for name in names:
            await self.until_known(name)
        return parts

    def home_of(self, name: str) -> Path:
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        return home

    async def start(self, name: str, words: Sequence[str | Path], **variables: str) -> Part:
        """A Python that runs `words`, with a home of that name; what it prints goes to its log."""
        home = self.home_of(name)
        with (home / "log.txt").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *map(str, words),
                cwd=TOP,
                env=environment(home) | {"PYTHONUNBUFFERED": "1"} | variables,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        part = Part(name, home, process)
        self._parts.append(part)
        return part

    async def until_known(self, name: str) -> None:
        """Wait until the scheduler has the worker."""
        await self._until(lambda: name in (self._workers_known() or ()), self.workers[name])

    async def until_gone(self, name: str) -> None:
        """Wait until the scheduler has it no more."""
        assert self.scheduler is not None
        await self._until(lambda: name not in (self._workers_known() or {name}), self.scheduler)

    def address_of(self, name: str) -> str:
        """Where a worker listens, as the scheduler tells it."""
        known = self._workers_known()
        assert known is not None
        return known[name]

    def page(self, path: str) -> str:
        """What the scheduler's HTTP side answers, whatever the status."""
        request = urllib.request.Request(f"http://{self.dashboard}{path}")
        try:
            with urllib.request.urlopen(request, timeout=HANGS_AFTER) as answer:
                return str(answer.read().decode(errors="replace"))
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.read().decode(errors="replace")

    def _workers_known(self) -> dict[str, str] | None:
        """The addresses of the workers by name; None while nobody answers."""
        try:
            workers = json.loads(self.page("/json/identity.json"))["workers"]
        except OSError:
            return None
        return {str(worker["name"]): address for address, worker in workers.items()}

    async def _until(self, condition: Any, part: Part) -> None:
        """Wait until the condition holds. AssertionError, with what it said, if the part ends before."""
        deadline = time.monotonic() + HANGS_AFTER
        while not await asyncio.to_thread(condition):
            assert part.process.returncode is None, f"{part.name} ended: {part.said()}"
            assert time.monotonic() < deadline, f"{part.name} does not come: {part.said()}"
            await asyncio.sleep(_LOOK_SECONDS)

    async def stop(self, *parts: Part) -> None:
        """End those, or all: by SIGKILL, since nothing of a test's cluster is worth its grace."""
        for part in parts or self._parts:
            part.kill()
        for part in parts or self._parts:
            await part.process.wait()
            self.workers.pop(part.name, None)


def append_config(home: Path, text: str) -> None:
    """Add to the config.toml of the program with that home."""
    file = home / "config" / "blobflow" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(text)


@contextlib.asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    """A cluster that has nothing yet, whose processes end with the context."""
    made = Cluster(folder)
    try:
        yield made
    finally:
        await made.stop()
