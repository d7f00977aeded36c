"""The store's clock."""

from __future__ import annotations

import time


def now() -> int:
    """Unix seconds, for ages and order only, so that a clock that goes back does no harm."""
    return int(time.time())
