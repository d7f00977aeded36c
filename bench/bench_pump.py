"""Micro benchmarks of moving bytes from one socket through sha256 into another, by the size of the buffer.

    python -m pytest bench/bench_pump.py

The same loop as in bench/pump.py, without HTTP; the floor, blobflow's own ways are in `bench.run pump`.
"""

from __future__ import annotations

import hashlib
import socket
import threading

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

KIB = 1024
AMOUNT = 64 * KIB * KIB


@pytest.mark.parametrize("buffer", [64 * KIB, 256 * KIB, 1024 * KIB, 4096 * KIB])
def test_pump_64_mib(benchmark: BenchmarkFixture, buffer: int) -> None:
    def pump() -> None:
        source, near = socket.socketpair()
        far, sink = socket.socketpair()
        with source, near, far, sink:
            threads = [
                threading.Thread(target=_give, args=(source,)),
                threading.Thread(target=_take, args=(sink,)),
            ]
            for thread in threads:
                thread.start()
            view, hashed, left = memoryview(bytearray(buffer)), hashlib.sha256(), AMOUNT
            while left:
                size = near.recv_into(view[: min(left, buffer)])
                hashed.update(view[:size])
                far.sendall(view[:size])
                left -= size
            for thread in threads:
                thread.join()

    benchmark(pump)


def _give(socket: socket.socket) -> None:
    socket.sendall(memoryview(bytes(AMOUNT)))


def _take(socket: socket.socket) -> None:
    view, left = memoryview(bytearray(4096 * KIB)), AMOUNT
    while left:
        left -= socket.recv_into(view)
