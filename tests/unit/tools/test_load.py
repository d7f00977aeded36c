"""The loads' client: answers of every form, and servers that hang up. And the loads' arithmetic."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random

import pytest

from blobflow.transports.store import Store, inventory
from tests.deadlines import HANGS_AFTER
from tools.loads.conversation import Answer, BrokenAnswer, Cut, Script, Step, Timed, converse
from tools.loads.gc_beside import Report, Round, Times, quantile
from tools.loads.gc_beside import told as gc_told
from tools.loads.gc_process import Sweep, sweep
from tools.loads.mix.actions import living
from tools.loads.mix.client import MixedClient, Tally
from tools.loads.old_blobs import add_old_blobs, age_orphans
from tools.loads.requests import completing, expect, path_of
from tools.loads.side_by_side import Figure
from tools.loads.side_by_side import told as works_told
from tools.soak_serve import Report as SoakReport
from tools.soak_serve import Sample

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: here\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """Answers each request with the next of `answers`, in pieces of `piece` bytes. `last`: it hangs up after
    each. `connections`: what came on each of them, in order of connecting."""

    def __init__(self, answers: Sequence[bytes], *, piece: int = 1_000_000, last: bool = False) -> None:
        self._answers = list(answers)
        self._piece = piece
        self._last = last
        self.connections: list[bytearray] = []
        self.ended = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = bytearray()
        self.connections.append(received)
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while part := await reader.read(65536):
                received += part
                if not received.endswith(b"\r\n\r\n"):
                    continue
                answer = self._answers.pop(0)
                for at in range(0, len(answer), self._piece):
                    writer.write(answer[at : at + self._piece])
                    await writer.drain()
                    await asyncio.sleep(0)
                if self._last or not answer:
                    break
        self.ended.set()


async def told(server: Server, *steps: Step) -> list[Answer]:
    """What a script that says these steps is answered."""
    answers: list[Answer] = []

    def script() -> Script:
        for step in steps:
            answers.append((yield step))

    async with server.listening() as host, asyncio.timeout(HANGS_AFTER):
        await converse(host, script())
    return answers


@pytest.mark.parametrize("piece", [1, 7, 1_000_000])
async def test_answers_are_read_whole_however_they_come_in_pieces(piece: int) -> None:
    server = Server([OK, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", OK], piece=piece)
    answers = await told(server, GET, GET, GET)
    assert [(each.status, each.body) for each in answers] == [(200, b"hello"), (404, b""), (200, b"hello")]
    assert server.connections == [GET * 3]


@pytest.mark.parametrize("piece", [1, 1_000_000])
async def test_a_chunked_answer_ends_with_its_last_chunk(piece: int) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    answers = await told(Server([chunked, OK], piece=piece), GET, GET)
    assert [each.status for each in answers] == [200, 200]
    assert b"hello" in answers[0].body


async def test_an_answer_to_head_and_a_204_have_no_body_whatever_their_length_says() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    answers = await told(Server([head, b"HTTP/1.1 204 No Content\r\n\r\n", OK]), HEAD, GET, GET)
    assert [(each.status, each.body) for each in answers] == [(200, b""), (204, b""), (200, b"hello")]


@pytest.mark.parametrize(
    "answer", [OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), OK.replace(b"/1.1", b"/1.0")]
)
async def test_a_connection_that_ends_with_an_answer_is_made_anew_for_the_next_request(answer: bytes) -> None:
    server = Server([answer, OK], last=True)
    answers = await told(server, GET, GET)
    assert [each.status for each in answers] == [200, 200]
    assert server.connections == [GET, GET]


async def test_a_server_that_hangs_up_first_gave_no_answer_and_the_script_goes_on() -> None:
    server = Server([b"", OK[:20], OK], last=True)
    answers = await told(server, GET, GET, GET)
    assert [each.status for each in answers] == [0, 0, 200]


async def test_a_connection_that_was_closed_while_nothing_was_asked_loses_no_request() -> None:
    server = Server([OK, OK], last=True)  # without a word of it in the answer
    answers = await told(server, GET, Timed(GET, time.monotonic() + 1.0))
    assert [each.status for each in answers] == [200, 200]


async def test_a_cut_request_reaches_the_server_as_far_as_it_was_to() -> None:
    server = Server([OK])
    answers = await told(server, Cut(GET[:10]), GET)
    assert [each.status for each in answers] == [0, 200]
    assert server.connections == [GET[:10], GET]


async def test_who_hangs_up_when_the_answer_begins_does_not_read_it() -> None:
    server = Server([OK, OK], piece=3)
    answers = await told(server, Cut(GET, reading=True), GET)
    assert [each.status for each in answers] == [0, 200]
    assert server.connections == [GET, GET]


async def test_a_timed_request_is_not_sent_before_it_is_due() -> None:
    due = time.monotonic() + 0.05
    (answer,) = await told(Server([OK]), Timed(GET, due))
    assert answer.sent > due - 0.002  # a loop counts milliseconds
    (late,) = await told(Server([OK]), Timed(GET, 0.0))
    assert late.status == 200


async def test_what_a_script_raises_and_an_answer_that_is_none_reach_who_waits() -> None:
    def strict() -> Script:
        expect((yield GET), 201)

    async with Server([OK]).listening() as host, asyncio.timeout(HANGS_AFTER):
        with pytest.raises(RuntimeError, match="200 OK"):
            await converse(host, strict())
    with pytest.raises(BrokenAnswer):
        await told(Server([b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"]), GET)
    with pytest.raises(BrokenAnswer):
        await told(Server([OK + b"and more"]), GET)


def test_a_location_is_a_path_or_a_url_and_keeps_its_query() -> None:
    assert (
        path_of("http://127.0.0.1:5000/v2/a/blobs/uploads/x?_state=A%3D")
        == "/v2/a/blobs/uploads/x?_state=A%3D"
    )
    assert completing("/v2/a/blobs/uploads/x", "sha256:00") == "/v2/a/blobs/uploads/x?digest=sha256:00"
    assert completing("http://h/u?_state=A", "sha256:00") == "/u?_state=A&digest=sha256:00"
    answer = Answer(202, b"HTTP/1.1 202 Accepted\r\nLOCATION: /Up\r\n", b"", 0.0)
    assert answer.location == "/Up"


def test_a_quantile_is_a_value_that_was_seen() -> None:
    assert [quantile([4, 1, 3, 2], part) for part in (0, 0.5, 0.75, 0.99, 1)] == [1, 2, 3, 4, 4]
    assert quantile([7], 0.5) == 7
    assert math.isnan(quantile([], 0.99))


def test_rates_are_told_beside_each_other_with_the_medians_of_the_rounds_ratios() -> None:
    ours = [Figure(100, 1, 0.1), Figure(300, 1, 0.3), Figure(50, 1, 0.05)]
    theirs = [Figure(50, 1, 0.1), Figure(100, 1, 0.2), Figure(50, 1, 0.1)]
    title, first, second = works_told("pushes", {"ours": ours, "theirs": theirs}).split("\n")
    assert title == "pushes"
    assert first.split() == ["ours", "100.00", "1.000", "ms", "CPU", "each"]
    assert "ours:  2.00 x its rate,  0.50 x its CPU" in second


def _report(beside: list[float], statuses: dict[tuple[str, int], int], lost: list[str]) -> Report:
    alone = Times([0.001] * 100, [0.002] * 100)
    return Report([Round(alone, alone, Times(beside, [0.004] * 100), [Sweep(20, 1.5)])], statuses, lost)


def test_a_sweep_that_slows_pulls_is_told_by_the_ratio_of_p99s() -> None:
    right = _report([0.003] * 100, {("pull", 200): 200, ("push", 201): 200}, [])
    assert not right.wrong
    text = gc_told(right)
    assert "p99 of pulls beside gc by p99 without: 3.00 x (goal <= 5: met" in text
    assert "p99 of pulls beside a process that only computes by p99 without: 1.00 x" in text
    assert "p99 of pushes beside gc by p99 without: 2.00 x" in text
    assert "5xx or no answer: 0; answered 201 and lost: 0" in text
    assert "missed" in gc_told(_report([0.006] * 100, {}, []))


@pytest.mark.parametrize(
    "statuses, lost", [({("push", 500): 1}, []), ({("pull", 0): 1}, []), ({("push", 201): 1}, ["sha256:00"])]
)
def test_failed_requests_and_lost_blobs_are_wrong_whatever_the_times(
    statuses: dict[tuple[str, int], int], lost: list[str]
) -> None:
    assert _report([0.001] * 100, statuses, lost).wrong


def test_growth_is_from_a_tenth_to_the_end() -> None:
    samples = [Sample(part * 50, part, part, part * 100) for part in range(1, 21)]
    assert SoakReport(samples, {}, 0, 0, [], []).growth == 10
    assert SoakReport(samples, {}, 0, 0, [], [Sweep(0, 1, "gc ended with 8")]).right is False
    assert SoakReport(samples, {}, 1, 0, [], []).right is False


async def test_a_gc_that_fails_says_so(tmp_path: Path) -> None:
    (tmp_path / "stranger").write_text("this is no store")
    async with asyncio.timeout(HANGS_AFTER):
        swept = await sweep(tmp_path, tmp_path / "home", under=("nice",))
    assert swept.removed == 0
    assert "gc ended with" in swept.failure


async def test_old_blobs_are_blobs_of_the_store_and_a_sweep_takes_them_all(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "store")) as store:
        add_old_blobs(store.root, 30, 100)
        held = inventory.list_blobs(store)
        assert [(blob.size, blob.kept) for blob in held] == [(100, False)] * 30
        async with asyncio.timeout(HANGS_AFTER):
            for blob in held:
                await store.blobs.check(blob.digest)  # against the checksums that were written
            assert [error async for _, error in inventory.verify_blobs(store)] == [None] * 30
    async with asyncio.timeout(HANGS_AFTER):
        swept = await sweep(tmp_path / "store", tmp_path)
    assert (swept.removed, swept.failure) == (30, "")


def test_only_what_no_repository_holds_is_made_old(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "store")) as store:
        root = store.root
    with closing(sqlite3.connect(root / "state.sqlite")) as state, state:
        now = int(time.time())
        for digest in ("sha256:held", "sha256:orphan"):
            state.execute(
                "INSERT INTO blobs(digest, size, blocks, added, used) VALUES (?, 1, x'', ?, ?)",
                (digest, now, now),
            )
        state.execute("INSERT INTO members VALUES ('', 'a', 'sha256:held', '')")
        state.commit()
        age_orphans(root, 3600)
        new = "SELECT digest FROM blobs WHERE added = ?"
        assert len(state.execute(new, (now,)).fetchall()) == 2
        age_orphans(root, 0)
        assert state.execute(new, (now,)).fetchall() == [("sha256:held",)]


async def test_a_mixed_client_counts_every_failure_of_a_server_that_only_fails() -> None:
    failed = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"

    class Failing(Server):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.closing(writer), contextlib.suppress(ConnectionError):
                while await reader.read(65536):
                    writer.write(failed)

    tally = Tally()
    async with Failing([]).listening() as host, asyncio.timeout(HANGS_AFTER):
        client = MixedClient(host, ["a", "b"], Random(1), tally)
        await converse(host, living(client, lambda: tally.requests < 100))
    assert tally.requests >= 100
    answered = sum(count for (_, status), count in tally.statuses.items() if status == 500)
    assert tally.wrong == tally.failed == answered
    assert answered > 50
    assert len(tally.shown) == 20
