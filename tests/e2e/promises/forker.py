"""Forks `blobflow` commands off one warm process, and can stop each of them before any step that others see.

    python -m tests.e2e.promises.forker SOCKET < orders

A command is a real process: it is forked after everything was imported, so that it starts in milliseconds,
and runs `blobflow.cli.main`. An order is a JSON object a line on standard input, its answer one on standard
output:

    {"run": [WORDS], "out": FILE, "budget": N or null, "kinds": [...], "alone": ...}
                                           starts a command; {"pid": PID}
    {"wait": PID}                          waits for its end; {"code": exit code, -N for signal N}

With the end of standard input the forker kills what still runs.

A *step* is a call that changes or reads what other processes see of a store: removing, renaming or linking a
file, listing a folder, and a statement of sqlite outside of a writing transaction, its BEGIN and its COMMIT.
Audit hooks and sqlite's trace callback tell of these before they happen, however the code comes to them: so
nothing here depends on how the store is written. Each command connects to SOCKET and sends its pid; then

    it sends     {"stop": THREAD, "kind": ..., "what": ..., "locked": ...}
                                           this thread waits before that step; locked: the process is in a
                                           writing transaction
    it takes     {"go": THREAD, "steps": N}
                                           take this step, and N - 1 more before the next stop
                 {"arm": N, "kinds": [...]}
                                           stop before the step after N more of these kinds; {"armed": N}
                 {"free": true}            never stop again

`budget` and `kinds` in the order are the N and the kinds that it starts with; null: it is free. Other threads
go on while one is stopped; `alone`: the first that stops is the only one that ever does. A command that
starts with a budget makes no pauses: a polite one would pause for as long as we had it stopped.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.warm import import_all, run_blobflow

KINDS = ("remove", "rename", "link", "list", "begin", "commit", "read", "write")
_FILE_EVENTS = {
    "os.remove": "remove",
    "os.rename": "rename",
    "os.link": "link",
    "os.listdir": "list",
    "os.scandir": "list",
}
_VERBS = {
    "BEGIN": "begin",
    "COMMIT": "commit",
    "END": "commit",
    "SELECT": "read",
    "WITH": "read",
    "INSERT": "write",
    "REPLACE": "write",
    "UPDATE": "write",
    "DELETE": "write",
}


class Gate:
    """Where the threads of a command wait before a step. `budget`: steps until the next stop; None: none.

    `locked`: how many of its connections are in a writing transaction.
    """

    def __init__(
        self, line: socket.socket, budget: int | None, kinds: Sequence[str] = KINDS, *, alone: bool = False
    ) -> None:
        self._line = line
        self._budget = budget
        self._kinds = frozenset(kinds)
        self._alone = alone
        self._only: int | None = None
        self._changed = threading.Condition()
        self._let: set[int] = set()
        self.locked = 0

    def step(self, kind: str, what: str) -> None:
        """Wait here if the budget is spent."""
        if self._budget is None:
            return
        with self._changed:
            if self._budget is None or kind not in self._kinds:
                return
            if self._budget > 0:
                self._budget -= 1
                return
            me = threading.get_ident()
            if self._alone and self._only not in (None, me):
                return
            self._only = me
            self._send({"stop": me, "kind": kind, "what": what, "locked": self.locked > 0})
            while self._budget is not None and me not in self._let:
                self._changed.wait()
            self._let.discard(me)

    def follow(self) -> None:
        """Take orders until the other side hangs up; then nobody could ever let us go on."""
        with self._line.makefile("r") as orders:
            for text in orders:
                self._take(json.loads(text))
        os.kill(os.getpid(), signal.SIGKILL)

    def _take(self, order: dict[str, Any]) -> None:
        with self._changed:
            match order:
                case {"go": int(thread), "steps": int(steps)}:
                    self._budget = steps - 1
                    self._let.add(thread)
                case {"arm": int(steps), "kinds": list(kinds)}:
                    self._budget = steps
                    self._kinds = frozenset(kinds)
                    self._send({"armed": steps})
                case {"free": True}:
                    self._budget = None
                case _:
                    raise ValueError(f"no such order: {order}")
            self._changed.notify_all()

    def _send(self, message: dict[str, Any]) -> None:
        self._line.sendall(json.dumps(message).encode() + b"\n")


class Statements:
    """Follows the statements of one connection: within a writing transaction only its ends are steps."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._inside = False

    def __call__(self, statement: str) -> None:
        kind = _VERBS.get(statement.lstrip()[:8].partition(" ")[0].rstrip(";").upper())
        if kind == "begin":
            self._gate.step(kind, statement)
            self._enter(inside=True)
        elif kind == "commit":
            self._gate.step(kind, statement)
            self._enter(inside=False)
        elif statement[:8].upper() == "ROLLBACK":
            self._enter(inside=False)
        elif kind is not None and not self._inside:
            self._gate.step(kind, " ".join(statement.split())[:100])

    def _enter(self, *, inside: bool) -> None:
        self._gate.locked += inside - self._inside
        self._inside = inside


def watch(gate: Gate) -> None:
    """Have every step of this process pass the gate, from now on and for good."""

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        kind = _FILE_EVENTS.get(event)
        if kind is not None and isinstance(arguments[0], str | bytes | os.PathLike):
            gate.step(kind, Path(os.fsdecode(arguments[0])).name)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = _connect(*arguments, **options)
        connection.set_trace_callback(Statements(gate))
        return connection

    _connecting.append(connect)
    sys.addaudithook(heard)


def _prepare_sqlite() -> None:
    """Make `sqlite3.connect` what `watch` says, for whoever imports it from now on, and in whatever way.

    (Python's audit event for a new connection comes while it can't be used yet.)
    """

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = _connecting[-1](*arguments, **options)
        return made

    for module in (sqlite3, sqlite3.dbapi2):
        vars(module)["connect"] = connect


_connect = sqlite3.connect
_connecting: list[Callable[..., sqlite3.Connection]] = [_connect]


def _run(order: dict[str, Any], meeting: str) -> int:
    """Be the command, in the child. Returns its exit code."""
    out, budget = order["out"], order["budget"]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1)
    os.dup2(1, 2)
    line = socket.socket(socket.AF_UNIX)
    line.connect(meeting)
    line.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
    gate = Gate(line, budget, order["kinds"], alone=order["alone"])
    threading.Thread(target=gate.follow, daemon=True).start()
    watch(gate)
    if budget is not None:
        vars(asyncio)["sleep"] = _no_pause
    return run_blobflow(order["run"])


async def _no_pause(seconds: float, result: Any = None) -> Any:
    await _sleep(0)
    return result


_sleep = asyncio.sleep


def _fork(order: dict[str, Any], meeting: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _run(order, meeting)
    finally:
        os._exit(code)


def main() -> None:
    meeting = sys.argv[1]
    _prepare_sqlite()
    import_all()
    running: set[int] = set()
    try:
        for text in sys.stdin:
            order = json.loads(text)
            if "run" in order:
                pid = _fork(order, meeting)
                running.add(pid)
                answer = {"pid": pid}
            else:
                _, status = os.waitpid(order["wait"], 0)
                running.discard(order["wait"])
                answer = {"code": os.waitstatus_to_exitcode(status)}
            print(json.dumps(answer), flush=True)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
