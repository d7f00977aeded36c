"""One registry over one store, a gc beside it, its clients, and the account of what they were promised.

All of it are real processes and files. The gc is stopped before each of its steps; serve runs freely, or is
stopped at a step of a deed; so the interleaving of both is what the caller says. A deed that waits for what
is stopped is `pending`, and the caller goes on with whatever may be in its way.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from blobflow.oci import Digest
from tests.deadlines import HANGS_AFTER
from tests.e2e.promises.client_actions import Answer, Client, Deed
from tests.e2e.promises.content import BLOBS, BY_DIGEST, MANIFESTS, Content, reached
from tests.e2e.promises.model import Expected, Promises
from tests.e2e.promises.state_file import make_older, rows
from tests.e2e.promises.stepping import Command, Stage, leave

# Seconds after which a registry may say that its store was locked: we have held it so long ourselves.
PATIENCE = 5.0
OLD = "one"  # the repository to which everything was pushed long ago
_SHM = Path("/dev/shm")  # memory, where there is such a place: fsync costs nothing there
MEMORY = _SHM if _SHM.is_dir() else None


class Pending:
    """A deed under way, in a thread of its own. `answer`: once `done`, None if the registry died of it."""

    def __init__(self, stage: Stage, host: str, deed: Deed, expected: Expected, session: str) -> None:
        self.deed = deed
        self.expected = expected
        self.before: Digest | None = None
        self.answer: Answer | None = None
        self.done = False
        self.began = time.monotonic()
        self._stage = stage
        self._thread = threading.Thread(target=self._do, args=(host, session), daemon=True)
        self._thread.start()

    def _do(self, host: str, session: str) -> None:
        broken = contextlib.suppress(OSError, http.client.HTTPException)
        with contextlib.closing(Client(host)) as client, broken:
            self.answer = client.do(self.deed, session)
        with self._stage.changed:
            self.done = True
            self._stage.changed.notify_all()

    @property
    def waited(self) -> float:
        return time.monotonic() - self.began


class World:
    """A store at `root`, a copy of `template` if given.

    `log`: what was done, in words, to be shown. `answered` counts the deeds that had an answer.
    """

    def __init__(self, stage: Stage, template: Path | None = None, *arguments: str) -> None:
        self.stage = stage
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="blobflow-promises-"))
        self.root = self.folder / "root"
        self.promises = Promises()
        self.log: list[str] = []
        self.gc: Command | None = None
        self.pending: Pending | None = None
        self.sessions: dict[Deed, str] = {}
        self.answered = 0
        self._arguments = arguments
        if template is not None:
            shutil.copytree(template, self.root)
            self.promises.sure = {(OLD, digest) for digest in BY_DIGEST}
        self.serve = self._serve()
        self.host = self._address()

    def close(self) -> None:
        for command in (self.serve, self.gc):
            if command is not None:
                command.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    # serve

    def _serve(self) -> Command:
        words = ("serve", "--listen", "127.0.0.1:0", "--root", str(self.root), *self._arguments)
        return self.stage.start(*words)

    def _address(self) -> str:
        """Where it listens, once it does. A gc that stops while it has the store locked goes on for that."""
        found: list[str] = []

        def listens() -> bool:
            found[:] = re.findall(r"at http://([^,\s]+),", self.serve.output)
            return bool(found) or self.serve.ended

        deadline = time.monotonic() + HANGS_AFTER
        turns = 0
        while not listens() and time.monotonic() < deadline:
            time.sleep(0.002)
            turns += 1
            if turns % 200 == 0 and self.gc is not None and self.gc.stop is not None:
                self.gc.go(seconds=1)
        assert found, f"serve did not start: {self.serve.output}"
        return found[0]

    def kill_serve(self) -> None:
        """kill -9, and a new one on the same store. Uploads that were begun were promised to nobody."""
        self.log.append("kill -9 serve")
        self.serve.kill()
        if self.pending is not None:
            self.stage.wait(lambda: self.pending is not None and self.pending.done, HANGS_AFTER)
            if self.pending.answer is not None:
                self._settle()
        self.pending = None
        self.sessions.clear()
        self.serve = self._serve()
        self.host = self._address()

    # gc

    def start_gc(self) -> None:
        """A gc that may evict everything, stopped before its first step."""
        self.log.append("gc starts")
        self.promises.sweep_begins()
        if self.pending is not None and not self.pending.expected.needs <= self.promises.sure:
            self.pending.expected = Expected(None)
        if self.pending is not None and self.pending.deed.kind == "delete":
            self.pending.expected = Expected(None)
        self.gc = self._collect(budget=0)
        self.gc.settle(self._patience())

    def _collect(self, budget: int | None = None) -> Command:
        return self.stage.start("cache", "gc", "--cache-dir", self.root, "--max-size", "0", budget=budget)

    def step_gc(self, steps: int = 1) -> None:
        """Let it take so many steps, or end; fewer if it waits for a deed that is stopped."""
        assert self.gc is not None
        if self.gc.stop is not None:
            self.gc.go(steps, seconds=self._patience())
        else:
            self.gc.settle(self._patience())
        self.log.append(f"gc takes {steps} and is at {self.gc.stop or ('its end' if self.gc.ended else '?')}")
        self._look()

    def run_gc_to(self, kinds: Sequence[str]) -> None:
        """Let it go on until it is before a step of one of these kinds."""
        while self.gc is not None:
            self.step_gc()
            if self.gc is None or self.gc.stop is None or self.gc.stop.kind in kinds:
                return

    def finish_gc(self) -> None:
        """Let it run to its end, unless it has to wait for a deed that is stopped."""
        assert self.gc is not None
        self.log.append("gc runs on")
        self.gc.free()
        gc = self.gc
        self.stage.wait(lambda: gc.ended, self._patience())
        self._look()

    def _gc_has_ended(self) -> bool:
        return self.gc is None or self.gc.ended

    def kill_gc(self) -> None:
        assert self.gc is not None
        self.log.append(f"kill -9 gc at {self.gc.stop}")
        self.gc.kill()
        self.gc = None
        self.promises.sweep_ends()
        self._look()

    def _patience(self) -> float:
        """Seconds to wait for gc: it may have to wait for the deed that is under way."""
        return leave(self.serve if self.pending is not None else None)

    # Deeds

    def do(self, deed: Deed, *, hold: int | None = None) -> None:
        """Do a deed; on return it is answered, or `pending`. `hold`: stop serve before its step hold + 1."""
        assert self.pending is None
        self.log.append(f"{deed}" + ("" if hold is None else f", held before step {hold + 1}"))
        expected = self.promises.expected(deed)
        session = self.sessions.pop(deed, "")
        if deed.kind == "finish upload" and not session:
            return
        before = self.promises.tags.get((deed.repository, deed.tag)) if deed.tag else None
        self.promises.begin(deed)
        if hold is not None:
            self.serve.arm(hold)
        self.pending = Pending(self.stage, self.host, deed, expected, session)
        self.pending.before = before
        self._look()

    def release(self, steps: int) -> None:
        """Let the deed that is pending go on for so many steps of serve."""
        assert self.pending is not None
        if self.serve.stop is not None:
            self.log.append(f"serve takes {steps} from {self.serve.stop}")
            self.serve.go(steps, seconds=0)
        self._look()

    def answer_what_is_pending(self) -> None:
        """Let the deed that is under way be answered; where gc is in its way, that goes on, too."""
        deadline = time.monotonic() + HANGS_AFTER
        while self.pending is not None and time.monotonic() < deadline:
            self.serve.free()
            self._look()
            if self.pending is not None and self.gc is not None:
                self.step_gc()
                while self.gc is not None and self.gc.stop is not None and self.gc.stop.locked:
                    self.gc.go(seconds=self._patience())
        assert self.pending is None, self.story("something hangs")

    def _look(self) -> None:
        """See what has ended; give the deed under way the time to stop or to be answered."""
        pending = self.pending
        if pending is not None:
            self.stage.wait(lambda: pending.done or bool(self.serve.stops), leave(self.gc))
            if pending.done:
                self._settle()
        if self.gc is not None and self.gc.ended:
            code, said = self.gc.wait(), self.gc.output
            self.gc = None
            self.promises.sweep_ends()
            self.log.append(f"gc: {said.strip()}")
            assert code == 0, self.story(f"gc failed with {code}: {said}")

    def _settle(self) -> None:
        """Take in the answer to the deed that was pending."""
        pending, self.pending = self.pending, None
        assert pending is not None
        self.serve.free()
        answer, deed = pending.answer, pending.deed
        self.log.append(f"  {deed}: {answer.status if answer else 'no answer'}")
        assert answer is not None, self.story(f"serve gave no answer to: {deed}: {self.serve.output}")
        if answer.status >= 500 and pending.waited > PATIENCE:
            return  # we had the store locked for so long
        if pending.expected.status is not None or answer.status >= 500:
            wanted = pending.expected.status
            told = answer.body[:300]
            assert answer.status == wanted, self.story(f"{deed}: {answer.status}, not {wanted}: {told!r}")
        if deed.kind == "get" and answer.status == 200 and not deed.tag:
            assert answer.body == deed.content.raw, self.story(f"{deed}: wrong bytes")
        if deed.kind == "begin upload":
            finish = Deed("finish upload", deed.repository, deed.name)
            self.sessions[finish] = answer.headers["location"]
        self.promises.answered(deed, answer, pending.before)
        self.answered += 1
        if deed.kind == "put" and answer.status == 201:
            self._see_what_hangs_on(deed)

    def _see_what_hangs_on(self, deed: Deed) -> None:
        """What a manifest reaches and is there after it was put is owed from then on. A gc that runs may have
        taken it before, so look; that only reads, so nothing is promised anew."""
        hanging = reached([deed.digest], BY_DIGEST)
        unsure = [digest for digest in hanging if (deed.repository, digest) not in self.promises.sure]
        with contextlib.closing(Client(self.host)) as client:
            for digest in sorted(unsure):
                if client.do(Deed("get", deed.repository, BY_DIGEST[digest].name)).status == 200:
                    self.promises.seen((deed.repository, digest))
        self.promises.all_seen()

    # What must hold

    def age(self) -> None:
        """Let more than an hour go by."""
        assert self.gc is None and self.pending is None
        self.log.append("an hour goes by")
        make_older(self.root)
        self.promises.grow_old()

    def calm(self) -> None:
        """Let everything that is under way come to its end."""
        self.serve.free()
        if self.gc is not None:
            self.gc.free()
        deadline = time.monotonic() + HANGS_AFTER
        while (self.pending is not None or self.gc is not None) and time.monotonic() < deadline:
            if self.pending is None:
                self.stage.wait(self._gc_has_ended, HANGS_AFTER)
            self._look()
        assert self.pending is None and self.gc is None, self.story("something hangs")

    def check(self) -> None:
        """Everything that is owed is whole, as clients see it. Only reads, so that it is promised no more."""
        lost = []
        with contextlib.closing(Client(self.host)) as client:
            for repository, digest in sorted(self.promises.owed()):
                content = BY_DIGEST[digest]
                got = client.do(Deed("get", repository, content.name))
                if (got.status, got.body) != (200, content.raw):
                    lost.append(f"{content.name} of {repository} ({got.status})")
            for (repository, tag), digest in sorted(self.promises.tags.items()):
                content = BY_DIGEST[digest]
                got = client.do(Deed("get", repository, content.name, tag))
                if (got.status, got.body) != (200, content.raw):
                    lost.append(f"the tag {repository}:{tag}, {content.name} ({got.status})")
        assert not lost, self.story(f"{len(lost)} of what was promised is lost: {', '.join(lost)}")

    def check_leftovers(self) -> None:
        """kill -9 of serve, hours later, one more gc: then what tags need is there, and nothing else."""
        self.calm()
        self.kill_serve()
        self.check()
        self.age()
        for path in (self.root / "partials").iterdir():
            os.utime(path, (0, 0))  # of a download that nobody goes on with any more
        self.promises.sweep_begins()
        gc = self._collect()
        assert gc.wait() == 0, self.story(gc.output)
        self.promises.sweep_ends()
        self.log.append(f"gc: {gc.output.strip()}")
        self.check()
        self._check_files()

    def _check_files(self) -> None:
        held = {Digest(f"sha256:{path.name}") for path in (self.root / "blobs" / "sha256").iterdir()}
        needed = reached(self._tagged(), held, widely=True)
        stays = [BY_DIGEST[digest].name for digest in held - needed]
        assert not stays, self.story(f"gc leaves what nobody needs: {', '.join(sorted(stays))}")
        names = {digest.partition(":")[2] for digest in BY_DIGEST}
        elsewhere = [
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_file()
            and path.parent != self.root / "blobs" / "sha256"
            and (path.name.partition(".")[0] in names or path.parent != self.root)
        ]
        assert not elsewhere, self.story(f"gc leaves files: {', '.join(elsewhere)}")
        listed = self.stage.start("cache", "ls", "--json", "--cache-dir", self.root)
        assert listed.wait() == 0, self.story(listed.output)
        assert {each["digest"] for each in json.loads(listed.output)} == held, self.story(
            "`cache ls` differs"
        )
        for table in ("blobs", "members"):
            known = {Digest(digest) for (digest,) in rows(self.root, f"SELECT digest FROM {table}")}
            ghosts = [BY_DIGEST[digest].name for digest in known - held]
            assert not ghosts, self.story(f"{table} keeps rows of what is gone: {', '.join(ghosts)}")

    def _tagged(self) -> set[Digest]:
        """What tags name, as the registry tells."""
        found = set()
        with contextlib.closing(Client(self.host)) as client:
            catalog = json.loads(client.ask("GET", "/v2/_catalog").body)["repositories"]
            for repository in catalog:
                tags = json.loads(client.ask("GET", f"/v2/{repository}/tags/list").body)["tags"]
                for tag in tags or ():
                    told = client.do(Deed("get", repository, MANIFESTS[0].name, tag))
                    found.add(Digest(told.headers["docker-content-digest"]))
        return found

    def story(self, end: str) -> str:
        """What was done, and how it ended."""
        return "\n".join([end, "what was done:", *(f"  {line}" for line in self.log), f"and so: {end}"])


def make_template(stage: Stage, root: Path, contents: Sequence[Content] = (*BLOBS, *MANIFESTS)) -> None:
    """A store to which all contents were pushed hours ago, with no tag."""
    world = World(stage)
    try:
        for content in contents:
            world.do(Deed("put" if content.media_type else "upload", OLD, content.name))
        world.age()
        world.serve.kill()
        shutil.copytree(world.root, root)
        with contextlib.closing(sqlite3.connect(root / "state.sqlite")) as state:
            state.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        world.close()
