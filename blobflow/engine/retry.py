"""Retrying a body: what, how often, how long between. Pure.

Requests without a body are retried inside the transport. A body is retried here, through its `Body`, which
reads again; whether an error may be mended by that is the error's own `retryable`, plus one row:
a digest that did not match gets a single second try, because a flipped bit heals and a wrong blob does not.
"""

from __future__ import annotations

from collections.abc import Callable

from blobflow.errors import BlobflowError, DigestMismatch, Throttled, Unavailable

ATTEMPTS = 5
FIRST_DELAY = 0.25  # seconds; a restarted registry or a reset connection is back in less
LONGEST_DELAY = 30.0  # seconds


def delay_before_retry(error: BlobflowError, attempt: int, random: Callable[[], float]) -> float | None:
    """Seconds to wait after the `attempt`-th failure (1, 2, …); None: give up.

    Exponential with jitter (`random` gives 0 ≤ r < 1), but never less than the registry's Retry-After.
    """
    allowed = 2 if isinstance(error, DigestMismatch) else ATTEMPTS if error.retryable else 1
    if attempt >= allowed:
        return None
    ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** (attempt - 1))
    asked = error.retry_after if isinstance(error, Throttled | Unavailable) else None
    return max(asked or 0.0, ceiling * (0.5 + random() / 2))
