"""Giving memory back to the system.

glibc keeps what was freed between what is still in use, in each thread's arena: a registry that serves a
million requests grows by that for hours while it holds nothing (seen: 20 to 80 bytes a request).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

_trim: Callable[[int], Any] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


def release_free_memory() -> None:
    """Return pages that hold nothing. Takes some milliseconds, without the interpreter's lock. Does nothing
    where the allocator has no such call (macOS, musl)."""
    if _trim is not None:
        _trim(0)
