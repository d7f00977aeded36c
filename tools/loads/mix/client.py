"""One client of a mixed load, and what it knows of its repositories.

No two clients share a repository: so each knows what was acknowledged to it, and which answer is right.
What it holds is bounded: the oldest is deleted for what is new, by the same requests as anything else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from random import Random
from typing import TypeAlias

import msgspec

from tools.loads.conversation import Answer, Cut, Script, Step
from tools.loads.requests import BYTES, Content, request

Asking: TypeAlias = Generator[Step, Answer, Answer]
Doing: TypeAlias = Generator[Step, Answer, None]

# Wrong answers that are kept to be shown; all are counted.
_SHOWN = 20
# Bytes of a blob: from 256 to 64 KiB, small ones more often; as configs and the layers of many images.
_SMALLEST, _LARGEST = 8, 16
# Things of each kind that a repository holds at most.
MOST = 8
# Uploads that a client has left in the middle at most: a registry counts those of one address.
MOST_LEFT = 4


class Blob(msgspec.Struct, frozen=True):
    """A blob; its bytes are those that `seed` gives again."""

    digest: str
    size: int
    seed: int

    def content(self) -> Content:
        return Content(Random(self.seed).randbytes(self.size), self.digest)


class Image(msgspec.Struct, frozen=True):
    """A manifest that is held, and the blobs that are there for it alone."""

    digest: str
    raw: bytes
    kind: str
    blobs: tuple[Blob, ...] = ()


class Repository:
    """What was acknowledged in one repository: blobs that no manifest names (`loose`), images, indexes,
    artifacts, and the tags that name them. `held`: the digests of all of its blobs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loose: deque[Blob] = deque()
        self.images: deque[Image] = deque()
        self.indexes: deque[Image] = deque()
        self.artifacts: deque[Image] = deque()
        self.tags: dict[str, Image] = {}
        self.held: set[str] = set()

    @property
    def manifests(self) -> list[Image]:
        return [*self.images, *self.indexes, *self.artifacts]

    def path(self, kind: str, item: str) -> str:
        return f"/v2/{self.name}/{kind}/{item}"


class WrongAnswer(Exception):
    """A request was not answered as it deserves: what was to come after it makes no sense."""


class Tally:
    """What was asked and answered: `statuses` by kind and status (0: no answer came, -1: none was waited
    for). `observe` is called with the number of requests so far."""

    def __init__(self, observe: Callable[[int], None] = lambda _: None) -> None:
        self.requests = 0
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.wrong = 0
        self.shown: list[str] = []
        self._observe = observe

    @property
    def failed(self) -> int:
        """Requests that were answered with 5xx, or not at all."""
        return sum(count for (_, status), count in self.statuses.items() if status >= 500 or not status)

    def add(self, kind: str, answer: Answer, right: Sequence[int]) -> None:
        """Count an answer. Raises WrongAnswer, when that is done, unless its status is a right one."""
        self._count(kind, answer.status)
        if answer.status not in right:
            self.wrong += 1
            if len(self.shown) < _SHOWN:
                said = (answer.head.split(b"\r\n")[0] + b" " + answer.body[:200]).decode(errors="replace")
                self.shown.append(f"{kind}: {said if answer.status else 'no answer'}")
            raise WrongAnswer(kind)

    def add_cut(self, kind: str) -> None:
        self._count(kind, -1)

    def _count(self, kind: str, status: int) -> None:
        self.statuses[kind, status] += 1
        self.requests += 1
        self._observe(self.requests)


class MixedClient:
    """Asks, and counts. `late`: upload sessions that wait for somebody to come back to them."""

    def __init__(self, host: str, names: Sequence[str], random: Random, tally: Tally) -> None:
        self.host = host
        self.random = random
        self.tally = tally
        self.repositories = [Repository(name) for name in names]
        self.late: deque[tuple[str, str, Content]] = deque()

    def ask(
        self,
        kind: str,
        right: int | Sequence[int],
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        media: str = BYTES,
        headers: str = "",
    ) -> Asking:
        """One request of a `kind`, and its answer. Raises WrongAnswer unless its status is `right`."""
        answer = yield request(self.host, method, path, body, kind=media, headers=headers)
        self.tally.add(kind, answer, (right,) if isinstance(right, int) else right)
        return answer

    def cut(self, kind: str, sent: bytes, *, reading: bool = False) -> Doing:
        """Send bytes and hang up; `reading`: when the answer begins."""
        yield Cut(sent, reading=reading)
        self.tally.add_cut(kind)

    def blob(self) -> tuple[Blob, Content]:
        """A new one."""
        seed = self.random.getrandbits(64)
        size = int(2 ** self.random.uniform(_SMALLEST, _LARGEST))
        content = Content.of(Random(seed).randbytes(size))
        return Blob(content.digest, size, seed), content

    def digest(self) -> str:
        """One that nobody has."""
        return f"sha256:{self.random.getrandbits(256):064x}"

    def other(self, repository: Repository) -> Repository:
        """A repository of this client: another one, if it has two."""
        others = [each for each in self.repositories if each is not repository]
        return self.random.choice(others or self.repositories)

    def look_again(self) -> Script:
        """HEAD all that was acknowledged and not deleted since."""
        for repository in self.repositories:
            paths = [
                (repository.path("manifests", image.digest), image.kind) for image in repository.manifests
            ]
            paths += [(repository.path("blobs", digest), BYTES) for digest in sorted(repository.held)]
            for path, kind in paths:
                with suppress(WrongAnswer):
                    yield from self.ask("look again", 200, "HEAD", path, headers=f"Accept: {kind}\r\n")
