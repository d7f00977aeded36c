"""`blobflow serve`: whom it lets in, what it refuses to do, and that its options reach the registry."""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest
from click.testing import CliRunner

from blobflow.cli import door

ANN = {"Authorization": "Basic " + base64.b64encode(b"ann:s3cret").decode()}


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_bytes(b"ann:" + bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)) + b"\n")
    return path


@contextmanager
def served(root: Path, *options: str) -> Iterator[str]:
    """The URL of a registry that is a process of its own, ended by SIGTERM; its log is beside its root."""
    command = [sys.executable, "-m", "blobflow", "serve", "--listen", "127.0.0.1:0", "--root", str(root)]
    with (
        root.with_suffix(".log").open("w") as log,
        subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[3].rstrip(",")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def status(url: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes = b"") -> int:
    request = urllib.request.Request(url, method=method, headers=headers or {}, data=body or None)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_the_options_reach_the_registry(htpasswd: Path, tmp_path: Path) -> None:
    root = tmp_path / "r"
    with served(root, "--htpasswd", str(htpasswd), "--max-blob-size", "10B", "-v") as url:
        assert status(f"{url}/v2/") == 401
        assert status(f"{url}/v2/", headers=ANN) == 200
        where = f"{url}/v2/app/blobs/uploads/?digest=sha256:" + "0" * 64
        assert status(where, "POST", ANN, b"12345678901") == 413
    log = root.with_suffix(".log").read_text()
    assert "/v2/ 401" in log
    assert "s3cret" not in log
    assert ANN["Authorization"].partition(" ")[2] not in log
    with served(root, "--read-only") as url:
        assert status(f"{url}/v2/") == 200
        assert status(f"{url}/v2/app/blobs/uploads/", "POST") == 405


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(door, ["serve", *arguments])
    assert done.exit_code == 2, done.output
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0"])
def test_it_stays_on_loopback_unless_logins_or_the_lack_of_them_are_chosen(
    listen: str, tmp_path: Path
) -> None:
    line = refused("--listen", listen, "--root", str(tmp_path / "r"))
    assert line.startswith(f"blobflow: on {listen} anyone who reaches this machine could change the registry")
    assert "--htpasswd FILE" in line
    assert "--anonymous" in line
    assert not (tmp_path / "r").exists()


def test_what_can_not_be_meant_is_said_before_anything_is_made(htpasswd: Path, tmp_path: Path) -> None:
    root = tmp_path / "r"
    md5 = tmp_path / "md5"
    md5.write_text("ann:$apr1$abcdefgh$0123456789012345678901\n")
    for options, said in (
        (("--tls-key", str(htpasswd)), "--tls-key goes with --tls-cert"),
        (("--tls-cert", str(htpasswd)), f"{htpasswd} is no certificate (PEM)"),
        (("--tls-cert", str(tmp_path / "none")), f"can't read {tmp_path}/none: No such file"),
        (("--htpasswd", str(tmp_path / "none")), f"can't read {tmp_path}/none: No such file"),
        (("--htpasswd", str(md5)), f"{md5} line 1 has no bcrypt hash"),
    ):
        line = refused("--root", str(root), "--listen", "127.0.0.1:0", *options)
        assert said in line
        assert "$apr1$" not in line
    assert not root.exists()
