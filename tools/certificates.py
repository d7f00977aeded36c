"""A certificate for a server on this machine, that nobody but its maker trusts. By openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Pair(NamedTuple):
    """PEM files."""

    cert: Path
    key: Path


def self_signed(folder: Path) -> Pair:
    """A self-signed certificate for 127.0.0.1 and its key, good for two days, in a folder made for them."""
    folder.mkdir(parents=True, exist_ok=True)
    pair = Pair(folder / "cert.pem", folder / "key.pem")
    told = ("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(pair.key), "-out", str(pair.cert))
    subprocess.run(["openssl", "req", "-x509", *_EC, *told, *files], check=True, capture_output=True)
    return pair
