"""`blobflow` as a child process whose events are followed, and that can be killed at any of them.

For tests that hold the registries in their own process, where they see every request of the child as it
happens. Nothing here knows of pytest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import IO, Any

from tests.deadlines import HANGS_AFTER
from tools.checkout import TOP
from tools.processes import BLOBFLOW, Process, start_warm


class Child:
    """One run of blobflow, which tells `errors` what it does. `events`: what it told so far, each a JSON
    object."""

    def __init__(self, process: Process, errors: asyncio.StreamReader, report: Path) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._errors = errors
        self._report = report
        self._changed = asyncio.Event()
        self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for line in self._errors:
            self.events.append(json.loads(line))
            self._changed.set()
        await asyncio.to_thread(self.process.wait)
        self._changed.set()

    async def ended(self) -> int:
        """Wait for the end; the exit code, negative for the signal that killed it."""
        async with asyncio.timeout(HANGS_AFTER):
            await self._following
        assert self.process.returncode is not None
        return self.process.returncode

    async def until(self, condition: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Wait until the events meet the condition. AssertionError if the child ends before."""
        async with asyncio.timeout(HANGS_AFTER):
            while not condition(self.events):
                assert not self._following.done(), f"it ended before that: {self.events[-5:]}"
                self._changed.clear()
                await self._changed.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing if it has ended."""
        # Not by its own send_signal, which may wait for it beside the thread that does.
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def report(self) -> Any:
        """The report that it has written."""
        return json.loads(self._report.read_bytes())

    def images(self, target: str) -> dict[str, str]:
        """The status of each image of a target host that has been told so far, by `repository:tag`."""
        return {
            event["target"].partition("/")[2]: event["status"]
            for event in self.events
            if event["event"] == "image" and event["target"].startswith(f"{target}/")
        }

    async def leave(self) -> None:
        self.kill()
        await self._following


@contextlib.asynccontextmanager
async def child(
    *arguments: str, home: Path, images: Sequence[str], source: str, targets: Sequence[str]
) -> AsyncIterator[Child]:
    """`blobflow sync` of the images from the source host to the targets, with more arguments if given.

    What it keeps, it keeps under `home`. It is killed, if it still runs, when the context ends.
    """
    home.mkdir(parents=True, exist_ok=True)
    (home / "images.txt").write_text("\n".join(images))
    report = home / "report.json"
    report.unlink(missing_ok=True)
    places = [word for target in targets for word in ("--to", target)]
    words = ["sync", "--from", source, *places, "--images", str(home / "images.txt")]
    words += ["--report", str(report), "--log-format", "json", *arguments]
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as errors, Path(os.devnull).open("wb") as out:
        process = _started([*BLOBFLOW, *words], _environment(home), out, errors)
    told = asyncio.StreamReader(limit=1 << 20)
    following, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(told), os.fdopen(reading, "rb", buffering=0)
    )
    running = Child(process, told, report)
    try:
        yield running
    finally:
        await running.leave()
        following.close()


def _started(command: list[str], environment: dict[str, str], out: IO[bytes], errors: IO[bytes]) -> Process:
    return start_warm(command, environment, out, errors) or subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, cwd=TOP, env=environment
    )


def _environment(home: Path) -> dict[str, str]:
    """Ours, with its home there and without what would lead elsewhere."""
    apart = ("HOME", "DOCKER_CONFIG")
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in apart and not key.startswith("XDG_") and not key.lower().endswith("_proxy")
    }
    return kept | {"HOME": str(home)}


def store_of(home: Path) -> Path:
    """Where a child with that home has its store."""
    return home / ".cache" / "blobflow"


def wrong_blobs(root: Path) -> list[Path]:
    """The blobs of a store whose bytes are not what their name says. None, ever."""
    wrong = []
    for path in root.glob("blobs/*/*"):
        with path.open("rb") as file:
            if hashlib.file_digest(file, path.parent.name).hexdigest() != path.name:
                wrong.append(path)
    return wrong


def partials(root: Path) -> dict[str, int]:
    """The size of the longest partial of each blob that a store has one of, by digest."""
    sizes: dict[str, int] = {}
    for path in root.glob("partials/*.*"):
        digest = f"sha256:{path.name.partition('.')[0]}"
        sizes[digest] = max(sizes.get(digest, 0), path.stat().st_size)
    return sizes


def held(root: Path) -> set[str]:
    """The digests of the blobs that a store has whole."""
    return {f"{path.parent.name}:{path.name}" for path in root.glob("blobs/*/*")}
