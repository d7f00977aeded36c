"""Leases: they keep gc, in whatever process, away from content that a live process uses.

A lease is a row that its holder renews. It is dead when it was not renewed for LEASE_SECONDS, when it is of
another boot, or when its process is gone. Process numbers mean something only within one pid namespace, so
of a holder in another one (a container that shares the store) only the renewals tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

from blobflow.oci import Digest
from blobflow.transports.store.clock import now
from blobflow.transports.store.state.database import State
from blobflow.transports.store.state.group_commit import Call

# Long enough for a process that is stopped or swapped out for a while, short enough that what a crashed
# container held can be evicted soon. Renewed three times as often.
LEASE_SECONDS = 90


def boot() -> str:
    """This boot and pid namespace, as `boot-id/namespace`.

    Where the system does not tell them (macOS), a constant: then process and renewals decide alone.
    """
    parts = ["unknown", ""]
    with contextlib.suppress(OSError):
        parts[0] = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        parts[1] = str(Path("/proc/self/ns/pid").readlink())
    return "/".join(parts)


def is_alive(pid: int, holder_boot: str, heartbeat: int, *, at: int, here: str) -> bool:
    """Whether a holder still lives at Unix second `at`, seen from the boot `here`.

    A heartbeat from the future (the clock went back) is no sign of death; the process decides.
    """
    if at - heartbeat > LEASE_SECONDS:
        return False
    boot_id, _, namespace = holder_boot.partition("/")
    boot_here, _, namespace_here = here.partition("/")
    if boot_id != boot_here:
        return False
    return namespace != namespace_here or _exists(pid)


def _exists(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Leases:
    """The leases of this process in one store, renewed while there are any and a loop runs."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.boot = boot()
        self._held: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def acquire_now(self, digest: Digest) -> str:
        """Keep the content from eviction until `release` of the lease returned. Raises StorageError.

        Nothing evicts from a store that is open read-only by way of us, so there it is no row.
        """
        lease = secrets.token_hex(8)
        if not self._state.read_only:
            self._write(lease, digest)
            self._have(lease)
        return lease

    async def acquire(self, digest: Digest) -> str:
        """As `acquire_now`, without waiting for the disk on the loop's thread."""
        lease = secrets.token_hex(8)
        if not self._state.read_only:
            await self._state.commit(Call(lambda: self._write(lease, digest), durable=False))
            self._have(lease)
        return lease

    def _write(self, lease: str, digest: Digest) -> None:
        self._state.write(
            "INSERT INTO leases(id, digest, pid, boot, heartbeat) VALUES (?, ?, ?, ?, ?)",
            lease,
            digest,
            os.getpid(),
            self.boot,
            now(),
        )

    def _have(self, lease: str) -> None:
        self._held.add(lease)
        self._renew_later()

    def release(self, lease: str) -> None:
        """Give the lease back. Never raises: a row that can't be deleted dies of its age."""
        if lease not in self._held:
            return
        self._held.discard(lease)
        self._state.later(lambda: self._state.write("DELETE FROM leases WHERE id = ?", lease))
        if not self._held and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def renew(self) -> None:
        """Say that we live. A failure is left to the next renewal."""
        rows = [(now(), lease) for lease in self._held]
        self._state.later(
            lambda: self._state.write_many("UPDATE leases SET heartbeat = ? WHERE id = ?", rows)
        )

    def living(self) -> set[Digest]:
        """What anyone holds now."""
        at = now()
        return {Digest(row[1]) for row in self._rows() if self._lives(row, at)}

    def sweep(self) -> None:
        """Remove dead leases, and put heartbeats from the future (the clock went back) to now.

        Who lives renews its lease all the same; who died in another namespace would otherwise keep one for
        as long as the clock was wrong. Raises StorageError.
        """
        at = now()
        dead: list[tuple[str]] = []
        early: list[tuple[int, str]] = []
        for row in self._rows():
            if not self._lives(row, at):
                dead.append((row[0],))
            elif row[4] > at:
                early.append((at, row[0]))
        self._state.write_many("DELETE FROM leases WHERE id = ?", dead)
        self._state.write_many("UPDATE leases SET heartbeat = ? WHERE id = ?", early)

    def _rows(self) -> list[tuple[Any, ...]]:
        return self._state.rows("SELECT id, digest, pid, boot, heartbeat FROM leases")

    def _lives(self, row: tuple[Any, ...], at: int) -> bool:
        lease, _, pid, holder_boot, heartbeat = row
        return lease in self._held or is_alive(pid, holder_boot, heartbeat, at=at, here=self.boot)

    def close(self) -> None:
        for lease in list(self._held):
            self.release(lease)

    def _renew_later(self) -> None:
        if self._timer is not None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # held by synchronous code, which has to be done within LEASE_SECONDS
            return
        self._timer = loop.call_later(LEASE_SECONDS / 3, self._beat)

    def _beat(self) -> None:
        self._timer = None
        self.renew()
        self._renew_later()
