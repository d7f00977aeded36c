"""The rule machine: any interleaving of clients, gc, kills and hours that go by, one step at a time.

Serve and gc are processes of their own over real files. gc stops before each of its steps, a client's deed may be
stopped at any step that serve takes for it, and either may be killed wherever it stands. What must hold is
said in promised.py, and is checked after every answer and at the end of each run.

No rule has a precondition: what can't be done just then is done another way. So what Hypothesis draws does not
depend on how fast processes are, and a run can be played again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.e2e.promises.contents import BLOBS, BY_DIGEST, BY_NAME, MANIFESTS, Content
from tests.e2e.promises.deeds import Deed, Kind
from tests.e2e.promises.forker import KINDS
from tests.e2e.promises.stepping import Stage
from tests.e2e.promises.world import OLD, World

REPOSITORIES = (OLD, "two")
TAGS = ("t", "u")

repositories = st.sampled_from(REPOSITORIES)
tags = st.sampled_from(TAGS)
blob_names = st.sampled_from([blob.name for blob in BLOBS])
manifest_names = st.sampled_from([manifest.name for manifest in MANIFESTS])
uploads = st.sampled_from(["upload", "upload in two", "upload in chunks"])
# A deed is stopped in serve before its step so many + 1; None, more often than not: nowhere.
holds = st.one_of(st.none(), st.none(), st.integers(0, 12))
deeds = st.one_of(
    st.builds(Deed, uploads, repositories, blob_names),
    st.builds(Deed, st.just("begin upload"), repositories, blob_names),
    st.builds(Deed, st.just("mount"), st.just("two"), blob_names, origin=st.just(OLD)),
    st.builds(Deed, st.just("head"), repositories, st.sampled_from(sorted(BY_NAME))),
    st.builds(Deed, st.just("head"), repositories, manifest_names, tags),
    st.builds(Deed, st.just("get"), repositories, st.sampled_from(sorted(BY_NAME))),
    st.builds(Deed, st.just("put"), repositories, manifest_names),
    st.builds(Deed, st.just("put"), repositories, manifest_names, tags),
    st.builds(Deed, st.just("delete"), repositories, st.sampled_from(sorted(BY_NAME))),
    st.builds(Deed, st.just("delete"), repositories, manifest_names, tags),
)
MOVES = ("steps", "steps", "steps", "remove", "rename", "begin", "commit", "end", "end", "dies")
# With what is under gc's hands just now.
urgent: st.SearchStrategy[Kind] = st.sampled_from(["upload", "head", "mount", "get"])


class Tally:
    """What all runs of a machine played. `interleavings`: the different ones, each the whole of what was done
    between the start and the end of one gc with at least one answer of a registry in it."""

    def __init__(self) -> None:
        self.interleavings: set[str] = set()
        self.runs = self.answers = self.killed_serves = self.killed_gcs = self.held = 0

    def __str__(self) -> str:
        return json.dumps(
            {"interleavings": len(self.interleavings), **{k: v for k, v in vars(self).items() if type(v) is int}}
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

    @initialize(
        tagged=st.lists(st.builds(Deed, st.just("put"), st.just(OLD), manifest_names, tags), max_size=2),
        recent=st.lists(deeds, max_size=2),
        steps=st.integers(1, 40),
    )
    def begin(self, tagged: list[Deed], recent: list[Deed], steps: int) -> None:
        """Long ago some tags were set; just now some things were done; and gc has begun."""
        with self._playing() as world:
            for deed in tagged:
                world.do(deed)
            if tagged:
                world.age()
            for deed in recent:
                world.do(deed)
        self.gc_moves("steps", steps)

    @rule(move=st.sampled_from(MOVES), steps=st.integers(1, 25))
    def gc_moves(self, move: str, steps: int) -> None:
        """gc starts, if there is none, and takes some steps; runs to a kind of step, or to its end; or dies."""
        self._begin_gc()
        with self._playing() as world:
            if world.gc is None:
                return
            if move in KINDS and world.pending is None:
                world.run_gc_to([move])
            elif move == "end":
                world.finish_gc()
            elif move == "dies":
                self.tally.killed_gcs += 1
                world.kill_gc()
            else:
                world.step_gc(steps)

    def _begin_gc(self) -> None:
        with self._playing() as world:
            if world.gc is None:
                self._since, self._answers_before = len(world.log), world.answered
                world.start_gc()

    @rule(deed=deeds, hold=holds, steps=st.integers(0, 12))
    def do(self, deed: Deed, hold: int | None, steps: int) -> None:
        """A client does something; then gc takes some steps."""
        self._do(deed, hold)
        if steps:
            self._begin_gc()
        with self._playing() as world:
            if steps and world.gc is not None:
                world.step_gc(steps)

    @rule(kind=urgent, repository=repositories, hold=holds)
    def want_what_gc_takes(self, kind: Kind, repository: str, hold: int | None) -> None:
        """A client wants the very content whose file gc is about to remove or to rename."""
        with self._playing() as world:
            world.answer_what_is_pending()
            if world.gc is not None and self._under_gc() is None:
                world.run_gc_to(["remove", "rename"])
        content = self._under_gc()
        if content is None:
            return
        if kind == "mount" and not content.media_type:
            deed = Deed("mount", "two", content.name, origin=OLD)
        elif kind in ("head", "get"):
            deed = Deed(kind, repository, content.name)
        else:
            deed = Deed("put" if content.media_type else "upload", repository, content.name)
        self._do(deed, hold)

    def _under_gc(self) -> Content | None:
        stop = self.world.gc.stop if self.world.gc is not None else None
        if stop is None or stop.kind not in ("remove", "rename"):
            return None
        named = [each for digest, each in BY_DIGEST.items() if digest.partition(":")[2] in stop.what]
        return named[0] if named else None

    @rule(hold=holds, blob=blob_names, repository=repositories)
    def go_on_with_an_upload(self, hold: int | None, blob: str, repository: str) -> None:
        """The last request of an upload comes; or its first ones, if none was begun."""
        sessions = list(self.world.sessions)
        self._do(sessions[0] if sessions else Deed("begin upload", repository, blob), hold)

    def _do(self, deed: Deed, hold: int | None) -> None:
        with self._playing() as world:
            world.answer_what_is_pending()
            world.do(deed, hold=hold)
            self.tally.held += world.pending is not None

    @rule(steps=st.integers(1, 8))
    def release(self, steps: int) -> None:
        """A deed that is stopped in serve goes on."""
        with self._playing() as world:
            if world.pending is not None:
                world.release(steps)

    @rule(event=st.sampled_from(["an hour goes by", "kill -9 serve"]))
    def something_happens(self, event: str) -> None:
        with self._playing() as world:
            if event == "kill -9 serve":
                self.tally.killed_serves += 1
                world.kill_serve()
            else:
                world.calm()
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
