"""Faster start and a small process: imports and Python's garbage collector, tuned for a command.

A library must not do this; a process of its own may.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

# New objects between two collections, instead of 700. What a run makes many of (descriptors, steps, chunks)
# is in no cycle; collecting among them took 4 % of a cold run, and grew with every image planned.
GC_THRESHOLD = 50_000


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import most of the program inside of this.

    aiohttp reads the system's certificates as it is imported, which takes as long as all of blobflow, and we
    never use what it makes of them (see `http.tls`): OpenSSL finds none while inside. The collector
    never visits the imported modules again.
    """
    before = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(before, os.devnull))
    gc.disable()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        gc.enable()
        tune_gc()


_frozen_for_good = False


def tune_gc() -> None:
    """Let the collector run less often, and never again visit the objects of now.

    No effect once a run is over: what is frozen during a run would stay for ever, event loop and all.
    """
    if not _frozen_for_good:
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)


def collect_garbage() -> None:
    """Between two runs of a daemon: free what the last one left behind in cycles.

    With GC_THRESHOLD that would happen after a hundred runs or more, and each holds an event loop, with a
    buffer of 256 KiB that the collector does not count. Takes some milliseconds: frozen objects are not
    visited.
    """
    global _frozen_for_good
    _frozen_for_good = True
    gc.collect()
