"""A cluster on loopback: `dask scheduler` and `blobflow worker`, each a process with a home of its own.

    with cluster(folder) as made:
        made.start_scheduler()
        made.start_workers(["one", "two"])
        ...  # `--engine` takes made.engine

What the scheduler knows is read from its HTTP side, where its dashboard has its pages. Nothing knows of
pytest, so that the benchmarks run the same things.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tools.checkout import TOP
from tools.ports import reserve_port
from tools.processes import BLOBFLOW, END_SECONDS, READY_SECONDS, Process, environment, start_warm

# A worker in the page of them: its address and its name.
_ROW = re.compile(r'<td><a href="\.\./worker/[^"]*">([^<]*)</a></td>\s*<td> (.*?) </td>')
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

    def kill(self) -> None:
        """As the kernel does when memory runs out: without a word."""
        self.process.kill()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float = END_SECONDS) -> int:
        """Wait for the end: the exit code, negative for the signal that killed it. Raises TimeoutExpired."""
        return self.process.wait(seconds)


class Cluster:
    """A scheduler and its workers, at `address` with its pages at `dashboard`; `--engine` takes `engine`.

    `warm`: its workers start off a warm Python (warm.py), and are not to be measured.
    """

    def __init__(self, folder: Path, scheme: str = "dask", *, warm: bool = False) -> None:
        self.folder = folder
        self._warm = warm
        self.address = f"127.0.0.1:{reserve_port()}"
        self.dashboard = f"127.0.0.1:{reserve_port()}"
        self.engine = f"{scheme}://{self.address}"
        self.parts: list[Part] = []

    def start_scheduler(self, *arguments: str | Path, name: str = "scheduler") -> Part:
        """`dask scheduler` at the address; once its pages answer."""
        host, _, port = self.address.rpartition(":")
        words = ["-m", "distributed.cli.dask_scheduler", "--host", host, "--port", port]
        part = self.start(name, [sys.executable, *words, "--dashboard-address", self.dashboard, *arguments])
        self._wait(part, lambda: self._workers() is not None)
        return part

    def start_worker(
        self,
        name: str,
        *arguments: str | Path,
        proxies: Mapping[str, str] | None = None,
        scheduler: str = "",
        wait: bool = True,
    ) -> Part:
        """`blobflow worker`; with `wait` once the scheduler has it. `proxies`: where it finds hosts of
        registries; `scheduler`: what it is told to join, if not this address."""
        for host, proxy in (proxies or {}).items():
            append_config(self.home_of(name), f'[registry."{host}"]\nproxy = "http://{proxy}"\n')
        words = ["worker", scheduler or self.engine, "--name", name, *arguments]
        part = self.start(name, [*BLOBFLOW, *words])
        if wait:
            self.wait_for(part)
        return part

    def home_of(self, name: str) -> Path:
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        return home

    def start(self, name: str, words: Sequence[str | Path]) -> Part:
        """A program with a home of that name; what it prints goes to its log."""
        home = self.home_of(name)
        with (home / "log.txt").open("ab") as log:
            command, kept = [*map(str, words)], environment(home) | {"PYTHONUNBUFFERED": "1"}
            warm = start_warm(command, kept, log, log) if self._warm else None
            process: Process = warm or subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=TOP, env=kept
            )
        part = Part(name, home, process)
        self.parts.append(part)
        return part

    def wait_for(self, *workers: Part) -> None:
        """Wait until the scheduler has these workers."""
        for worker in workers:
            self._wait(worker, partial(self._knows, worker.name))

    def wait_without(self, worker: Part) -> None:
        """Wait until the scheduler has it no more."""
        self._wait(None, partial(self._lacks, worker.name))

    def address_of(self, worker: Part) -> str:
        """Where a worker listens, once the scheduler tells it."""
        found: dict[str, str] = {}

        def told() -> bool:
            found.update(self._workers() or {})
            return worker.name in found

        self._wait(worker, told)
        return found[worker.name]

    def page(self, path: str) -> str:
        """What the scheduler's HTTP side answers, whatever the status."""
        return self._ask(path)[1]

    def _ask(self, path: str) -> tuple[int, str]:
        """The status and the text of a page."""
        try:
            with urllib.request.urlopen(f"http://{self.dashboard}{path}", timeout=READY_SECONDS) as answer:
                return answer.status, str(answer.read().decode(errors="replace"))
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode(errors="replace")

    def _workers(self) -> dict[str, str] | None:
        """The addresses of the workers by name; None while nobody answers, or with an error: a page that is
        made while something changes is one, now and then.

        By the page for people: /json/identity.json is an error in distributed 2026.8.0 as long as a task runs
        whose key is a tuple.
        """
        try:
            status, page = self._ask("/info/main/workers.html")
        except OSError:
            return None
        return {name: address for address, name in _ROW.findall(page)} if status == 200 else None

    def _knows(self, name: str) -> bool:
        return name in (self._workers() or ())

    def _lacks(self, name: str) -> bool:
        known = self._workers()
        return known is not None and name not in known

    def _wait(self, part: Part | None, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds. Raises RuntimeError if `part` ends before, or it takes too long."""
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            if part is not None and part.process.poll() is not None:
                raise RuntimeError(f"{part.name} ended with {part.process.returncode}: {part.said()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"what is waited for does not come: {part.said() if part else ''}")
            time.sleep(_LOOK_SECONDS)

    def stop(self, *parts: Part) -> None:
        """Kill those, or all: a cluster that is measured or tested has nothing to put in order at its end."""
        for part in parts or self.parts:
            part.kill()
        for part in parts or self.parts:
            part.process.wait()


def append_config(home: Path, text: str) -> None:
    """Add to the config.toml of the program with that home."""
    file = home / "config" / "blobflow" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(text)


@contextmanager
def cluster(folder: Path, scheme: str = "dask", *, warm: bool = False) -> Iterator[Cluster]:
    """A cluster that has nothing yet, whose processes end with the context."""
    made = Cluster(folder, scheme, warm=warm)
    try:
        yield made
    finally:
        made.stop()
