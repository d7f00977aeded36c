"""Faster start and a small process: imports and Python's garbage collector, tuned for a command.

A library must not do this; a process of its own may.
"""

from __future__ import annotations

import gc
import importlib.machinery
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType

# New objects between two collections, instead of 700. What a run makes many of (descriptors, steps, chunks)
# is in no cycle; collecting among them took 4 % of a cold run, and grew with every image planned.
GC_THRESHOLD = 50_000
# The module of aiohttp that reads the system's certificates as it is imported.
_READER = "aiohttp.connector"


def prepare_imports() -> None:
    """Call it before the program is imported, whichever of its modules a verb needs first.

    aiohttp reads the system's certificates as it is imported, which takes as long as all of blobflow, and we
    never use what it makes of them (see `http.tls`): OpenSSL finds none meanwhile. The collector finds little
    in what imports make.
    """
    gc.set_threshold(GC_THRESHOLD)
    if _READER not in sys.modules:
        sys.meta_path.insert(0, _ReaderFinder())


class _ReaderFinder(MetaPathFinder):
    """Finds aiohttp's reader of certificates, once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _READER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithoutCertificates(spec.loader)
        return spec


class _WithoutCertificates(Loader):
    """Loads a module while OpenSSL finds no certificates of the system."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with no_certificates():
            self._loader.exec_module(module)


@contextmanager
def no_certificates() -> Iterator[None]:
    """Meanwhile OpenSSL finds no certificates of the system."""
    before = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(before, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
