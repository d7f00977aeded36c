"""`blobflow worker`: a worker for the runs of others."""

from __future__ import annotations

import click

from blobflow.cli.options.worker import WorkerVerbOptions, worker_options
from blobflow.cli.output.stdio import print_lines
from blobflow.cli.runtime.event_loop import SHUTDOWN, raise_open_file_limit, run_loop
from blobflow.cli.runtime.listen_address import parse_listen_address
from blobflow.cli.verb import Verb


@click.command("worker", cls=Verb)
@click.argument("scheduler")
@worker_options
def verb(scheduler: str, options: WorkerVerbOptions) -> None:
    """Carry blobs for runs with --engine, at a Dask scheduler, until Ctrl-C or SIGTERM.

    SCHEDULER is dask://HOST:PORT, tls://HOST:PORT or HOST:PORT; `dask scheduler` starts one. Logins,
    certificates, proxies and config.toml are this machine's, as those of any run here; a run says which hosts
    speak plain HTTP, how it uses the store, and this worker's share of its limits.

    Where the scheduler is lost, the worker ends with exit code 4, and is to be started again.

    \b
      blobflow worker tls://scheduler.example.com --engine-ca ca.pem --engine-cert w.pem --engine-key w.key
    """
    from blobflow.cluster.address import has_port, parse_scheduler
    from blobflow.cluster.extra import with_extra

    engine = parse_scheduler(
        scheduler, ca=options.engine_ca, cert=options.engine_cert, key=options.engine_key
    )
    with with_extra("a worker"):
        from blobflow.cluster.worker_process import WorkerPlace, WorkerProcess
    listen = None
    if options.listen:
        said = options.listen if has_port(options.listen) else f"{options.listen}:0"
        listen = parse_listen_address(said)
    place = WorkerPlace(
        options.name, options.store, options.connections, listen, options.patience, options.grace
    )
    process = WorkerProcess(engine, place, lambda sentence: print_lines(sentence, err=True))

    async def work() -> None:
        def wind_down() -> bool:
            process.drain()
            return False  # the worker's cancellation takes its time, then

        shutdown = SHUTDOWN.get()
        shutdown.wind_down, shutdown.grace = wind_down, options.grace
        await process.serve()

    raise_open_file_limit()
    run_loop(work())
