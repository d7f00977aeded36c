"""Ports of 127.0.0.1 for servers that a test starts, each reserved on this machine.

A port that the kernel calls free may be taken between that answer and a server's bind: by another test, or by
a client's own end of a connection. So ports come from below the range that clients' ends are taken from, and
a lock on a file, which ends with this process, keeps each from every other process that asks here.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from itertools import chain
from pathlib import Path

# Linux takes clients' ends from 32768 on, the BSDs and IANA from 49152 on.
_FIRST, _END = 20_000, 32_768
_ANSWER_SECONDS = 30.0
_held: dict[int, int] = {}  # the descriptor of the lock, by port


def reserve_port() -> int:
    """A port of 127.0.0.1 at which nobody listens, and that nobody else is given while this process lives.

    Raises RuntimeError if there is none.
    """
    begin = random.randrange(_FIRST, _END)
    for port in chain(range(begin, _END), range(_FIRST, begin)):
        if port not in _held and (lock := _lock(port)) is not None:
            _held[port] = lock
            if _is_free(port):
                return port
    raise RuntimeError(f"all ports from {_FIRST} to {_END} are taken")


def _lock(port: int) -> int | None:
    """The descriptor that holds the port's lock; None if another process holds it."""
    folder = Path(tempfile.gettempdir()) / f"blobflow-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def takes_connections(host: str) -> bool:
    """Whether somebody listens there."""
    name, _, port = host.rpartition(":")
    try:
        socket.create_connection((name, int(port)), _ANSWER_SECONDS).close()
    except ConnectionError:
        return False
    return True
