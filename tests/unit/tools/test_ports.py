"""Ports for servers of tests: nobody else is given one while its owner lives."""

from __future__ import annotations

import socket
import subprocess
import sys

from tools.checkout import TOP
from tools.ports import reserve_port


def test_a_port_is_given_once_and_can_be_bound() -> None:
    given = [reserve_port() for _ in range(20)]
    assert len({*given}) == 20
    for port in given:
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))


def test_another_process_is_not_given_it() -> None:
    script = f"from tools import ports; print(ports._lock({reserve_port()}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=TOP, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
