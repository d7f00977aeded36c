"""Learns where a registry refuses HEAD, or answers it differently from GET.

Firewalls, and storage that signs its addresses for GET alone, answer HEAD with 400, 401, 403, 405 or 501,
and some registries with 404, of what GET then gives. So a refused HEAD is followed by a GET, and what came of
that is remembered: where GET answered, HEAD is not sent any more; where it was refused too, that refusal is
taken at its word in this repository; and where a HEAD ever found something, all are.

A body behind the answer to a HEAD, as hand-made servers send it, makes an answer that is no HTTP; GET is sent
then, too.

A 404 is what ordinary registries say of what is not there, mostly at targets. It is doubted only where the
thing has to exist: at a source that is asked for it by name, or where it was put before.
"""

from __future__ import annotations

from blobflow.bounded_cache import BoundedCache
from blobflow.content import Journal
from blobflow.errors import ProtocolViolation, RegistryError

_REFUSALS = frozenset({400, 401, 403, 404, 405, 501})
# Repositories for which something is remembered: a pull-through server is asked for any number.
_ENTRIES = 10_000


class HeadSupport:
    """How one host answers HEAD, for one `kind` of content."""

    def __init__(self, host: str, kind: str, journal: Journal) -> None:
        self._host = host
        self._note = f"{kind}: HEAD is not to be believed"
        self._journal = journal
        self._works: BoundedCache[str, bool] = BoundedCache(entries=_ENTRIES)
        self._refused: BoundedCache[str, bool] = BoundedCache(entries=_ENTRIES)
        self._meant: BoundedCache[tuple[str, int], bool] = BoundedCache(entries=_ENTRIES)
        self._ever_worked = False
        self._everywhere: bool | None = None

    def are_sent(self, repository: str) -> bool:
        """Whether HEAD is worth sending; else GET is."""
        if self._everywhere is None:
            self._everywhere = self._journal.note(self._host, self._note) is not None
        if self._works.get(repository):
            return True
        return not (self._refused.get(repository) or (self._everywhere and not self._ever_worked))

    def worked(self, repository: str) -> None:
        """A HEAD found something."""
        self._ever_worked = True
        if not self._works.get(repository):
            self._works.put(repository, True)

    def is_doubtful(
        self, repository: str, error: RegistryError, *, expected: bool, put: bool = False
    ) -> bool:
        """Whether a GET may answer what HEAD was refused with. `expected`: the thing has to exist; `put`: it
        was put by us."""
        if error.method != "HEAD":
            return False
        if isinstance(error, ProtocolViolation):
            return True  # whether it is met depends on how the bytes come
        if error.status not in _REFUSALS:
            return False
        if put:
            return True
        if self._works.get(repository):
            return False
        if error.status == 404:
            return expected
        return not self._meant.get((repository, error.status))

    def was_wrong(self, repository: str, status: int, *, surely: bool) -> None:
        """GET gave what HEAD had refused with `status`; `surely`: the registry itself had.

        Only that it is told not to be there has to outlive the process: everything else is seen again, at the
        cost of one HEAD.
        """
        self._refused.put(repository, True)
        if surely:
            self._everywhere = True
        if surely and status == 404:
            self._journal.record_note(self._host, self._note, "yes")

    def was_right(self, repository: str, status: int) -> None:
        """GET was refused too."""
        self._meant.put((repository, status), True)
