"""What is no plain file, given as an archive, a layout or a file that people write: it is read as far as it
goes, or refused in a sentence, and never waited for without end."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from blobflow import bounded_file, cli
from blobflow.transports.archive import tar_reader
from blobflow.transports.compression import decompressor
from tests.fakes.archives import config_of, digest, tar_of

LAYER = tar_of([("etc/name", b"app")])
MANIFEST = b'[{"Config": "config.json", "RepoTags": ["team/app:1"], "Layers": ["layer.tar"]}]'
ARCHIVE = tar_of([("manifest.json", MANIFEST), ("config.json", config_of(LAYER)), ("layer.tar", LAYER)])
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.setattr(tar_reader, "MAX_ZEROS", 2 * MIB)
    monkeypatch.setattr(decompressor, "MAX_PADDING", 2 * MIB)
    yield
    asyncio.set_event_loop(None)


def copied(tmp_path: Path, source: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.cli, ["copy", "-q", source, f"oci:{tmp_path / 'copied'}:x"])
    return done.exit_code, done.output.strip()


@pytest.mark.parametrize("word", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/dev/zero", "/dev/zero has more than 2 MiB of zeros from byte 512 on; is it the right file?"),
        ("/dev/null", "/dev/null is empty: it holds no image"),
    ],
)
def test_a_device_is_no_archive(tmp_path: Path, word: str, path: str, words: str) -> None:
    assert copied(tmp_path, f"{word}:{path}") == (7, f"blobflow: source: {words}")


def test_a_device_is_no_layout(tmp_path: Path) -> None:
    code, said = copied(tmp_path, "oci:/dev/zero")
    assert code == 7
    assert said == (
        "blobflow: source: /dev/zero is a file, not an OCI layout; an archive is oci-archive:/dev/zero"
    )


@pytest.mark.parametrize("word", ["docker-archive", "oci-archive"])
def test_a_socket_is_no_archive(tmp_path: Path, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has no room for a long one
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("there")
        code, said = copied(tmp_path, f"{word}:there")
    assert code == 8
    assert said == (
        "blobflow: source: can't read there: it is a socket or device that nothing can be read from"
    )


def endless(pipe: int, *begin: bytes) -> None:
    """Write without end, until whoever reads has gone."""
    try:
        for block in begin:
            while block:
                block = block[os.write(pipe, block) :]
        while True:
            os.write(pipe, bytes(MIB))
    except BrokenPipeError:
        pass
    finally:
        os.close(pipe)


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (ARCHIVE, "MiB of zeros from byte"),
        (gzip.compress(ARCHIVE), "has more than 2 MiB of zeros behind its gzip stream"),
    ],
)
def test_zeros_behind_an_archive_come_to_an_end(tmp_path: Path, begin: bytes, words: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=lambda: endless(os.open(pipe, os.O_WRONLY), begin))
    writing.start()
    code, said = copied(tmp_path, f"docker-archive:{pipe}")
    writing.join()
    assert code == 7
    assert words in said


def test_zeros_up_to_the_bound_are_padding(tmp_path: Path) -> None:
    for path, content in (
        ("plain.tar", ARCHIVE + bytes(MIB)),
        ("packed.tar", gzip.compress(ARCHIVE) + bytes(MIB)),
    ):
        (tmp_path / path).write_bytes(content)
        assert copied(tmp_path, f"docker-archive:{tmp_path / path}")[0] == 0


def test_a_pipe_that_somebody_writes_to_is_an_archive(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=lambda: pipe.write_bytes(ARCHIVE))
    writing.start()
    code, said = copied(tmp_path, f"docker-archive:{pipe}")
    writing.join()
    assert (code, said) == (0, "")
    assert (tmp_path / "copied" / "blobs" / "sha256" / digest(config_of(LAYER)).partition(":")[2]).exists()


def test_a_writer_that_has_written_all_and_gone_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, usual, gone = tmp_path / "pipe", os.open, threading.Event()
    os.mkfifo(pipe)

    def late(path: str | Path, flags: int, *more: int) -> int:
        if str(path) == str(pipe) and threading.current_thread().daemon and not flags & os.O_NONBLOCK:
            gone.wait()  # whoever only looks whether there is a writer comes when it was there
        return usual(path, flags, *more)

    def write() -> None:
        pipe.write_bytes(ARCHIVE)
        gone.set()

    monkeypatch.setattr(os, "open", late)
    writing = threading.Thread(target=write)
    writing.start()
    descriptor = bounded_file.open_readable(pipe)
    writing.join()
    assert os.read(descriptor, len(ARCHIVE) + 1) == ARCHIVE
    assert os.read(descriptor, 1) == b""
    os.close(descriptor)


@pytest.mark.parametrize(
    ("words", "side", "code"),
    [
        (["copy", "docker-archive:{}", "oci:out:x"], "source: ", 8),
        (["copy", "oci-archive:{}", "oci:out:x"], "source: ", 8),
        (["sync", "{}"], "", 2),
        (["apply", "{}"], "", 2),
        (["report", "show", "{}"], "", 2),
    ],
)
def test_a_pipe_that_nobody_writes_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], side: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bounded_file, "PIPE_SECONDS", 0.1)
    os.mkfifo("pipe")
    done = CliRunner().invoke(cli.cli, [word.format("pipe") for word in words])
    said = done.output.strip().splitlines()[-1]
    assert said == f"blobflow: {side}can't read pipe: it is a pipe that nobody writes to, for 0.1 s now"
    assert done.exit_code == code


@pytest.mark.parametrize("verb", [["bundle", "ls"], ["bundle", "verify"], ["load", "--to", "127.0.0.1:9"]])
def test_a_verb_that_tells_archives_apart_does_not_wait_for_a_pipe(tmp_path: Path, verb: list[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = CliRunner().invoke(cli.cli, [*verb, str(tmp_path / "pipe")])
    assert done.exit_code == 2
    assert "can be read only once" in done.output


def test_a_layout_whose_list_is_a_pipe_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    folder.mkdir()
    os.mkfifo(folder / "index.json")
    assert copied(tmp_path, f"oci:{folder}") == (
        7,
        f"blobflow: source: {folder / 'index.json'} is a pipe; a layout is made of files",
    )
