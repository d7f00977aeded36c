"""What a registry has promised to its clients, by its own answers: the rule under test, as a small model.

Whatever a client was told is there (201 of an upload, a mount, a manifest; 200 of a HEAD) is owed for an
hour, and so is, for as long as there is one, what a tag names. What is owed holds what it reaches in its
repository: its blobs and children, its subject, and what refers to it. Only what a client itself deletes is
owed no more.

The model speaks of what is `sure` to be there. What is not owed while a gc runs may go, so it is not sure any
more until the registry says again that it is there.
"""

from __future__ import annotations

import msgspec

from blobflow.oci import Digest
from tests.e2e.promises.client_actions import UPLOADS, Answer, Deed
from tests.e2e.promises.content import BY_DIGEST, reached

Key = tuple[str, Digest]


class Expected(msgspec.Struct, frozen=True):
    """The status that a deed must have; None: any. `needs`: what has to stay sure for that."""

    status: int | None
    needs: frozenset[Key] = frozenset()


class Promises:
    """`sure` and `fresh` (promised within the hour) by repository and digest; `tags` by repository and tag.

    `sweeping`: how many gc run now.
    """

    def __init__(self) -> None:
        self.sure: set[Key] = set()
        self.fresh: set[Key] = set()
        self.tags: dict[tuple[str, str], Digest] = {}
        self.sweeping = 0

    def owed(self) -> set[Key]:
        """All that has to be there now."""
        found = set()
        for repository in {repository for repository, _ in self.sure}:
            held = {digest for name, digest in self.sure if name == repository}
            roots = {digest for name, digest in self.fresh if name == repository}
            roots |= {digest for (name, _), digest in self.tags.items() if name == repository}
            found |= {(repository, digest) for digest in reached(roots, held)}
        return found

    def grow_old(self) -> None:
        """More than an hour went by."""
        self.fresh.clear()

    def sweep_begins(self) -> None:
        self.sweeping += 1
        self._doubt()

    def sweep_ends(self) -> None:
        self.sweeping -= 1

    def expected(self, deed: Deed) -> Expected:
        """What the registry has to answer to the deed."""
        key = (deed.repository, deed.digest)
        match deed.kind:
            case "begin upload":
                return Expected(202)
            case kind if kind in UPLOADS:
                return Expected(201)
            case "mount":
                return self._if_sure(201, {(deed.origin, deed.digest)})
            case "put" if deed.content.is_index:
                return Expected(201)
            case "put":
                return self._if_sure(201, {(deed.repository, named) for named in deed.content.blobs})
            case "head" | "get" if deed.tag:
                named = self.tags.get((deed.repository, deed.tag))
                return Expected(None if named is None else 200)
            case "head" | "get":
                return self._if_sure(200, {key})
            case _ if deed.tag:
                return Expected(202 if (deed.repository, deed.tag) in self.tags else None)
            case _:
                return self._if_sure(202, {key})

    def _if_sure(self, status: int, needs: set[Key]) -> Expected:
        return Expected(status, frozenset(needs)) if needs <= self.sure else Expected(None)

    def begin(self, deed: Deed) -> None:
        """The deed is on its way: what it may take away is not owed any more."""
        key = (deed.repository, deed.digest)
        if deed.tag and deed.kind in ("put", "delete"):
            self.tags.pop((deed.repository, deed.tag), None)
        elif deed.kind == "delete":
            self.sure.discard(key)
            self.fresh.discard(key)
            for place in [place for place, named in self.tags.items() if (place[0], named) == key]:
                del self.tags[place]
        self._doubt()

    def answered(self, deed: Deed, answer: Answer, before: Digest | None) -> None:
        """The registry has answered. `before`: what the deed's tag named when it began."""
        key = (deed.repository, deed.digest)
        match deed.kind, answer.status:
            case ("mount", 201) | ("put", 201):
                self._promise(key)
            case ("head", 200):
                self._promise((deed.repository, Digest(answer.headers["docker-content-digest"])))
            case (kind, 201) if kind in UPLOADS:
                self._promise(key)
        if deed.kind == "put" and answer.status == 201:
            self.sure |= {(deed.repository, named) for named in deed.content.blobs}
            if deed.tag:
                self.tags[deed.repository, deed.tag] = deed.digest
        elif deed.kind == "put" and deed.tag and before is not None:
            self.tags[deed.repository, deed.tag] = before
        elif deed.kind in ("head", "get") and deed.tag and answer.status == 200:
            self.tags[deed.repository, deed.tag] = Digest(answer.headers["docker-content-digest"])
        self._doubt()

    def seen(self, key: Key) -> None:
        """A client has just read it."""
        self.sure.add(key)

    def all_seen(self) -> None:
        """After any number of `seen`: what nothing holds is as unsure as before."""
        self._doubt()

    def _promise(self, key: Key) -> None:
        if key[1] in BY_DIGEST:
            self.sure.add(key)
            self.fresh.add(key)

    def _doubt(self) -> None:
        """What is not owed while a gc runs may be gone by now."""
        if self.sweeping:
            self.sure = self.owed()
