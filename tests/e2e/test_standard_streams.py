"""Standard streams that are full or closed: what a command does, and its exit code, stay the same."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.fakes.layouts import Layout
from tools.checkout import TOP
from tools.ports import reserve_port, takes_connections
from tools.processes import BLOBFLOW, environment

NOBODY = f"127.0.0.1:{reserve_port()}"
COMMANDS = [
    pytest.param(["--version"], 0, id="version"),
    pytest.param(["--help"], 0, id="help"),
    pytest.param(["nonsense"], 2, id="no verb"),
    pytest.param(["copy", "--nonsense"], 2, id="no option"),
    pytest.param(["tags", f"{NOBODY}/app"], 4, id="no network"),
    pytest.param(["copy", f"{NOBODY}/app:1", f"{NOBODY}/app:2", "--log-format", "json"], 4, id="json"),
    pytest.param(["copy", "oci:nowhere:1", f"{NOBODY}/app:2"], 2, id="no layout"),
]
STREAMS = ["", "2>/dev/full", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize(("words", "code"), COMMANDS)
def test_the_exit_code_is_the_same_whatever_becomes_of_what_is_said(
    words: list[str], code: int, streams: str, tmp_path: Path
) -> None:
    script = f'exec "$@" {streams}'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *BLOBFLOW, *words],
        stdout=subprocess.DEVNULL if ">&-" not in streams else None,
        stderr=subprocess.PIPE,
        cwd=TOP,
        env=environment(tmp_path),
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (code, False), done.stderr


def test_a_registry_whose_log_is_on_a_full_disk_answers_as_any(tmp_path: Path) -> None:
    """A line that can't be written must not become the answer to whoever asked just then."""
    host = f"127.0.0.1:{reserve_port()}"
    root = tmp_path / "root"
    with Path("/dev/full").open("wb") as full:
        command = [*BLOBFLOW, "serve", "--listen", host, "--root", str(root), "--access-log", "json"]
        server = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=full, cwd=TOP, env=environment(tmp_path)
        )
    try:
        while server.poll() is None and not takes_connections(host):
            time.sleep(0.01)
        copied = subprocess.run(
            [*BLOBFLOW, "tags", f"{host}/app"],
            capture_output=True,
            text=True,
            cwd=TOP,
            env=environment(tmp_path / "home"),
            check=False,
        )
        assert (copied.returncode, server.poll()) == (5, None), copied.stderr
    finally:
        server.terminate()
        assert server.wait(60) == 0


@pytest.mark.parametrize("streams", [">/dev/full", ">&-"])
@pytest.mark.parametrize("place", ["oci-archive:-", "docker-archive:-"])
def test_an_archive_that_nothing_takes_has_not_arrived(place: str, streams: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image("amd64"), "app:1")
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *BLOBFLOW, "copy", f"oci:{tmp_path}/layout:app:1", place],
        stderr=subprocess.PIPE,
        text=True,
        cwd=TOP,
        env=environment(tmp_path),
        check=False,
    )
    assert (done.returncode, "can't write standard output" in done.stderr) == (8, True), done.stderr


def test_a_closed_stream_is_no_place_for_files(tmp_path: Path) -> None:
    """Else the store's state file would be standard error, and get the lines that are meant for that."""
    words = ["copy", f"{NOBODY}/a:1", f"{NOBODY}/b:1", "--cache-dir", str(tmp_path / "store")]
    subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *BLOBFLOW, *words],
        cwd=TOP,
        env=environment(tmp_path),
        check=False,
    )
    found = list((tmp_path / "store").glob("state.sqlite*"))
    assert found
    assert not any(b"blobflow:" in each.read_bytes() for each in found)
