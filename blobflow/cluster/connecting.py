"""The way to a cluster: a scheduler elsewhere, or one in this process with workers of this machine."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

import dask
import msgspec
from distributed import Client, LocalCluster, Security
from distributed.versions import VersionMismatchWarning

from blobflow.cluster import tasks
from blobflow.cluster.address import Engine
from blobflow.cluster.scratch import scratch_folder
from blobflow.cluster.security import TIME_FLAWS, security_of, time_flaw
from blobflow.cluster.terms import Versions, versions_here
from blobflow.cluster.worker_side import WorkerOptions, WorkerSide
from blobflow.errors import ConnectFailed, EngineLost, UntrustedPeer
from blobflow.printable import printable
from blobflow.settings import Settings

# Seconds in which a scheduler has to let us in.
CONNECT_SECONDS = 15.0
# Transfers at once that a local worker has room for; how many there are is for the limits of hosts to say.
LOCAL_THREADS = 32
# Seconds that the scheduler has to take notice of the end of a run.
CLOSE_SECONDS = 5.0
_LOGGERS = ("distributed", "distributed.client", "tornado.application", "asyncio")


@asynccontextmanager
async def connected(engine: Engine, settings: Settings) -> AsyncIterator[Client]:
    """A client of the engine's scheduler. For local workers, that are started here, with these settings.

    Raises ConnectFailed and UntrustedPeer where nobody lets us in, in bounded time; InvalidConfig for
    certificates that can't be used; EngineLost for a scheduler that is of no use.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(quiet_logs())
        if engine.local:
            address: Any = await stack.enter_async_context(_local_cluster(engine.local, settings))
            security = address.security
        else:
            address, security = engine.address, security_of(engine)
        client = await _connect(engine, address, security)
        stack.push_async_callback(_close, client)
        if not engine.local:
            await _check_scheduler(client, engine)
        yield client


async def _close(client: Client) -> None:
    """Close a client; one whose scheduler stands still waits for its answers no longer than that."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()


@asynccontextmanager
async def _local_cluster(workers: int, settings: Settings) -> AsyncIterator[LocalCluster]:
    """Workers in processes of their own, and their scheduler in this one, on loopback, by TLS: without it
    anybody on this machine could have them run code. Settings go to them by a pipe. Raises ConnectFailed
    where they don't start."""
    options = WorkerOptions(settings=settings, ignores_interrupts=True)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        stack.enter_context(worker_configuration())
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=LOCAL_THREADS,
            memory_limit=0,
            asynchronous=True,
            security=Security.temporary(),
            # Without an address Dask takes port 8787, and warns on standard error where that is taken.
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            silence_logs=logging.CRITICAL,
            local_directory=folder,
            plugins=(WorkerSide(options),),
        )
        try:
            await stack.enter_async_context(cluster)
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ConnectFailed(
                f"the processes of local:{workers} don't start: {printable(str(error))}; "
                'a script that asks for them does so below `if __name__ == "__main__":`'
            ) from None
        yield cluster


@contextmanager
def worker_configuration() -> Iterator[None]:
    """Dask's configuration for workers that are started by us: no pages, and the loop of all of blobflow."""
    with dask.config.set(
        {
            "distributed.admin.event-loop": "uvloop",
            "distributed.scheduler.http.routes": [],
            "distributed.worker.http.routes": [],
            "distributed.worker.use-file-locking": False,
        }
    ):
        yield


async def _connect(engine: Engine, address: Any, security: Security) -> Client:
    timeout = {"distributed.comm.timeouts.connect": CONNECT_SECONDS}
    with dask.config.set(timeout), warnings.catch_warnings():
        warnings.simplefilter("ignore", VersionMismatchWarning)  # what matters is compared by us
        try:
            client = Client(
                address,
                asynchronous=True,
                security=security,
                timeout=CONNECT_SECONDS,
                set_as_default=False,
            )
            try:
                # Its own bound is not kept by a peer that takes the connection and then says nothing.
                async with asyncio.timeout(CONNECT_SECONDS):
                    await client
            except BaseException:
                await _close(client)
                raise
        except (OSError, ImportError, TypeError, ValueError) as error:
            late = "timed out" in _chain(error).lower() or isinstance(error, TimeoutError)
            raise unconnected(engine, error, CONNECT_SECONDS if late else 0) from None
        return client


def unconnected(engine: Engine, error: Exception, seconds: float) -> ConnectFailed:
    """Why the scheduler did not let us in in so many seconds, as one sentence; 0: at once."""
    words, where = _chain(error), engine.address
    if "CERTIFICATE_VERIFY_FAILED" in words:
        flaw = next((flaw for sign, flaw in TIME_FLAWS.items() if sign in words), "")
        shown = f"that {flaw} by this machine's clock" if flaw else "that --engine-ca did not sign"
        return UntrustedPeer(f"the scheduler at {where} shows a certificate {shown}")
    refused = f"the scheduler at {where} does not accept the certificate of --engine-cert"
    if ("SSL" in words or "ssl" in words) and (flaw := time_flaw(engine)):
        return UntrustedPeer(f"{refused}, which {flaw} by this machine's clock")
    if "ALERT" in words or "certificate required" in words:
        return UntrustedPeer(refused)
    if "SSL" in words or "ssl" in words:
        # By TLS 1.3 a certificate is refused after the handshake, and may look like a peer that hangs up.
        return UntrustedPeer(
            f"TLS with the scheduler at {where} failed: it does not accept the certificate of --engine-cert, "
            "or it is one without TLS, which is dask://"
        )
    if isinstance(error, ImportError):
        return ConnectFailed(f"the scheduler at {where} does not fit: {printable(str(error))}")
    hint = "" if where.startswith("tls://") else "; if it speaks TLS, say tls:// and give its certificates"
    within = f" in {seconds:.0f} s" if seconds else ""
    return ConnectFailed(f"no Dask scheduler answers at {where}{within}{hint}")


def _chain(error: BaseException | None) -> str:
    """All that an exception says, with what led to it."""
    words: list[str] = []
    while error is not None and len(words) < 10:
        words.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "; ".join(words)


async def _check_scheduler(client: Client, engine: Engine) -> None:
    """The scheduler unpacks what it passes on, so it has to have blobflow too. Raises EngineLost."""
    where = f"the scheduler at {engine.address}"
    try:
        answer = await client.run_on_scheduler(tasks.scheduler_versions)
        there = msgspec.convert(answer, Versions)
    except ImportError:
        raise EngineLost(f"{where} has no blobflow, or another version of it; install it there") from None
    except (OSError, msgspec.ValidationError, ValueError, AttributeError) as error:
        raise EngineLost(f"{where} can't be asked for its version: {printable(str(error))}") from None
    if difference := versions_here().difference(there):
        raise EngineLost(f"{where} {difference}")


@contextmanager
def quiet_logs() -> Iterator[None]:
    """Dask logs with tracebacks what is said here in a sentence, or is nothing: a heartbeat that is late."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
