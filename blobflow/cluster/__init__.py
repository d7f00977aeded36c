"""A run's blobs carried by workers on other machines, or by more processes on this one: Dask distributed.

    address           what --engine says: a scheduler, or local:N
    terms  shares     what of a run travels to workers, and how the limits of hosts are shared out to them
    coordinator       a cluster that is connected, with the carrier of one run
    when_needed       the same, once something is to be carried: local workers
    connecting        the connection to a scheduler, or workers of our own; foreign errors become sentences
    members           the coordinator's view of the workers: who is there, fit for work, and has how much
    pulse             which of them stand still, and whether the scheduler does
    remote            what the coordinator asks of one worker, beside the tasks
    carrier           the `Carrier`: hands carriages to workers, and again where one died
    standing          the targets that stand still, which others don't wait for
    dispatch  trip    which worker gets a carriage, and when; what became of one over all that had it
    demand            what tells an adaptive cluster that more workers would be worth it
    scratch           folders for Dask, of which no dead worker leaves one
    security  extra   certificates; what is said where Dask is not installed
    progress          figures and news of workers, and how they become the run's
    tasks             the functions that run in workers
    worker_side       all of blobflow in one worker
    run_on_worker     one run's part there: services, copies, figures
    worker_process    `blobflow worker`
    preload           the same for `dask worker --preload`

Nothing of it is imported without --engine or `blobflow worker`; distributed is an extra, `blobflow[dask]`.

Keys, arguments and results of tasks are plain values without secrets: a scheduler logs, shows and dumps them.
The coordinator chooses the worker of each carriage, since it alone knows the limits of hosts; Dask brings it
there, knows who lives, and scales.
"""
