"""`blobflow worker`: a worker as a process of its own, from its start to its end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from distributed import Worker
from distributed.comm.core import connect
from distributed.core import Status

from blobflow.cluster.address import Engine
from blobflow.cluster.connecting import quiet_logs, unconnected, worker_configuration
from blobflow.cluster.members import PLACES
from blobflow.cluster.scratch import scratch_folder
from blobflow.cluster.security import security_of
from blobflow.cluster.worker_side import WorkerOptions, WorkerSide
from blobflow.errors import ConnectFailed, EngineLost, UntrustedPeer
from blobflow.printable import printable

# Seconds of one attempt to reach the scheduler, and between two.
ATTEMPT_SECONDS = 5.0
PAUSE_SECONDS = 0.5
# Why Dask closes a worker whose scheduler does not answer any more, or has forgotten it.
_LOST = ("worker-handle-scheduler-connection-broken", "worker-heartbeat-missing", "worker-heartbeat-error")

# Errors of an address that is another machine's, or taken.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EACCES)


class WorkerPlace(msgspec.Struct, frozen=True):
    """Where and how a worker works. `connections`: blobs at once; `listen`: host and port that others reach
    it at, None: where the way to the scheduler begins; `patience` and `grace`: seconds for the scheduler to
    come up, and for blobs under way once it is to end."""

    name: str | None = None
    store: Path | None = None
    connections: int = 32
    listen: tuple[str, int] | None = None
    patience: float = 60.0
    grace: float = 25.0


class WorkerProcess:
    """A worker in this process. `tell` is called with sentences for who runs it."""

    def __init__(self, engine: Engine, place: WorkerPlace, tell: Callable[[str], None]) -> None:
        self._engine = engine
        self._place = place
        self._tell = tell
        self._draining = False

    def drain(self) -> None:
        """From its cancellation on let what is under way end, in the grace that it has."""
        self._draining = True

    async def serve(self) -> None:
        """Work until cancelled, or until the cluster wants this worker no more; both return.

        Raises ConnectFailed and UntrustedPeer where no scheduler lets it in, InvalidConfig for certificates
        that can't be used, and EngineLost where the scheduler is lost later.
        """
        name = self._place.name or f"{socket.gethostname().partition('.')[0]}-{os.getpid()}"
        security = security_of(self._engine)
        side = WorkerSide(WorkerOptions(store=self._place.store))
        host, port = self._place.listen or (None, 0)
        if host and ":" in host:
            host = f"[{host}]"
        with scratch_folder() as folder, worker_configuration(), quiet_logs():
            await self._find_scheduler(security)
            worker: Any = _EndingWorker(
                self._engine.address,
                # Twice as many: a blob keeps its thread while one of its targets does not answer.
                nthreads=2 * self._place.connections,
                resources={PLACES: self._place.connections},
                name=name,
                host=host,
                port=port,
                security=security,
                memory_limit=0,
                death_timeout=max(ATTEMPT_SECONDS, self._place.patience),
                local_directory=folder,
                silence_logs=logging.CRITICAL,
                plugins=(side,),
            )
            try:
                await worker
            except (OSError, TimeoutError, RuntimeError) as error:
                raise self._not_started(name, error) from None
            self._tell(f"blobflow worker {name} at {worker.address}, for {self._engine.address}")
            try:
                await worker.finished()
            except asyncio.CancelledError:
                self._tell("stopping")
                await self._end(worker, side)
                return
            if worker.reason in _LOST and not await self._answers(security):
                raise EngineLost(f"the scheduler at {self._engine.address} is gone; start the worker again")
            self._tell("stopping: the cluster wants this worker no more")

    async def _find_scheduler(self, security: Any) -> None:
        """Wait until a scheduler answers. Raises ConnectFailed and UntrustedPeer."""
        until = time.monotonic() + self._place.patience
        while True:
            try:
                await self._greet(security)
            except (OSError, TimeoutError, TypeError, ValueError) as error:
                failure = unconnected(self._engine, error, self._place.patience)
                if isinstance(failure, UntrustedPeer) or time.monotonic() >= until:
                    raise failure from None
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return

    async def _answers(self, security: Any) -> bool:
        """Whether the scheduler is still there: one that retires a worker may cut its connection first."""
        try:
            await self._greet(security)
        except (OSError, TimeoutError, ValueError):
            return False
        return True

    async def _greet(self, security: Any) -> None:
        """Connect once. A peer that takes the connection and says nothing is bounded too, which `connect`
        does not do. Raises what that raises, and TimeoutError."""
        arguments = security.get_connection_args("worker")
        async with asyncio.timeout(ATTEMPT_SECONDS):
            comm = await connect(self._engine.address, timeout=ATTEMPT_SECONDS, **arguments)
        await comm.close()

    def _not_started(self, name: str, error: Exception) -> ConnectFailed:
        """Why there is no worker of that name."""
        cause, where = error.__cause__ or error, self._engine.address
        if "name taken" in str(cause):
            return ConnectFailed(f"{where} has a worker {name} already; give this one another --name")
        if isinstance(cause, OSError) and (cause.errno in _NOT_HERE or isinstance(cause, socket.gaierror)):
            host, port = self._place.listen or ("its own address", 0)
            return ConnectFailed(
                f"this machine can't listen at {host}{f':{port}' if port else ''}: {cause.strerror}; "
                "give the worker another --listen"
            )
        return ConnectFailed(f"the scheduler at {where} does not take the worker: {printable(str(cause))}")

    async def _end(self, worker: Worker, side: WorkerSide) -> None:
        """Leave the cluster: carriages that are not begun go to others."""
        if self._draining and worker.status == Status.running:
            worker.status = Status.paused
            await side.drain(self._place.grace)
        await side.close()
        await worker.close(reason="blobflow-worker-stopped")


class _EndingWorker(Worker):
    """A worker that remembers why it was closed first."""

    reason = ""

    async def close(self, *arguments: Any, **named: Any) -> Any:
        """See `Worker.close`."""
        self.reason = self.reason or str(named.get("reason", ""))
        return await super().close(*arguments, **named)
