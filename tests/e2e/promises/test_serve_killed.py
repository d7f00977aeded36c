"""kill -9 of serve, again and again, under clients that push and with gc running beside it: what was answered
201 is whole after every restart."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from blobflow.oci import digest_of
from tests.deadlines import HANGS_AFTER
from tests.e2e.promises.client_actions import Answer, Client
from tests.e2e.promises.content import Content, blob, image
from tests.e2e.promises.state_file import make_older
from tests.e2e.promises.stepping import Command, Stage
from tests.e2e.promises.world import World

CLIENTS = 4
REPOSITORIES = ("app", "app/other")
# Layers that images have in common: pushed again and again, also when they are old and gc is at them.
SHARED = [blob(f"shared-{number}", Random(number).randbytes(900 * (number + 1))) for number in range(14)]
PLACES = [f"{repository}:{number}" for repository in REPOSITORIES for number in range(40)]


class Image(msgspec.Struct, frozen=True):
    manifest: Content
    blobs: tuple[Content, ...]


def image_of(draw: Random, name: str) -> Image:
    """An image with a config of its own, and layers that others have, too."""
    config = blob(f"config {name}", json.dumps({"os": "linux", "created_by": name}).encode())
    layers = draw.sample(SHARED, draw.randrange(1, 5))
    return Image(image(name, config, *layers), (config, *layers))


class Account(msgspec.Struct):
    """What clients were told. `tags` by `repository:tag`, without those whose last request was cut off."""

    tags: dict[str, Image] = {}
    acknowledged: int = 0
    broken: list[str] = []


class Pusher:
    """A client that pushes images until its registry dies. A tag is this client's alone."""

    def __init__(self, stage: Stage, host: str, account: Account, draw: Random, number: int) -> None:
        self._stage = stage
        self._client = Client(host)
        self._account = account
        self._draw = draw
        self._number = number
        self._pushed = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        mine = PLACES[self._number :: CLIENTS]
        with contextlib.closing(self._client), contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                self._pushed += 1
                name = f"{self._draw.getrandbits(64):x}"
                self._push(self._draw.choice(mine), image_of(self._draw, name))

    def _push(self, place: str, pushed: Image) -> None:
        """As clients do: what a HEAD finds is not sent; then the manifest. Each answer is held against the
        ones before it."""
        repository, _, tag = place.rpartition(":")
        for each in pushed.blobs:
            answer = self._client.ask("HEAD", f"/v2/{repository}/blobs/{each.digest}")
            if answer.status != 200:
                answer = self._upload(repository, each)
                self._hold(answer, 201, f"upload of {each.name} to {repository}")
        with self._stage.changed:
            before = self._account.tags.pop(place, None)
        headers = {"Content-Type": pushed.manifest.media_type}
        path = f"/v2/{repository}/manifests/{tag}"
        answer = self._client.ask("PUT", path, pushed.manifest.raw, headers)
        self._hold(answer, 201, f"put of {place}, of which every blob was acknowledged")
        with self._stage.changed:
            if answer.status == 201:
                self._account.tags[place] = pushed
                self._account.acknowledged += 1
            elif before is not None:
                self._account.tags[place] = before
            self._stage.changed.notify_all()

    def _upload(self, repository: str, content: Content) -> Answer:
        uploads = f"/v2/{repository}/blobs/uploads/"
        match self._draw.randrange(3):
            case 0:
                return self._client.ask("POST", f"{uploads}?digest={content.digest}", content.raw)
            case 1:
                other = self._draw.choice(REPOSITORIES)
                opened = self._client.ask("POST", f"{uploads}?mount={content.digest}&from={other}")
            case _:
                opened = self._client.ask("POST", uploads)
        if opened.status != 202:
            return opened
        location = opened.headers["location"]
        stream = {"Content-Type": "application/octet-stream"}
        patched = self._client.ask("PATCH", location, content.raw, stream)
        if patched.status != 202:
            return patched
        return self._client.ask("PUT", f"{patched.headers['location']}?digest={content.digest}", b"")

    def _hold(self, answer: Answer, status: int, what: str) -> None:
        if answer.status != status:
            with self._stage.changed:
                self._account.broken.append(f"{what}: {answer.status} {answer.body[:200]!r}")


class Collecting:
    """gc after gc beside a registry, every third of them killed in the middle. A context manager."""

    def __init__(self, stage: Stage, root: Path, draw: Random) -> None:
        self.runs = self.killed = 0
        self.failed: list[str] = []
        self._stage = stage
        self._root = root
        self._draw = draw
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Collecting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(HANGS_AFTER)
        assert not self._thread.is_alive(), "gc hangs"

    def _run(self) -> None:
        while not self._ends.is_set():
            dies = self._draw.randrange(3) == 0
            budget = self._draw.randrange(100) if dies else None
            gc = self._stage.start("cache", "gc", "--cache-dir", self._root, "--max-size", "0", budget=budget)
            self.runs += 1
            if dies and gc.settle() is not None:
                self.killed += 1
                gc.kill()
            elif gc.wait():
                self.failed.append(gc.output)


def one_round(stage: Stage, world: World, account: Account, draw: Random) -> Collecting:
    """Clients push, gc runs beside, and after some acknowledged tags serve is killed, at whatever it is."""
    enough = account.acknowledged + draw.randrange(4, 25)
    with Collecting(stage, world.root, draw) as collecting:
        pushers = [
            Pusher(stage, world.host, account, Random(draw.getrandbits(64)), number)
            for number in range(CLIENTS)
        ]
        ended = stage.wait(lambda: account.acknowledged >= enough or bool(account.broken), HANGS_AFTER)
        world.serve.kill()
        for pusher in pushers:
            pusher.thread.join(HANGS_AFTER)
            assert not pusher.thread.is_alive(), "a client hangs"
    assert ended, f"nobody gets anywhere: {world.serve.output}"
    assert not collecting.failed, collecting.failed
    return collecting


def not_whole(host: str, tags: dict[str, Image]) -> Iterator[str]:
    """Pull every tag and hash all of it."""
    with contextlib.closing(Client(host)) as client:
        for place, expected in tags.items():
            repository, _, tag = place.rpartition(":")
            accept = {"Accept": expected.manifest.media_type}
            got = client.ask("GET", f"/v2/{repository}/manifests/{tag}", headers=accept)
            if got.status != 200 or digest_of(got.body) != expected.manifest.digest:
                yield f"{place}: manifest, {got.status}"
            for each in expected.blobs:
                got = client.ask("GET", f"/v2/{repository}/blobs/{each.digest}")
                if got.status != 200 or digest_of(got.body) != each.digest:
                    yield f"{place}: {each.name}, {got.status}"


def forget_some(world: World, account: Account, draw: Random) -> None:
    """Delete half of the tags, and let an hour go by: what they alone held, gc may take from now on."""
    with contextlib.closing(Client(world.host)) as client:
        for place in draw.sample(sorted(account.tags), len(account.tags) // 2):
            repository, _, tag = place.rpartition(":")
            assert client.ask("DELETE", f"/v2/{repository}/manifests/{tag}").status == 202
            del account.tags[place]
    make_older(world.root)


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(5, id="short"),
        pytest.param(100, id="long", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_every_acknowledged_tag_is_whole_after_kill_9_of_serve_under_pushes_and_gc(
    stage: Stage, rounds: int
) -> None:
    draw = Random(14)
    account = Account()
    collected = killed = pulled = 0
    with contextlib.closing(World(stage)) as world:
        for number in range(rounds):
            collecting = one_round(stage, world, account, draw)
            collected += collecting.runs
            killed += collecting.killed
            assert not account.broken, f"round {number}: {account.broken}"
            world.kill_serve()
            pulled += len(account.tags)
            assert not (lost := list(not_whole(world.host, account.tags))), f"round {number}: {lost}"
            forget_some(world, account, draw)
        check: Command = stage.start("cache", "verify", "--cache-dir", world.root)
        assert check.wait() == 0, check.output
    figures = {"kills": rounds, "acknowledged": account.acknowledged, "pulled": pulled}
    print(json.dumps({**figures, "gc": collected, "gc killed": killed}))
    assert account.acknowledged >= 4 * rounds
    assert collected >= rounds
