"""The rule machine: any interleaving of clients, gc, kills and hours that go by, one step at a time.

Serve and gc are processes of their own over real files. gc stops before each of its steps, a client's deed
may be stopped at any step that serve takes for it, and either may be killed wherever it stands. What must
hold is said in promised.py, and is checked after every answer and at the end of each run.

What can't be done just then is done another way. So what Hypothesis draws does not depend on how fast
processes are, and a run can be played again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.e2e.promises.client_actions import Deed, Kind
from tests.e2e.promises.content import BLOBS, BY_DIGEST, MANIFESTS, Content
from tests.e2e.promises.stepping import Stage
from tests.e2e.promises.world import OLD, World

REPOSITORIES = (OLD, "two")
TAGS = ("t", "u")
BLOB_NAMES = [blob.name for blob in BLOBS]
MANIFEST_NAMES = [manifest.name for manifest in MANIFESTS]
# A turn's seed says all that happens in it. Uniform, so that no kind of turn is left out of a run, as rules
# of their own would be; what Hypothesis can still do is to leave turns out of a run that failed.
SEEDS = st.integers(0, 2**32 - 1)


def deed_of(draw: Random) -> Deed:
    """What some client does."""
    repository = draw.choice(REPOSITORIES)
    by_tag = draw.choice((*TAGS, "", ""))
    match draw.randrange(12):
        case 0 | 1:
            kinds: tuple[Kind, ...] = ("upload", "upload in two", "upload in chunks")
            return Deed(draw.choice(kinds), repository, draw.choice(BLOB_NAMES))
        case 2:
            return Deed("begin upload", repository, draw.choice(BLOB_NAMES))
        case 3:
            return Deed("mount", "two", draw.choice(BLOB_NAMES), origin=OLD)
        case 4 | 5:
            return Deed("head", repository, draw.choice(BLOB_NAMES + MANIFEST_NAMES))
        case 6:
            return Deed("head", repository, draw.choice(MANIFEST_NAMES), by_tag)
        case 7:
            return Deed("get", repository, draw.choice(BLOB_NAMES + MANIFEST_NAMES))
        case 8 | 9 | 10:
            return Deed("put", repository, draw.choice(MANIFEST_NAMES), by_tag)
        case _:
            names = MANIFEST_NAMES if by_tag else BLOB_NAMES + MANIFEST_NAMES
            return Deed("delete", repository, draw.choice(names), by_tag)


def hold_of(draw: Random) -> int | None:
    """A deed is stopped in serve before its step so many + 1; None, more often than not: nowhere."""
    return draw.randrange(13) if draw.random() < 0.3 else None


class Tally:
    """What all runs of a machine played. `interleavings`: the different ones, each the whole of what was done
    between the start and the end of one gc with at least one answer of a registry in it."""

    def __init__(self) -> None:
        self.interleavings: set[str] = set()
        self.runs = self.answers = self.killed_serves = self.killed_gcs = self.held = 0

    def __str__(self) -> str:
        return json.dumps(
            {
                "interleavings": len(self.interleavings),
                **{k: v for k, v in vars(self).items() if type(v) is int},
            }
        )


class PromisesMachine(RuleBasedStateMachine):
    """`stage`, `template` and `tally` are the subclass's."""

    stage: Stage
    template: Path
    tally: Tally

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.stage, self.template)
        self.sound = True
        self._since: int | None = None
        self._answers_before = 0
        self.tally.runs += 1

    @contextmanager
    def _playing(self) -> Iterator[World]:
        """Whatever a rule does. After a failure nothing more is checked: the first one tells."""
        try:
            yield self.world
        except BaseException:
            self.sound = False
            raise
        if self.world.gc is None:
            self._count()

    def _count(self) -> None:
        """Note the interleaving that a gc which has just ended was in."""
        since, self._since = self._since, None
        if since is not None and self.world.answered > self._answers_before:
            played = "\n".join(self.world.log[since:])
            self.tally.interleavings.add(hashlib.sha256(played.encode()).hexdigest())

    @initialize(seed=SEEDS)
    def begin(self, seed: int) -> None:
        """Long ago some tags were set; just now some things were done; and gc has begun."""
        draw = Random(seed)
        with self._playing() as world:
            for _ in range(draw.randrange(3)):
                world.do(Deed("put", OLD, draw.choice(MANIFEST_NAMES), draw.choice(TAGS)))
            world.age()
            for _ in range(draw.randrange(3)):
                world.do(deed_of(draw))
        self._begin_gc()
        self._go_on(draw.randrange(35))

    @rule(seed=SEEDS)
    def turn(self, seed: int) -> None:
        """Something happens."""
        draw = Random(seed)
        match draw.randrange(20):
            case 0 | 1 | 2:
                self.gc_moves(draw)
            case 3 | 4 | 5 | 6:
                self.want_what_gc_takes(draw)
            case 7:
                self.go_on_with_an_upload(draw)
            case 8 | 9 | 10:
                self.release(draw)
            case 11:
                self.something_else_happens(draw)
            case _:
                self.do(draw)

    def gc_moves(self, draw: Random) -> None:
        """gc starts if there is none, and takes some steps, runs to a kind of step or to its end, or dies."""
        self._begin_gc()
        with self._playing() as world:
            if world.gc is None:
                return
            match draw.randrange(8):
                case 0:
                    world.finish_gc()
                case 1:
                    self.tally.killed_gcs += 1
                    world.kill_gc()
                case 2 | 3 if world.pending is None:
                    world.run_gc_to([draw.choice(["remove", "rename", "begin", "commit"])])
                case _:
                    world.step_gc(draw.randrange(1, 20))

    def do(self, draw: Random) -> None:
        """A client does something; then gc takes some steps."""
        self._do(deed_of(draw), hold_of(draw))
        steps = draw.randrange(10)
        if steps:
            self._begin_gc()
            self._go_on(steps)

    def _go_on(self, steps: int) -> None:
        with self._playing() as world:
            if world.gc is not None and steps:
                world.step_gc(steps)

    def _begin_gc(self) -> None:
        with self._playing() as world:
            if world.gc is None:
                self._since, self._answers_before = len(world.log), world.answered
                world.start_gc()

    def want_what_gc_takes(self, draw: Random) -> None:
        """A client wants the very content whose file gc is about to remove or to rename."""
        with self._playing() as world:
            world.answer_what_is_pending()
            if world.gc is not None and self._under_gc() is None:
                world.run_gc_to(["remove", "rename"])
        content = self._under_gc()
        if content is None:
            self.do(draw)
            return
        repository = draw.choice(REPOSITORIES)
        match draw.randrange(4):
            case 0 if not content.media_type:
                deed = Deed("mount", "two", content.name, origin=OLD)
            case 1:
                deed = Deed("head", repository, content.name)
            case _:
                deed = Deed("put" if content.media_type else "upload", repository, content.name)
        self._do(deed, hold_of(draw))
        self._go_on(draw.randrange(10))

    def _under_gc(self) -> Content | None:
        stop = self.world.gc.stop if self.world.gc is not None else None
        if stop is None or stop.kind not in ("remove", "rename"):
            return None
        named = [each for digest, each in BY_DIGEST.items() if digest.partition(":")[2] in stop.what]
        return named[0] if named else None

    def go_on_with_an_upload(self, draw: Random) -> None:
        """The last request of an upload comes; or its first ones, if none was begun."""
        sessions = list(self.world.sessions)
        begin = Deed("begin upload", draw.choice(REPOSITORIES), draw.choice(BLOB_NAMES))
        self._do(sessions[0] if sessions else begin, hold_of(draw))

    def _do(self, deed: Deed, hold: int | None) -> None:
        with self._playing() as world:
            world.answer_what_is_pending()
            world.do(deed, hold=hold)
            self.tally.held += world.pending is not None

    def release(self, draw: Random) -> None:
        """A deed that is stopped in serve goes on."""
        with self._playing() as world:
            if world.pending is not None:
                world.release(draw.randrange(1, 8))
        self._go_on(draw.randrange(10))

    def something_else_happens(self, draw: Random) -> None:
        with self._playing() as world:
            if draw.random() < 0.5:
                self.tally.killed_serves += 1
                world.kill_serve()
            else:
                world.calm()
                self._count()
                world.age()

    def teardown(self) -> None:
        try:
            if self.sound:
                self.world.calm()
                self._count()
                self.world.check()
                self.world.check_leftovers()
        finally:
            self.tally.answers += self.world.answered
            self.world.close()
