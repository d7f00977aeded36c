"""A Python that has imported all of blobflow, and forks programs off itself: they start in milliseconds.

Most of what a short command takes is Python's start and its imports. A test suite that runs thousands of them
pays for that once here. What is forked is a process of its own, with its own arguments, environment, folder
and streams, and runs `blobflow.cli.main`. What it does not show is whether a module imports what it needs:
so the first command with a verb is to be started as users start it (`start`).

    python -m tools.warm FD ROOM...

imports all of these packages, and takes orders from the socket FD until its other side is closed. An order is
eight bytes of length, which bring descriptors along (standard output, standard error, and a socket for the
answer), and so many bytes of JSON: `words`, `folder`, `environment`. The answer is the program's pid as a
line of digits, at once, and when the program has ended a line of JSON: its exit code, -N for signal N, and
what measure.py tells.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from importlib import import_module
from typing import IO, Any

from tools.checkout import TOP

_LENGTH = 8
ROOMS = ("blobflow.cli", "blobflow.server", "blobflow.transports", "blobflow.operations")
# Of what runs on a cluster, alone: nothing else imports Dask.
CLUSTER = (*ROOMS, "blobflow.cluster")


# The side that asks


class WarmPython:
    """Starts programs off a warm Python, which is started itself when it is first needed, and then imports
    these `rooms`. Used by any thread; `close` it."""

    def __init__(self, rooms: Sequence[str] = ROOMS) -> None:
        self._rooms = rooms
        self._lock = threading.Lock()
        self._orders: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self, words: Sequence[str], environment: Mapping[str, str], out: IO[Any], err: IO[Any]
    ) -> WarmProcess:
        """Start `blobflow` with these words, in the checkout's folder and a session of its own."""
        order = {"words": list(words), "folder": str(TOP), "environment": dict(environment)}
        data = json.dumps(order).encode()
        answers, theirs = socket.socketpair()
        with closing(theirs), self._lock:
            orders = self._orders or self._begin()
            streams = [out.fileno(), err.fileno(), theirs.fileno()]
            socket.send_fds(orders, [len(data).to_bytes(_LENGTH, "big")], streams)
            orders.sendall(data)
        return WarmProcess(answers)

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with closing(theirs):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tools.warm", str(theirs.fileno()), *self._rooms],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=TOP,
            )
        self._orders = ours
        return ours

    def close(self) -> None:
        """End the warm Python. Programs that run go on."""
        if self._orders is not None and self._process is not None:
            self._orders.close()
            self._process.wait()
            self._orders = self._process = None


class WarmProcess:
    """A program that was started: what is used of `subprocess.Popen`. `figures`, once it has ended: what
    measure.py tells."""

    def __init__(self, answers: socket.socket) -> None:
        self._answers = answers
        self._text = b""
        self.returncode: int | None = None
        self.figures: dict[str, Any] = {}
        self.pid = int(self._line(None))

    def poll(self) -> int | None:
        """The exit code, -N for signal N; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None:
            self.figures = json.loads(self._line(timeout))
            self.returncode = int(self.figures.pop("code"))
            self._answers.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Does nothing once it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _line(self, timeout: float | None) -> bytes:
        """The next line. Raises subprocess.TimeoutExpired, EOFError if nobody writes any more."""
        self._answers.settimeout(timeout)
        while b"\n" not in self._text:
            try:
                piece = self._answers.recv(4096)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("blobflow", timeout or 0) from None
            if not piece:
                raise EOFError("the warm Python is gone")
            self._text += piece
        line, _, self._text = self._text.partition(b"\n")
        return line


def start(
    words: Sequence[str], environment: Mapping[str, str], out: IO[Any], err: IO[Any]
) -> WarmProcess | None:
    """Start `blobflow` with these words off the warm Python of this process; None if nothing has started this
    verb yet: that is for the real command."""
    verb = next((word for word in words if not word.startswith("-")), "")
    if verb not in _started:
        _started.add(verb)
        return None
    rooms = CLUSTER if verb == "worker" or "--engine" in words else ROOMS
    return _warm_python(rooms).start(words, environment, out, err)


_started: set[str] = set()


@functools.cache
def _warm_python(rooms: Sequence[str]) -> WarmPython:
    warm = WarmPython(rooms)
    atexit.register(warm.close)
    return warm


# The warm Python


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = socket.socket(fileno=int(sys.argv[1]))
    import_all(sys.argv[2:])
    while True:
        length, streams, _, _ = socket.recv_fds(orders, _LENGTH, 3)
        if not length:
            return
        size = int.from_bytes(length, "big")
        data = b""
        while len(data) < size:
            data += orders.recv(size - len(data))
        if os.fork() == 0:
            os._exit(_watch(orders, streams, json.loads(data)))
        for each in streams:
            os.close(each)
        _reap()


def _reap() -> None:
    """Forget those who watched programs that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def import_all(rooms: Sequence[str] = ROOMS) -> None:
    """All that a command might import, so that none has to."""
    for room in rooms:
        package = import_module(room)
        for module in pkgutil.walk_packages(package.__path__, f"{room}."):
            import_module(module.name)
    gc.freeze()  # what is not looked at stays shared


def _watch(orders: socket.socket, streams: list[int], order: dict[str, Any]) -> int:
    """Fork the program, and tell how it ended: as measure.py does. Lives as long as it."""
    orders.close()
    out, err, answers = streams
    begin = time.monotonic()
    program = os.fork()
    if program == 0:
        os.close(answers)
        os._exit(_be(order, out, err))
    os.close(out)
    os.close(err)
    os.write(answers, f"{program}\n".encode())
    _, status, usage = os.wait4(program, 0)
    figures = {
        "code": os.waitstatus_to_exitcode(status),
        "wall": time.monotonic() - begin,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * 1024,
    }
    with suppress(ConnectionError):  # whoever asked has ended
        os.write(answers, json.dumps(figures).encode() + b"\n")
    return 0


def _be(order: dict[str, Any], out: int, err: int) -> int:
    """Be the program, to its end. Returns its exit code."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, number in ((out, 1), (err, 2)):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(order["folder"])
    adopt_environment(order["environment"])
    return run_blobflow(order["words"])


def adopt_environment(environment: Mapping[str, str]) -> None:
    """Have exactly these variables, also where a library has read others as it was imported: Dask does."""
    os.environ.clear()
    os.environ.update(environment)
    if "dask.config" in sys.modules:
        from dask import config

        config.refresh(paths=config._get_paths())


def run_blobflow(words: Sequence[str]) -> int:
    """Run the command in this process, to what the interpreter does in the end. Returns its exit code."""
    sys.argv = ["blobflow", *words]
    from blobflow.__main__ import main

    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:  # noqa: BLE001  as the interpreter would: told, and exit code 1
        traceback.print_exc()
        code = 1
    # Threads, what was asked to be done, the streams.
    vars(threading)["_shutdown"]()
    vars(atexit)["_run_exitfuncs"]()
    for text in (sys.stdout, sys.stderr):
        text.flush()
    return code if isinstance(code, int) else bool(code)


if __name__ == "__main__":
    main()
