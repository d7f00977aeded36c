"""This side of the forker: commands that are started, stopped before a step, let go on, and killed.

Everything that happens elsewhere (a command stops, ends; an answer comes) is noted under one condition,
`Stage.changed`, and waited for by `Stage.wait`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.deadlines import HANGS_AFTER
from tests.e2e.promises.forker import KINDS
from tools.checkout import TOP
from tools.processes import environment

# Seconds to wait for what another, who is stopped, may be in the way of: if we know that it is, as it has the
# state file locked; and if we know of nothing. What is waited for in vain is waited for again, so that these
# decide at most which interleaving is played, never what is right.
BLOCKED = 0.03
LEAVE = 2.0


class Stop(msgspec.Struct, frozen=True):
    """A thread that waits before a step: its kind (see forker.KINDS), and the file's name or the statement.

    `locked`: its process is in a writing transaction meanwhile.
    """

    thread: int
    kind: str
    what: str
    locked: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.what}"


class Stage:
    """Where commands run. A context manager: at its end all of them are killed, and their files removed."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        # Short, as a socket's path may not have more than about 100 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="blobflow-stage-"))
        self._ends = contextlib.ExitStack()
        self._ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._meeting = self._ends.enter_context(socket.socket(socket.AF_UNIX))
        self._meeting.bind(str(self.folder / "meeting"))
        self._meeting.listen()
        self._meeting.settimeout(HANGS_AFTER)
        self._forker = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.promises.forker", str(self.folder / "meeting")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=TOP,
            env=environment(self.folder / "home"),
            text=True,
        )
        self._ends.callback(self._end)
        self._orders = threading.Lock()
        self._starting = threading.Lock()
        self._started = 0

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def _end(self) -> None:
        assert self._forker.stdin is not None and self._forker.stdout is not None
        self._forker.stdin.close()
        self._forker.wait(HANGS_AFTER)
        self._forker.stdout.close()

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition holds; whether it does."""
        with self.changed:
            return self.changed.wait_for(condition, seconds)

    def start(
        self,
        *words: str | Path,
        budget: int | None = None,
        kinds: Sequence[str] = KINDS,
        alone: bool = False,
    ) -> Command:
        """Start a `blobflow` command. It stops before the step after `budget` more of these kinds; None:
        nowhere. `alone`: the thread that stops first is the only one that ever does."""
        with self._starting:
            self._started += 1
            out = self.folder / f"out-{self._started}"
            order = {"run": [*map(str, words)], "out": str(out), "budget": budget, "kinds": [*kinds]}
            pid = self.order({**order, "alone": alone})["pid"]
            line, _ = self._meeting.accept()
        return Command(self, pid, line, out, tuple(map(str, words)))

    def order(self, order: dict[str, Any]) -> Any:
        """Have the forker do it."""
        assert self._forker.stdin is not None and self._forker.stdout is not None
        with self._orders:
            self._forker.stdin.write(json.dumps(order) + "\n")
            self._forker.stdin.flush()
            return json.loads(self._forker.stdout.readline())


class Command:
    """One command that runs. `stops`: its threads that wait before a step, the one that came first first.

    `taken` counts the steps that it was let take one by one.
    """

    def __init__(self, stage: Stage, pid: int, line: socket.socket, out: Path, words: Sequence[str]) -> None:
        self.pid = pid
        self.words = words
        self.stops: list[Stop] = []
        self.taken = 0
        self.code: int | None = None
        self._stage = stage
        self._line = line
        self._out = out
        self._armed = False
        self._hung_up = False
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What it has said so far, on standard output and error."""
        return self._out.read_text(errors="replace")

    @property
    def stop(self) -> Stop | None:
        return self.stops[0] if self.stops else None

    @property
    def ended(self) -> bool:
        return self._hung_up

    def go(self, steps: int = 1, *, seconds: float = HANGS_AFTER) -> Stop | None:
        """Let the thread that came first go on for so many steps; where it, or another, stops next.

        None: it has ended, or after `seconds` is neither at its end nor at a step.
        """
        stop = self.stops[0]
        with self._stage.changed:
            self.stops.remove(stop)
        self.taken += steps
        self._send({"go": stop.thread, "steps": steps})
        return self.settle(seconds)

    def settle(self, seconds: float = HANGS_AFTER) -> Stop | None:
        """Wait until it stops or ends."""
        self._stage.wait(lambda: bool(self.stops) or self._hung_up, seconds)
        return self.stop

    def arm(self, steps: int, kinds: Sequence[str] = KINDS) -> None:
        """Have it stop before the step after so many of these kinds, counted from now on."""
        self._armed = False
        self._send({"arm": steps, "kinds": list(kinds)})
        assert self._stage.wait(lambda: self._armed or self._hung_up, HANGS_AFTER), "it hangs"

    def free(self) -> None:
        """Let it run without stopping again."""
        with self._stage.changed:
            self.stops.clear()
        self._send({"free": True})

    def finish(self) -> int:
        """Let it run to its end; its exit code."""
        self.free()
        return self.wait()

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        """End it there and then, and wait until the kernel has taken all that it had; its exit code."""
        if self.code is None:
            os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> int:
        if self.code is None:
            assert self._stage.wait(lambda: self._hung_up, HANGS_AFTER), f"{self.words} hangs: {self.output}"
            self.code = int(self._stage.order({"wait": self.pid})["code"])
            self._reader.join()
            self._line.close()
        return self.code

    def _send(self, order: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._line.sendall(json.dumps(order).encode() + b"\n")

    def _follow(self) -> None:
        with contextlib.suppress(OSError), self._line.makefile("r") as told:
            for text in told:
                self._note(json.loads(text))
        with self._stage.changed:
            self._hung_up = True
            self.stops.clear()
            self._stage.changed.notify_all()

    def _note(self, message: dict[str, Any]) -> None:
        with self._stage.changed:
            match message:
                case {"stop": thread, "kind": kind, "what": what, "locked": locked}:
                    self.stops.append(Stop(thread, kind, what, locked))
                case {"armed": _}:
                    self._armed = True
            self._stage.changed.notify_all()


def leave(other: Command | None) -> float:
    """Seconds to wait for something that `other` may be in the way of."""
    if other is None or other.ended:
        return HANGS_AFTER
    return BLOCKED if other.stop is not None and other.stop.locked else LEAVE
