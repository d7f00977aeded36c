"""What a process of ours, which is nobody's library, may do with Python's collector, to start sooner and to
stay small."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

# New objects between two looks of the collector, instead of 700. What a run makes many of (descriptors,
# steps, chunks) is in no cycle; looking among them took 4 % of a cold run, and grew with every image planned.
GC_THRESHOLD = 50_000


@contextmanager
def fast_imports() -> Iterator[None]:
    """To be inside of while most of the program is imported.

    aiohttp reads the system's certificates as it is imported, which takes as long as all of blobflow, and we
    never use what it makes of them (see `trust.system_trust`): OpenSSL finds none while inside. What was
    imported stays, and the collector need never look at it again.
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
    """Let the collector look less often, and never again at what is there now.

    Not once a run is over: what is frozen while one is under way stays for ever after it, event loop and all.
    """
    if not _frozen_for_good:
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)


def collect_garbage() -> None:
    """Between two runs of a process that stays: what the last one left behind in cycles goes now.

    With LOOK_AFTER it would go after a hundred runs or more, and each holds an event loop, with a buffer of
    256 KiB that the collector does not count. Takes some milliseconds: what was frozen is not looked at.
    """
    global _settled
    _frozen_for_good = True
    gc.collect()
