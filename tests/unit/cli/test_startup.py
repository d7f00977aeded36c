"""What a command's start leaves out, whichever of its modules is needed first."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.deadlines import HANGS_AFTER
from tools.checkout import TOP

# Runs the command, and tells for each reading of the system's certificates which file it was to be; in the
# end whether aiohttp was imported at all, and what the environment says by then.
SCRIPT = """
import os, ssl, sys
from blobflow.cli import main
usual = ssl.SSLContext.set_default_verify_paths
def read(self):
    print("READ", os.environ["SSL_CERT_FILE"], file=sys.stderr)
    usual(self)
ssl.SSLContext.set_default_verify_paths = read
try:
    main()
finally:
    said = os.environ["SSL_CERT_FILE"], "SSL_CERT_DIR" in os.environ
    print("END", "aiohttp" in sys.modules, *said, file=sys.stderr)
"""
NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize(
    "words",
    [
        ("copy", f"{NOBODY}/app:1", f"{NOBODY}/there:1"),
        ("sync", "--from", NOBODY, "--to", f"{NOBODY}/m", "--images", "-"),
        ("sync", "-", "--to", f"{NOBODY}/m"),
        ("plan", "--from", NOBODY, "--to", f"{NOBODY}/m", "--images", "-"),
        ("inspect", f"{NOBODY}/app:1"),
        ("digest", f"{NOBODY}/app:1"),
        ("tags", f"{NOBODY}/app"),
        ("ls", f"{NOBODY}/app"),
        ("rm", f"{NOBODY}/app:1"),
        ("push", f"{NOBODY}/app:1", "README.md"),
        ("pull", f"{NOBODY}/app:1", "-o", "nowhere"),
        ("probe", f"{NOBODY}/app"),
    ],
    ids=" ".join,
)
def test_the_system_s_certificates_are_not_read_while_modules_are_imported(words: tuple[str, ...]) -> None:
    variables = {"SSL_CERT_FILE": "of-the-user", "XDG_CACHE_HOME": os.devnull, "XDG_CONFIG_HOME": os.devnull}
    environment = {name: text for name, text in os.environ.items() if name != "SSL_CERT_DIR"} | variables
    command = [sys.executable, "-c", SCRIPT, *words]
    spec = "images:\n- 127.0.0.1:1/app:1\n" if "-" in words[1:2] else "app:1\n"
    done = subprocess.run(
        command, input=spec, capture_output=True, text=True, timeout=HANGS_AFTER, cwd=TOP, env=environment
    )
    told = [line.split() for line in done.stderr.splitlines() if line.startswith(("READ ", "END "))]
    assert told[-1] == ["END", "True", "of-the-user", "False"], done.stderr
    assert {tuple(each) for each in told[:-1]} == {("READ", os.devnull)}
