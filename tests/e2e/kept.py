"""What is long in the making and the same the next time: end-to-end tests keep it in the user's cache."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blobflow.oci import digest_of


def kept_folder(name: str, recipe: str) -> Path:
    """Where something is kept that is made by this recipe; another recipe has another folder."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blobflow-tests"
    return caches / f"{name}-{digest_of(recipe.encode())[-12:]}"


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Nobody else makes the folder meanwhile; whether it was made whole before. It is, if this ends well."""
    folder.mkdir(parents=True, exist_ok=True)
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = Path(f"{folder}.complete")
        yield stamp.exists()
        stamp.touch()
