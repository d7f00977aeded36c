"""The journalling registry: what is asked is counted, and each act does what it says and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import ClientSession

from blobflow.oci import digest_of, parse_digest
from blobflow.oci.sample_images import sample_set
from blobflow.transports.store import Store
from tests.scenarios.registries import blobs_of, fill, registries
from tools.checkout import TOP
from tools.registry.fault_state import Pacing
from tools.registry.faulty import (
    Corrupt,
    DropHeader,
    Fault,
    ForgetSession,
    Hangup,
    JournallingRegistry,
    LoseAnswer,
    RedirectTo,
    RefuseMount,
    Reset,
    SetHeader,
    Slow,
    Stall,
    Status,
    Truncate,
    journalling,
    parse_fault,
)

BLOB = bytes(range(256)) * 1000
SMALL = b"a config"
DIGEST = digest_of(BLOB)
CONFIG = digest_of(SMALL)
PATH = f"/v2/app/blobs/{DIGEST}"


@pytest.fixture
async def faulty(tmp_path: Path) -> AsyncIterator[JournallingRegistry]:
    async with journalling(tmp_path / "store") as registry:
        for content in (BLOB, SMALL):
            registry.store.blobs.write_small(content, digest_of(content))
            registry.store.repositories.add("app", digest_of(content))
        yield registry


@pytest.fixture
async def http(faulty: JournallingRegistry) -> AsyncIterator[ClientSession]:
    async with ClientSession(faulty.url) as client:
        yield client


async def read(http: ClientSession, path: str = PATH) -> bytes:
    """What of the body arrived before it ended or broke."""
    got = b""
    with contextlib.suppress(aiohttp.ClientError):
        async with http.get(path) as answer:
            with contextlib.suppress(aiohttp.ClientPayloadError):
                async for chunk in answer.content.iter_any():
                    got += chunk
    return got


async def start(http: ClientSession, repository: str = "app") -> str:
    async with http.post(f"/v2/{repository}/blobs/uploads/") as answer:
        assert answer.status == 202
        return answer.headers["Location"]


# The journal


async def test_reads_uploads_mounts_and_bytes_are_counted(
    faulty: JournallingRegistry, http: ClientSession
) -> None:
    new = b"another blob" * 9000
    digest = digest_of(new)
    assert await read(http) == BLOB
    async with http.get(PATH, headers={"Range": "bytes=0-9"}):
        pass
    async with http.head(PATH):
        pass
    async with http.patch(await start(http), data=new[:1000]) as answer:
        location = answer.headers["Location"]
    async with http.put(location, params={"digest": digest}, data=new[1000:]) as answer:
        assert answer.status == 201
    async with http.post("/v2/two/blobs/uploads/", params={"digest": digest}, data=new) as answer:
        assert answer.status == 201
    async with http.post("/v2/three/blobs/uploads/", params={"mount": digest, "from": "two"}) as answer:
        assert answer.status == 201
    async with http.put(await start(http), params={"digest": DIGEST}, data=new) as answer:
        assert answer.status == 400
    journal = faulty.journal
    assert journal.reads(DIGEST) == journal.reads(DIGEST, "app") == 2
    assert journal.reads(DIGEST, "two") == 0
    assert journal.bytes_out(DIGEST) == len(BLOB) + 10
    assert (journal.uploads("app", digest), journal.uploads("two", digest)) == (1, 1)
    assert (journal.uploads_of(digest), journal.uploads_of(DIGEST)) == (2, 0)
    assert journal.bytes_in(digest) == 2 * len(new)
    assert journal.mounts() == journal.mounts("three", digest) == 1
    assert journal.mounts("two") == 0
    assert journal.count("GET", "/blobs/") == 2
    assert journal.count("", "mount=") == 1
    assert journal.count("POST", "uploads/", status=202) == 2
    assert all(each.ended is not None and not each.struck for each in journal)


async def test_the_journal_knows_how_many_were_under_way_at_once(
    faulty: JournallingRegistry, http: ClientSession
) -> None:
    gate = asyncio.Event()
    faulty.faults.add(Fault("GET", "/blobs/", times=0, act=Stall(until=gate)))
    reads = [asyncio.create_task(read(http)) for _ in range(3)]
    await faulty.journal.until(lambda journal: journal.count("GET", "/blobs/") == 3)
    gate.set()
    assert await asyncio.gather(*reads) == [BLOB] * 3
    await read(http)
    assert faulty.journal.peak("GET", "/blobs/") == 3
    faulty.journal.clear()
    assert len(faulty.journal) == 0


async def test_no_secret_gets_into_the_journal(faulty: JournallingRegistry, http: ClientSession) -> None:
    async with http.get("/v2/", headers={"Authorization": "Bearer s3cret"}):
        pass
    (exchange,) = faulty.journal
    assert exchange.authorized == "Bearer"
    assert "s3cret" not in repr(exchange)


# The acts


@pytest.mark.parametrize("act", [Reset(after=65536), Truncate(after=65536)])
async def test_an_answer_ends_after_so_many_bytes(
    faulty: JournallingRegistry, http: ClientSession, act: Reset | Truncate
) -> None:
    faulty.faults.add(Fault("GET", "/blobs/", nth=2, act=act))
    assert await read(http) == BLOB
    assert await read(http) == BLOB[:65536]
    assert await read(http) == BLOB
    first, second, third = faulty.journal
    assert (first.struck, second.struck, third.struck) == ((), (type(act).__name__,), ())
    assert (second.status, second.sent) == (200, 65536)
    assert faulty.journal.reads(DIGEST) == 3


async def test_a_small_answer_is_struck_like_a_large_one(
    faulty: JournallingRegistry, http: ClientSession
) -> None:
    faulty.faults.add(Fault("GET", CONFIG, act=Truncate(after=3)))
    faulty.faults.add(Fault("GET", CONFIG, nth=2, act=Corrupt(at=0)))
    path = f"/v2/app/blobs/{CONFIG}"
    assert await read(http, path) == SMALL[:3]
    assert await read(http, path) == bytes([SMALL[0] ^ 1]) + SMALL[1:]
    assert await read(http, path) == SMALL
    assert faulty.journal.bytes_out(CONFIG) == 3 + 2 * len(SMALL)


async def test_a_body_that_is_shorter_is_not_struck(faulty: JournallingRegistry, http: ClientSession) -> None:
    faulty.faults.add(Fault("GET", "/blobs/", act=Reset(after=len(BLOB) + 1)))
    assert await read(http) == BLOB


async def test_an_upload_breaks_and_what_arrived_stays(
    faulty: JournallingRegistry, http: ClientSession
) -> None:
    faulty.faults.add(Fault("PATCH", "/uploads/", act=Reset(after=100_000)))
    location = await start(http)
    with pytest.raises(aiohttp.ClientError):
        await http.patch(location, data=BLOB)
    async with http.get(location) as answer:
        assert answer.headers["Range"] == "0-99999"
    async with http.put(location, params={"digest": DIGEST}, data=BLOB[100_000:]) as answer:
        assert answer.status == 201
    assert faulty.journal.bytes_in(DIGEST) == len(BLOB)
    assert faulty.journal.select("PATCH")[0].status == 0


@pytest.mark.parametrize("act", [Truncate(after=1000), Corrupt(at=70_000)])
async def test_an_upload_that_was_falsified_on_the_way_is_refused(
    faulty: JournallingRegistry, http: ClientSession, act: Truncate | Corrupt
) -> None:
    faulty.faults.add(Fault("PUT", "/uploads/", act=act))
    async with http.put(await start(http), params={"digest": DIGEST}, data=BLOB) as answer:
        assert answer.status == 400
    async with http.put(await start(http), params={"digest": DIGEST}, data=BLOB) as answer:
        assert answer.status == 201


async def test_a_hangup_does_nothing_and_a_lost_answer_everything(
    faulty: JournallingRegistry, http: ClientSession
) -> None:
    digest = digest_of(b"new")
    faulty.faults.add(Fault("POST", "digest=", nth=1, act=Hangup()))
    faulty.faults.add(Fault("POST", "digest=", nth=2, act=LoseAnswer()))
    for held in (None, 3):
        with pytest.raises(aiohttp.ClientError):
            await http.post("/v2/app/blobs/uploads/", params={"digest": digest}, data=b"new")
        assert faulty.store.blobs.size_of(digest) == held
    assert [each.status for each in faulty.journal] == [0, 0]


async def test_a_status_is_answered_instead(faulty: JournallingRegistry, http: ClientSession) -> None:
    act = Status(429, {"Retry-After": "7"}, "slow down")
    faulty.faults.add(Fault("*", "/blobs/", times=2, act=act))
    for _ in range(2):
        async with http.get(PATH) as answer:
            assert (answer.status, await answer.text()) == (429, "slow down")
            assert answer.headers["Retry-After"] == "7"
    assert await read(http) == BLOB
    assert faulty.journal.count("GET", status=429) == 2
    assert faulty.journal.reads(DIGEST) == 1


async def test_a_redirect_goes_elsewhere(faulty: JournallingRegistry, http: ClientSession) -> None:
    faulty.faults.add(Fault("GET", "/blobs/", act=RedirectTo("http://127.0.0.1:1{path}")))
    async with http.get(PATH, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (307, f"http://127.0.0.1:1{PATH}")


async def test_a_session_is_forgotten(faulty: JournallingRegistry, http: ClientSession) -> None:
    faulty.faults.add(Fault("PUT", "/uploads/", act=ForgetSession()))
    async with http.put(await start(http), params={"digest": DIGEST}, data=BLOB) as answer:
        assert answer.status == 404


async def test_headers_are_dropped_and_falsified(faulty: JournallingRegistry, http: ClientSession) -> None:
    faulty.faults.add(Fault("*", "/blobs/", times=0, act=DropHeader("Docker-Content-Digest")))
    faulty.faults.add(Fault("HEAD", "/blobs/", act=SetHeader("Content-Length", "7")))
    async with http.head(PATH) as answer:
        assert answer.headers["Content-Length"] == "7"
        assert "Docker-Content-Digest" not in answer.headers
    async with http.get(PATH) as answer:
        assert "Docker-Content-Digest" not in answer.headers
        assert await answer.read() == BLOB


@pytest.mark.parametrize("status", [202, 401, 404, 405])
async def test_a_mount_is_refused(faulty: JournallingRegistry, http: ClientSession, status: int) -> None:
    faulty.faults.add(Fault("POST", "mount=", act=RefuseMount(status)))
    params = {"mount": DIGEST, "from": "app"}
    async with http.post("/v2/two/blobs/uploads/", params=params) as answer:
        assert answer.status == status
        assert ("Location" in answer.headers) == (status == 202)
    async with http.post("/v2/two/blobs/uploads/", params=params) as answer:
        assert answer.status == 201
    assert faulty.journal.mounts() == 1


async def test_a_stalled_answer_goes_on_when_it_may(faulty: JournallingRegistry, http: ClientSession) -> None:
    act = Stall(after=1000, until=asyncio.Event(), reached=asyncio.Event())
    assert act.until is not None
    assert act.reached is not None
    faulty.faults.add(Fault("GET", "/blobs/", act=act))
    async with http.get(PATH) as answer:
        await act.reached.wait()
        assert await answer.content.readexactly(1000) == BLOB[:1000]
        assert next(iter(faulty.journal)).sent == 1000
        act.until.set()
        assert await answer.content.read() == BLOB[1000:]


async def test_all_bodies_share_the_bytes_a_second(tmp_path: Path) -> None:
    """The time that two reads and an upload take together, on a clock of the test's own."""
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        await asyncio.sleep(0)

    fault = Fault("*", "/blobs/", times=0, act=Slow(bytes_per_second=len(BLOB) / 10))
    async with journalling(tmp_path, [fault], clock=lambda: now, sleep=sleep) as registry:
        registry.store.blobs.write_small(BLOB, DIGEST)
        registry.store.repositories.add("app", DIGEST)
        async with ClientSession(registry.url) as http:
            assert set(await asyncio.gather(read(http), read(http))) == {BLOB}
            assert now >= 20
            async with http.put(await start(http), params={"digest": DIGEST}, data=BLOB) as answer:
                assert answer.status == 201
    assert now >= 30


async def test_each_body_has_the_bytes_a_second_where_that_is_said() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    pacing, one, other = Pacing(lambda: 0.0, sleep), object(), object()
    for act in (Slow(100, each=True), Slow(100)):
        for body in (one, other, one):
            await pacing.wait(act, 50, body)
    assert slept == [0.5, 0.5, 1.0, 0.5, 1.0, 1.5]


# Written down


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "GET /blobs/ nth=2 reset after=65536",
            Fault("GET", "/blobs/", nth=2, act=Reset(after=65536)),
        ),
        ("* . times=0 slow bytes_per_second=1e6", Fault("*", ".", times=0, act=Slow(1e6))),
        ("* . slow bytes_per_second=1e6 each=true", Fault("*", ".", act=Slow(1e6, each=True))),
        ("POST mount= refusemount status=405", Fault("POST", "mount=", act=RefuseMount(405))),
        ("PATCH /uploads/ hangup", Fault("PATCH", "/uploads/", act=Hangup())),
        ("GET x dropheader name=ETag", Fault("GET", "x", act=DropHeader("ETag"))),
    ],
)
def test_a_fault_can_be_written_down(text: str, fault: Fault) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    ["", "GET /blobs/", "GET /blobs/ explode", "GET x reset after=soon", "GET x nth=2", "GET ( hangup"],
)
def test_a_fault_that_is_none_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        parse_fault(text)


# The harness


async def test_a_filled_registry_serves_the_whole_sample_set(tmp_path: Path) -> None:
    images = sample_set(7, images=2, layer_size=1000)
    async with registries(tmp_path, ["source", "target"]) as (source, target):
        fill(source.store, images, "mirror/")
        assert source.host != target.host
        async with ClientSession(source.url) as http:
            for name, index in images.images.items():
                repository, _, tag = name.rpartition(":")
                path = f"/v2/mirror/{repository}"
                assert await read(http, f"{path}/manifests/{tag}") == index.raw
                for digest in blobs_of(images, name):
                    assert await read(http, f"{path}/blobs/{digest}") == images.blobs[digest]
        assert source.journal.count(status=200) == len(source.journal) > 2
        assert len(target.journal) == 0


# As a program


async def test_a_kill_during_an_upload_leaves_nothing_visible(tmp_path: Path) -> None:
    """kill -9 with a session that has bytes; then a new process over the same store."""
    journal = tmp_path / "journal.jsonl"
    for turn in range(2):
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tools.registry.faulty"),
            *("--root", str(tmp_path / "store"), "--journal", str(journal)),
            stdout=subprocess.PIPE,
            cwd=TOP,
        )
        assert program.stdout is not None
        url = (await program.stdout.readline()).decode().split()[-1]
        async with ClientSession(url) as http:
            async with http.get(PATH) as answer:
                assert answer.status == 404
            location = await start(http)
            async with http.patch(location, data=BLOB) as answer:
                assert answer.status == 202
            if turn:
                async with http.put(location, params={"digest": DIGEST}) as answer:
                    assert answer.status == 201
                assert await read(http) == BLOB
        program.send_signal(signal.SIGTERM if turn else signal.SIGKILL)
        assert await program.wait() == (0 if turn else -signal.SIGKILL)
    store = Store.open(tmp_path / "store")
    assert store.repositories.media_type_of("app", parse_digest(DIGEST)) == ""
    store.close()
    lines = [json.loads(line) for line in journal.read_bytes().splitlines()]
    assert [line["method"] for line in lines] == ["GET", "POST", "PATCH"] * 2 + ["PUT", "GET"]
    assert lines[2]["received"] == len(BLOB)
