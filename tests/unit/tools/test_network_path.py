"""The long-path relay: what it does to bytes, counted, and to time, on a clock of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from tests.deadlines import HANGS_AFTER
from tools.checkout import TOP
from tools.network_path import BUFFER, WINDOW, Bucket, Line, Shape, long_path

CONTENT = bytes(range(256)) * 8192  # 2 MiB


class Clock:
    """Time that passes only where someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class SharedClock(Clock):
    """As `Clock`, for several who sleep at once: none of them sets it back."""

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        await asyncio.sleep(0)
        self.now = max(self.now, until)


class Far:
    """A server behind the relay: reads a connection to its end, then answers with CONTENT."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.host = ""
        self.reached = asyncio.Event()
        self.ended = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = 0
        try:
            while chunk := await reader.read(BUFFER):
                size += len(chunk)
                self.reached.set()
            writer.write(CONTENT)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.received.append(size)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.ended.set()


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    far = Far()
    server = await asyncio.start_server(far.answer, "127.0.0.1", 0)
    async with server:
        far.host = "{}:{}".format(*server.sockets[0].getsockname())
        yield far


async def exchange(host: str, size: int) -> bytes:
    """Send `size` zeros and the end, and return the answer. ConnectionError when it is broken."""
    name, port = host.split(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    try:
        writer.write(bytes(size))
        writer.write_eof()
        return await reader.read(-1)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("shape", [Shape(), Shape(rtt=0.04), Shape(rate=4e6), Shape(rtt=0.04, rate=4e6)])
async def test_bytes_and_ends_pass_unchanged_both_ways(far: Far, shape: Shape) -> None:
    clock = Clock()
    async with long_path(far.host, shape, clock=clock, sleep=clock.sleep) as path:
        assert await exchange(path.host, 300_000) == CONTENT
        await path.idle()
        assert (path.up, path.down) == (300_000, len(CONTENT))
        assert (path.connections, path.cuts, path.dead) == (1, 0, False)
    assert far.received == [300_000]


async def test_a_paced_answer_takes_its_size_over_the_rate(far: Far) -> None:
    clock = Clock()
    async with long_path(far.host, Shape(rate=1e6), clock=clock, sleep=clock.sleep) as path:
        await exchange(path.host, 0)
        await path.idle()
    assert clock.now == pytest.approx(len(CONTENT) / 1e6, abs=0.05)


async def test_connections_share_the_rate_of_their_line(far: Far) -> None:
    clock = SharedClock()
    async with long_path(far.host, Shape(total_rate=1e6), clock=clock, sleep=clock.sleep) as path:
        answers = await asyncio.gather(*(exchange(path.host, 0) for _ in range(4)))
        await path.idle()
    assert answers == [CONTENT] * 4
    assert clock.now == pytest.approx(4 * len(CONTENT) / 1e6, abs=0.1)


async def test_a_delayed_exchange_waits_for_the_handshake_and_for_both_ways(far: Far) -> None:
    clock = Clock()
    async with long_path(far.host, Shape(rtt=1.0), clock=clock, sleep=clock.sleep) as path:
        await exchange(path.host, 1)
    assert clock.now >= 2.0


async def test_a_connection_is_cut_after_exactly_the_bytes_that_were_drawn(far: Far) -> None:
    shape = Shape(cut_mean=200_000, seed=3)
    lives = [int(shape.life_of(number)) for number in range(8)]
    assert all(life < len(CONTENT) for life in lives)
    async with long_path(far.host, shape) as path:
        for number, life in enumerate(lives):
            before = path.passed
            with pytest.raises(ConnectionError):
                await exchange(path.host, 1000)
            await path.idle()
            assert path.passed - before == life
            assert (path.connections, path.cuts) == (number + 1, number + 1)


async def test_a_cut_reaches_the_far_side_too(far: Far) -> None:
    async with long_path(far.host, Shape(cut_mean=1e6, seed=3)) as path:
        with pytest.raises(ConnectionError):
            await exchange(path.host, 64 * BUFFER)
        await asyncio.wait_for(far.ended.wait(), HANGS_AFTER)
        assert far.received[0] <= path.up == int(Shape(cut_mean=1e6, seed=3).life_of(0))


def test_lives_come_from_the_seed_and_have_the_mean() -> None:
    def lives(seed: int) -> list[float]:
        return [Shape(cut_mean=12e6, seed=seed).life_of(number) for number in range(2000)]

    assert lives(1) == lives(1) != lives(2)
    assert sum(lives(1)) / 2000 == pytest.approx(12e6, rel=0.1)
    # Exponential: 1 - 1/e of them end before the mean.
    assert sum(life < 12e6 for life in lives(1)) / 2000 == pytest.approx(0.632, abs=0.04)
    assert Shape().life_of(0) == math.inf


async def test_a_path_dies_after_its_bytes_and_can_come_back_at_its_place(far: Far) -> None:
    async with long_path(far.host, Shape(dies_after=500_000)) as path:
        with pytest.raises(ConnectionError):
            await exchange(path.host, 1000)
        assert path.dead
        assert path.passed >= 500_000
        with pytest.raises(ConnectionRefusedError):
            await exchange(path.host, 1000)
    async with long_path(far.host, Shape(), listen=path.host) as revived:
        assert await exchange(revived.host, 1000) == CONTENT


async def test_nobody_at_the_far_side_is_a_reset(far: Far) -> None:
    async with long_path("127.0.0.1:1", Shape()) as path:
        with pytest.raises(ConnectionError):
            await exchange(path.host, 1000)
        await path.idle()
        assert (path.connections, path.cuts) == (1, 0)


async def test_closing_resets_what_lives(far: Far) -> None:
    async with long_path(far.host, Shape()) as path:
        name, port = path.host.split(":")
        reader, writer = await asyncio.open_connection(name, int(port))
        writer.write(b"x")
        await asyncio.wait_for(far.reached.wait(), HANGS_AFTER)
    with pytest.raises(ConnectionError):
        await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


def test_a_bucket_lets_a_step_pass_at_once_and_saves_up_no_more() -> None:
    bucket = Bucket(1_000_000)
    assert bucket.step == 20_000
    assert bucket.take(20_000, 0.0) == pytest.approx(0.0)
    assert bucket.take(20_000, 0.0) == pytest.approx(0.02)
    assert bucket.take(20_000, 0.02) == pytest.approx(0.02)
    # A long rest earns one step, not the bytes of all that time.
    assert bucket.take(20_000, 100.0) == pytest.approx(0.0)
    assert bucket.take(20_000, 100.0) == pytest.approx(0.02)


def test_a_bucket_without_a_rate_never_waits() -> None:
    assert Bucket(0).take(10**12, 0.0) == 0.0
    assert Bucket(0).step == BUFFER


async def test_a_line_holds_no_more_than_its_window() -> None:
    clock = Clock()
    released = asyncio.Event()
    out: list[int] = []

    async def take(piece: memoryview) -> None:
        await released.wait()
        out.append(len(piece))

    line = Line(take, Shape(rtt=1.0), clock, clock.sleep)
    delivery = asyncio.create_task(line.deliver())
    filling = asyncio.create_task(_put_many(line, pieces=20))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not filling.done()
    released.set()
    await asyncio.wait_for(asyncio.gather(filling, delivery), HANGS_AFTER)
    assert out == [BUFFER] * 20
    assert WINDOW < 20 * BUFFER


async def _put_many(line: Line, pieces: int) -> None:
    for _ in range(pieces):
        await line.put(memoryview(bytes(BUFFER)))
    await line.put(None)


async def test_the_program_tells_its_counts_when_it_is_stopped(far: Far) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tools.network_path", "--to", far.host),
        cwd=TOP,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    host = (await process.stdout.readline()).decode().removeprefix("listening on ").strip()
    assert await exchange(host, 1000) == CONTENT
    process.send_signal(signal.SIGTERM)
    out, _ = await asyncio.wait_for(process.communicate(), HANGS_AFTER)
    assert out.decode() == f"1 connections, 0 cut; 1000 bytes up, {len(CONTENT)} down\n"
    assert process.returncode == 0


async def test_a_connection_that_comes_as_the_path_ends_is_reset_and_not_kept() -> None:
    async with long_path("127.0.0.1:1", Shape()) as path:
        host, _, port = path.host.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await path.close()
        async with asyncio.timeout(HANGS_AFTER):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        writer.close()
