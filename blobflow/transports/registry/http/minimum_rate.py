"""The minimum rate: a response body that comes too slowly is aborted.

A timeout on silence is not enough. A peer that sends a byte now and then is never silent, and would hold a
request, its permit, and whoever waits for it, for as long as it likes.

Only waiting counts: the time in which a reader is busy, or held back by a limit of ours, is not the peer's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# In so many seconds of waiting at least so many bytes have to come, or the end. It is half of what is left of
# a modem's 56 kbit/s for each of 24 requests at once (16 small, 8 streams): a slow line is no reason to give
# up. 4 MiB, the longest manifest, take ten minutes there alone, and pass. The delay of a path (a satellite's
# is 0.6 s) is nothing to it. Of what drips, a byte a second, a minute is seen.
MINIMUM_BYTES = 8 * 1024
MINIMUM_SECONDS = 60.0
# How often in that time it is looked at: what is too slow is given up within so much more.
_CHECKS = 4


class TooSlow(TimeoutError):
    """`brought`: the bytes that came in `waited` seconds of waiting for them."""

    def __init__(self, brought: int, waited: float) -> None:
        super().__init__(f"{brought} bytes in {waited:.0f} s")
        self.brought = brought
        self.waited = waited


class MinimumRate:
    """Looks after one body, from now until `stop`. Calls `fail` once, from the loop, when it is too slow."""

    def __init__(
        self, fail: Callable[[TooSlow], None], *, least: int = MINIMUM_BYTES, seconds: float = MINIMUM_SECONDS
    ) -> None:
        self._fail = fail
        self._least = least
        self._seconds = seconds
        self._now = asyncio.get_running_loop().time
        self._since: float | None = None
        self._waited = 0.0
        self._brought = 0
        self._watch: asyncio.TimerHandle | None = None
        self._look()

    def waiting(self) -> None:
        """The next bytes are wanted from now on."""
        if self._since is None:
            self._since = self._now()

    def came(self, size: int) -> None:
        """So many bytes are here; until the next `waiting` the peer owes nothing."""
        if self._since is not None:
            self._waited += self._now() - self._since
            self._since = None
        self._brought += size
        if self._brought >= self._least:
            self._brought, self._waited = 0, 0.0

    def stop(self) -> None:
        """Nothing more is owed."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _look(self) -> None:
        if self._since is not None:  # else it is the reader's turn, and there is nobody to be woken
            waited = self._waited + self._now() - self._since
            if waited >= self._seconds:
                self._watch = None
                self._fail(TooSlow(self._brought, waited))
                return
        self._watch = asyncio.get_running_loop().call_later(self._seconds / _CHECKS, self._look)
