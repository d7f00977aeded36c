"""Stale caches between us and a registry, which serve outdated answers: they are detected, reported, and
bypassed.

A cache that makes a GET of every HEAD and keeps what came (nginx, Varnish) keeps a target's "not there" and
its old tags too, also from before a put through that same cache. So what a registry took from us (201) is
held against what it is said to have: where the two contradict each other, the question is put once more, past
the cache. If that gets another answer, the host has such a cache: that is told once, and noted, and from then
on whatever is asked of it as a target goes past the cache, in later runs too. So do questions whose answers
say themselves that they were kept; and where a proxy that can keep answers says nothing of it, the first few
404s of a run are asked about twice.

Past a cache is under a name that it can't have kept: a query that no registry knows, and so each ignores, as
it does containerd's `?ns=`. Caches that heed `Cache-Control: no-cache` (RFC 9111, 5.2.1.4) are asked to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from blobflow.bounded_cache import BoundedCache
from blobflow.content import Journal
from blobflow.errors import NotFound
from blobflow.events import Event, Warned
from blobflow.oci import Digest

# Names of what was put that are remembered; the oldest are forgotten, and then a cache is believed.
_MOST = 20_000
# How often in a run a 404 from behind a proxy that can keep answers, at a target, is asked about again. Most
# such proxies keep none: these few requests tell.
_CHECKS = 3
# The journal's key for a host whose answers a cache keeps for too long.
_NOTE = "stale answers"


class PushedNames:
    """What this process put at one host: which digest a tag or digest of a repository names there."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._names: dict[tuple[str, str], Digest] = {}
        self._repositories: Counter[str] = Counter()

    def put(self, repository: str, name: str, digest: Digest) -> None:
        """The registry said that it has `digest` under this name, which may be the digest itself."""
        self._forget((repository, name))
        self._names[repository, name] = digest
        self._repositories[repository] += 1
        if len(self._names) > self._most:
            self._forget(next(iter(self._names)))

    def _forget(self, key: tuple[str, str]) -> None:
        if self._names.pop(key, None) is not None:
            self._repositories[key[0]] -= 1
            if not self._repositories[key[0]]:
                del self._repositories[key[0]]

    def any_in(self, repository: str) -> bool:
        """Whether anything was put into the repository, and not removed since."""
        return repository in self._repositories

    def at(self, repository: str, name: str) -> Digest | None:
        """What the name should name there; None if it was not put by us."""
        return self._names.get((repository, name))

    def removed(self, repository: str, name: str) -> None:
        """The tag, or the digest with all tags that name it, is gone."""
        for key in [
            key for key, digest in self._names.items() if key[0] == repository and name in (key[1], digest)
        ]:
            self._forget(key)


class StaleCaches:
    """What is known of the caches before one host. `pushed`: what was put there."""

    def __init__(self, host: str, journal: Journal, observer: Callable[[Event], None]) -> None:
        self._host = host
        self._journal = journal
        self._observer = observer
        self._past: bool | None = None
        self._reported = False
        self._checks = 0
        self.pushed = PushedNames()
        self._named: BoundedCache[tuple[str, str], str] = BoundedCache(entries=_MOST)

    @property
    def are_passed(self) -> bool:
        """Whether what is asked of the host as a target is to be asked past its cache."""
        if self._past is None:
            self._past = self._journal.note(self._host, _NOTE) is not None
        return self._past

    def is_to_be_checked(self, error: NotFound) -> bool:
        """Whether what is said not to be there is asked for past the cache, with nothing else to contradict
        it: the first times that a host is asked through something that can keep answers."""
        if self._checks >= _CHECKS or not error.maybe_cached:
            return False
        self._checks += 1
        return True

    def saw(self) -> None:
        """An answer said that it had been kept: for the rest of this process they are asked past."""
        self._past = True

    def named(self, repository: str, digest: str, cached: str) -> None:
        """A tag names this digest by an answer that came so from a cache."""
        self._named.put((repository, digest), cached)

    def named_by(self, repository: str, digest: str) -> str:
        """How the answer came that a tag names this digest, if from a cache; else empty."""
        return self._named.get((repository, digest)) or ""

    def contradicted(self, description: str, cached: str) -> None:
        """Past the cache the answer about `description` was another one. `cached`: how that came."""
        self._past = True
        if not self._reported:
            self._reported = True
            self._journal.record_note(self._host, _NOTE, "yes")
            whose = f" ({cached})" if cached else ""
            self._observer(
                Warned(
                    f"{self._host} is behind a cache that keeps answers for too long{whose}: what it said of"
                    f" {description} was out of date; it is asked past that cache from now on, by us alone"
                )
            )
