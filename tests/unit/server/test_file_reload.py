"""Files that are read again: what takes effect, and what is said of what does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blobflow.errors import InvalidConfig
from blobflow.server.admin.file_reload import FileReloader, ReloadableFile, ReloadableOnDemand


def parse(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidConfig(f"{text!r} is no number") from None


class Watched:
    """A file with a number in it, the numbers that took effect, and what was said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: list[int] = []
        self.said: list[str] = []
        self.parsed = 0
        path.write_text("1")
        self.rereading = self.made([self.kept()])

    def kept(self) -> ReloadableFile[int]:
        def counted(text: str) -> int:
            self.parsed += 1
            return parse(text)

        return ReloadableFile(self.path, "1", what="the numbers", parse=counted, take=self.taken.append)

    def made(self, files: list[ReloadableFile[int] | ReloadableOnDemand]) -> FileReloader:
        return FileReloader(files, self.said.append)

    def write(self, text: str, *, at: float = 1_000_000.0) -> None:
        """As it would look a while after it was written."""
        self.path.write_text(text)
        os.utime(self.path, (at, at))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path / "numbers")
    yield made
    made.rereading.close()


async def test_a_change_takes_effect_once(watched: Watched) -> None:
    await watched.rereading.look()
    assert watched.taken == []
    watched.write("22")
    for _ in range(3):
        await watched.rereading.look()
    assert watched.taken == [22]
    assert watched.said == [f"{watched.path} was read again"]


async def test_a_file_that_has_not_changed_is_not_read(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.write("1")
    await watched.rereading.look()
    read: list[Path] = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path))
    await watched.rereading.look()
    assert read == []


async def test_two_changes_in_one_tick_of_the_clock_are_both_seen(watched: Watched) -> None:
    """Same size, same time, same file: only its content tells."""
    now = watched.path.stat().st_mtime + 3600
    for text in ("2", "3", "4"):
        watched.write(text, at=now)
        await watched.rereading.look()
    assert watched.taken == [2, 3, 4]


async def test_a_file_that_was_replaced_is_seen(watched: Watched) -> None:
    watched.write("1")
    await watched.rereading.look()
    new = watched.path.with_suffix(".new")
    new.write_text("2")
    os.utime(new, (1_000_000, 1_000_000))
    new.rename(watched.path)
    await watched.rereading.look()
    assert watched.taken == [2]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_text("x"), "'x' is no number"),
        (lambda path: path.write_text(""), "'' is no number"),
        (lambda path: path.write_bytes(b"\xff"), "is not UTF-8 text (byte 0)"),
        (lambda path: path.unlink(), "No such file or directory"),
    ],
)
async def test_what_makes_no_sense_changes_nothing_and_is_told_once(
    watched: Watched, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(watched.path)
    await watched.rereading.look()
    assert watched.said == [], "it may be just being written"
    for _ in range(3):
        await watched.rereading.look()
    assert watched.taken == []
    [line] = watched.said
    assert said in line
    assert line.endswith("; going on with the numbers as before")
    watched.write("2")
    await watched.rereading.look()
    assert watched.taken == [2]
    spoil(watched.path)
    for _ in range(3):
        await watched.rereading.look()
    assert watched.said[2:] == [line], "a second time is another time"


async def test_a_file_that_is_mended_to_what_it_was_is_not_taken_for_changed(watched: Watched) -> None:
    watched.write("x")
    await watched.rereading.look()
    watched.write("1")
    await watched.rereading.look()
    assert (watched.taken, watched.said) == ([], [])


async def test_a_pipe_is_read_once_and_left_alone(watched: Watched) -> None:
    watched.path.unlink()
    os.mkfifo(watched.path)
    await watched.rereading.look()
    await watched.rereading.reread()
    assert watched.taken == []


async def test_who_asks_is_told_of_every_file_and_only_then_certificates_are_read(watched: Watched) -> None:
    reads: list[str] = []

    def reread() -> None:
        reads.append("read")
        if len(reads) > 1:
            raise InvalidConfig("cert.pem is no certificate")

    certificate = ReloadableOnDemand(Path("cert.pem"), "the certificate", reread)
    rereading = watched.made([watched.kept(), certificate])
    await rereading.look()
    assert reads == []
    await rereading.reread()
    assert watched.said == [f"{watched.path} has not changed", "cert.pem was read again"]
    watched.said.clear()
    watched.write("x")
    await rereading.reread()
    assert watched.said == [
        "'x' is no number; going on with the numbers as before",
        "cert.pem is no certificate; going on with the certificate as before",
    ]
    rereading.close()


async def test_watching_looks_again_and_again_until_it_is_cancelled(watched: Watched) -> None:
    looks = asyncio.Semaphore(0)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await looks.acquire()

    taken = asyncio.Event()
    kept = ReloadableFile(watched.path, "1", what="", parse=parse, take=lambda number: taken.set())
    rereading = FileReloader([kept], watched.said.append, sleep=sleep)
    task = asyncio.create_task(rereading.watch())
    looks.release()
    watched.write("2")
    looks.release()
    await taken.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(slept) == {1.0}
    rereading.close()
