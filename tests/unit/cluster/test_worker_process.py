"""Why a worker does not start, as a sentence that says whose fault it is."""

from __future__ import annotations

import errno
import socket
from collections.abc import Generator
from typing import Any

import pytest
from distributed.comm.addressing import unparse_host_port

from blobflow.cli.runtime.listen_address import parse_listen_address
from blobflow.cluster import worker_process
from blobflow.cluster.address import Engine
from blobflow.cluster.worker_process import WorkerPlace, WorkerProcess
from blobflow.errors import ConnectFailed, InvalidConfig


def begin_without_one(worker: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have that in a worker's place, and no scheduler."""

    async def answer(self: WorkerProcess, security: object) -> None:
        pass

    monkeypatch.setattr(worker_process, "_EndingWorker", worker)
    monkeypatch.setattr(WorkerProcess, "_greet", answer)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (OSError(errno.EADDRINUSE, "in use"), r"can't listen at 10\.0\.0\.1:99: in use; .*another --listen"),
        (socket.gaierror(-2, "not known"), r"can't listen at 10\.0\.0\.1:99: not known"),
        (ValueError("name taken, one"), r"has a worker one already; .*another --name"),
        (ValueError("refused"), r"scheduler at tcp://10\.0\.0\.2:8786 does not take the worker: refused"),
    ],
    ids=["taken", "unknown", "name", "else"],
)
async def test_a_worker_that_does_not_start_says_why(
    cause: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unstarted:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            pass

        def __await__(self) -> Generator[None, None, None]:
            yield
            raise RuntimeError("Worker failed to start.") from cause

    begin_without_one(Unstarted, monkeypatch)
    place = WorkerPlace(name="one", listen=("10.0.0.1", 99))
    with pytest.raises(ConnectFailed, match=words):
        await WorkerProcess(Engine("tcp://10.0.0.2:8786"), place, print).serve()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "[::]:99"])
async def test_a_worker_listens_at_addresses_of_both_kinds(
    listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Asked:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            asked.append(unparse_host_port(named["host"], named["port"]))
            raise InvalidConfig("enough")

    begin_without_one(Asked, monkeypatch)
    place = WorkerPlace(name="one", listen=parse_listen_address(listen))
    with pytest.raises(InvalidConfig, match="enough"):
        await WorkerProcess(Engine("tcp://10.0.0.2:8786"), place, print).serve()
    assert asked == [listen]
