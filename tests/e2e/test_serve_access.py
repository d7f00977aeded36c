"""`blobflow serve` as a process: logins, access rules and certificates that change, and many wrong logins."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import bcrypt
import pytest

from blobflow.oci import digest_of
from tests.deadlines import HANGS_AFTER
from tools import imageset
from tools.certificates import self_signed
from tools.checkout import TOP
from tools.processes import BLOBFLOW, Process, Registry, environment, skopeo, start_warm


def login(user: str, password: str = "s3cret") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def line(user: str, password: str = "s3cret", cost: int = 4) -> str:
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()}\n"


class Served:
    def __init__(self, folder: Path, process: Process, url: str) -> None:
        self.host = url.partition("://")[2]
        self.process = process
        self._errors = folder / "err"
        self.registry = Registry(self.host, folder, self._errors, process)

    def status(self, path: str = "/v2/", headers: dict[str, str] | None = None) -> int:
        return self.registry.ask("GET", path, headers)[0]

    @property
    def said(self) -> list[str]:
        return self._errors.read_text().splitlines()

    def hang_up(self) -> None:
        """Send SIGHUP, and wait until what it asks for was done."""
        before = len(self.said)
        self.process.send_signal(signal.SIGHUP)
        until(lambda: len(self.said) > before)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANGS_AFTER
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@contextmanager
def served(folder: Path, *options: str | Path) -> Iterator[Served]:
    """`blobflow serve` on a port of its own, that ends well."""
    words = ["serve", "--listen", "127.0.0.1:0", "--root", str(folder / "root"), *map(str, options)]
    command, kept = [*BLOBFLOW, *words], environment(folder)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as out, (folder / "err").open("wb") as err:
        with os.fdopen(writing, "wb") as to:
            warm = start_warm(command, kept, to, err)
            process: Process = warm or subprocess.Popen(command, stdout=to, stderr=err, cwd=TOP, env=kept)
        try:
            yield Served(folder, process, out.readline().decode().split()[3].rstrip(","))
            process.terminate()
            assert process.wait(HANGS_AFTER) == 0
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(line("ann") + line("joe"))
    return path


# Files that change


def test_a_removed_user_is_out_without_a_restart_and_a_new_one_in(tmp_path: Path, htpasswd: Path) -> None:
    with served(tmp_path, "--htpasswd", htpasswd) as registry:
        assert registry.status(headers=login("joe")) == 200
        assert registry.status(headers=login("ann")) == 200
        htpasswd.write_text(line("ann", "n3w") + line("eve"))
        until(lambda: registry.status(headers=login("joe")) == 401)
        assert registry.status(headers=login("eve")) == 200
        assert registry.status(headers=login("ann", "n3w")) == 200
        assert registry.status(headers=login("ann")) == 401


def test_logins_that_make_no_sense_change_nothing_and_are_told_once(tmp_path: Path, htpasswd: Path) -> None:
    with served(tmp_path, "--htpasswd", htpasswd) as registry:
        htpasswd.write_text(line("eve") + "joe:secret\n")
        until(lambda: registry.said != [])
        assert registry.status(headers=login("joe")) == 200
        assert registry.status(headers=login("eve")) == 401
        assert registry.status() == 401
        htpasswd.unlink()
        until(lambda: len(registry.said) > 1)
        assert registry.status(headers=login("joe")) == 200
        told = registry.said
    assert told == [
        f"blobflow: {htpasswd} line 2 has no bcrypt hash (of a cost up to 17); make it with `htpasswd -B`; "
        "going on with the logins as before",
        f"blobflow: can't read {htpasswd}: No such file or directory; going on with the logins as before",
    ]


def test_access_rules_hold_and_change_without_a_restart(tmp_path: Path, htpasswd: Path) -> None:
    rules = tmp_path / "access.toml"
    rules.write_text('[[allow]]\nwho = ["joe", "kim"]\nrepositories = "team/*"\ndo = ["pull", "push"]\n')
    content = b"hello"
    push = f"/v2/team/app/blobs/uploads/?digest={digest_of(content)}"
    blob = f"/v2/team/app/blobs/{digest_of(content)}"
    with served(tmp_path, "--htpasswd", htpasswd, "--access", rules) as registry:
        assert registry.said == [f"blobflow: warning: {rules} has rules for logins that there are not: kim"]
        assert registry.registry.ask("POST", push, login("joe"), content)[0] == 201
        assert registry.status(blob, login("joe")) == 200
        assert registry.status(blob, login("ann")) == 403
        assert registry.status(blob) == 401
        rules.write_text('[[allow]]\nwho = "anonymous"\nrepositories = "team/*"\ndo = "pull"\n')
        until(lambda: registry.status(blob) == 200)
        assert registry.status(blob, login("ann")) == 200
        assert registry.registry.ask("POST", push, login("joe"), content)[0] == 403
        rules.write_text('[[allow]]\nwho = "anonymous"\nrepositories = "**"\nmay = "push"\n')
        registry.hang_up()
        until(lambda: any("rule 1: unknown key 'may'" in each for each in registry.said))
        assert registry.registry.ask("POST", push, None, content)[0] == 401
        assert registry.status(blob) == 200


def test_a_certificate_is_read_again_on_sighup_and_connections_go_on(tmp_path: Path, htpasswd: Path) -> None:
    first, second = self_signed(tmp_path / "a"), self_signed(tmp_path / "b")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def install(cert_from: Path, key_from: Path) -> None:
        shutil.copy(cert_from, cert)
        shutil.copy(key_from, key)

    def shown(name: str | None = None) -> str:
        """The certificate of a new handshake, with and without the server's name in it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        host, _, port = registry.host.partition(":")
        with (
            socket.create_connection((host, int(port)), timeout=HANGS_AFTER) as line,
            context.wrap_socket(line, server_hostname=name) as secure,
        ):
            found = secure.getpeercert(binary_form=True)
        assert found is not None
        return ssl.DER_cert_to_PEM_cert(found)

    install(*first)
    with served(tmp_path, "--htpasswd", htpasswd, "--tls-cert", cert, "--tls-key", key) as registry:
        old = http.client.HTTPSConnection(
            registry.host, timeout=HANGS_AFTER, context=ssl.create_default_context(cafile=first.cert)
        )
        for number in range(2):
            old.request("GET", "/v2/", headers=login("ann", f"{number}"))
            answer = old.getresponse()
            assert (answer.status, answer.read()[:10]) == (401, b'{"errors":')
        old.request("GET", "/v2/", headers=login("ann"))
        assert old.getresponse().read() == b"{}"
        install(second.cert, first.key)
        registry.hang_up()
        until(lambda: len(registry.said) == 2)
        assert registry.said[0] == f"blobflow: {htpasswd} has not changed"
        assert "is no certificate (PEM) with the key of" in registry.said[1]
        assert registry.said[1].endswith("going on with the certificate as before")
        assert shown() == first.cert.read_text()
        install(*second)
        registry.hang_up()
        until(lambda: len(registry.said) == 4)
        assert registry.said[3] == f"blobflow: {cert} was read again"
        assert shown() == shown("registry.example.com") == second.cert.read_text()
        old.request("GET", "/v2/", headers=login("ann"))
        assert old.getresponse().read() == b"{}"
        old.close()


# SIGHUP


def test_sighup_ends_neither_the_process_nor_an_upload(tmp_path: Path) -> None:
    content = b"x" * 100_000
    with served(tmp_path) as registry:
        upload = http.client.HTTPConnection(registry.host, timeout=HANGS_AFTER)
        upload.putrequest("POST", f"/v2/app/blobs/uploads/?digest={digest_of(content)}")
        upload.putheader("Content-Length", str(len(content)))
        upload.endheaders(content[:1000])
        for _ in range(3):
            registry.hang_up()
        upload.send(content[1000:])
        assert upload.getresponse().status == 201
        upload.close()
        assert set(registry.said) == {"blobflow: there is nothing to read again"}


def test_sighup_before_it_serves_ends_nothing(tmp_path: Path, htpasswd: Path) -> None:
    """Its logins come through a pipe, so that it waits for them when the signal comes."""
    code = (
        "import os, signal, sys\n"
        "import blobflow.cli.runtime.reload as reloading\n"
        "read = reloading.read_text\n"
        "def slowly(path):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    return read(path)\n"
        "reloading.read_text = slowly\n"
        "from blobflow.cli import main\n"
        "main()\n"
    )
    options = ("--listen", "127.0.0.1:0", "--root", str(tmp_path / "root"), "--htpasswd", str(htpasswd))
    with subprocess.Popen(
        [sys.executable, "-c", code, "serve", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=TOP,
        env=environment(tmp_path),
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("blobflow registry at http://127.0.0.1:")
        assert process.stderr is not None
        assert process.stderr.readline() == f"blobflow: {htpasswd} has not changed\n"
        process.terminate()
        assert process.wait(HANGS_AFTER) == 0


# Many wrong logins


def test_wrong_logins_on_a_hundred_connections_keep_nobody_out(tmp_path: Path) -> None:
    """Half of them guess at one user's password, half make up names, at a cost at which a core checks some
    eighty a second; and the right logins come from the same address, once each guesser was refused: whoever
    guesses at a password over ever new connections from there may keep its user out."""
    htpasswd = tmp_path / "htpasswd"
    hashed = line("", cost=8)
    htpasswd.write_text("".join(f"u{number}{hashed}" for number in range(20)))
    ended = Event()
    refused: list[int] = []
    guessed: set[int] = set()

    def guess(number: int) -> None:
        connection = http.client.HTTPConnection(registry.host, timeout=HANGS_AFTER)
        at = 0
        while not ended.is_set():
            at += 1
            user = "u0" if number % 2 else f"x{number}-{at}"
            connection.request("GET", "/v2/", headers=login(user, f"{number}-{at}"))
            answer = connection.getresponse()
            answer.read()
            refused.append(answer.status)
            guessed.add(number)
        connection.close()

    with served(tmp_path, "--htpasswd", htpasswd) as registry:
        threads = [Thread(target=guess, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(guessed) == len(threads))
            assert [registry.status(headers=login(f"u{number}")) for number in range(20)] == [200] * 20
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    assert set(refused) == {401, 429}


# Clients


def test_skopeo_pulls_without_a_login_what_anybody_may_and_pushes_with_one(
    small_set: imageset.Layout, programs: None, tmp_path: Path, htpasswd: Path, home: Path
) -> None:
    """With `ask_for_login` skopeo sends its login; without, it comes without one."""
    rules = tmp_path / "access.toml"
    allow = (
        '[[allow]]\nwho = "*"\nrepositories = "**"\ndo = ["pull", "push"]\n'
        '[[allow]]\nwho = "anonymous"\nrepositories = "public/*"\ndo = "pull"\n'
    )
    rules.write_text("ask_for_login = true\n" + allow)
    name = next(iter(small_set.images))
    image = f"oci:{small_set.path}:{name}"
    with served(tmp_path, "--htpasswd", htpasswd, "--access", rules) as registry:
        there = f"docker://{registry.host}/public/app:1"
        plain = ("--dest-tls-verify=false", "--dest-creds", "ann:s3cret")
        pushed = skopeo("copy", "--all", *plain, image, there, home=home)
        assert pushed.code == 0, pushed.err
        rules.write_text(allow)
        registry.hang_up()
        pulled = skopeo(
            "copy", "--all", "--src-tls-verify=false", there, f"oci:{tmp_path / 'out'}:1", home=home
        )
        assert pulled.code == 0, pulled.err
        denied = skopeo("copy", "--all", "--dest-tls-verify=false", image, f"{there}2", home=home)
        assert denied.code != 0
