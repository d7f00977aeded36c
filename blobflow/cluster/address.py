"""What names an engine: `dask://HOST:PORT`, `tls://HOST:PORT`, `local:N`. Light: it is read before anything
of Dask is imported."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from blobflow.errors import UsageError
from blobflow.oci.reference import check_host
from blobflow.printable import printable

# The port of Dask's schedulers.
DEFAULT_PORT = 8786
# Processes on one machine; more are a mistake in the number.
MAX_LOCAL = 256

_PLAIN = ("dask://", "tcp://")
_TLS = "tls://"


class Engine(msgspec.Struct, frozen=True):
    """Who carries the blobs of a run: workers of the scheduler at `address` (`tcp://HOST:PORT` or
    `tls://HOST:PORT`), or so many `local` processes of this machine. `ca`, `cert` and `key`: the files, in
    PEM form, with which both sides of a tls:// connection prove themselves."""

    address: str = ""
    local: int = 0
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __str__(self) -> str:
        return f"local:{self.local}" if self.local else self.address


def parse_engine(
    text: str, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> Engine:
    """The engine that a text names. A scheduler's port is 8786 unless it is said; with certificates it is
    spoken to by TLS. Raises UsageError."""
    if is_local(text):
        if ca or cert or key:
            raise UsageError("local workers make certificates of their own; leave out those of the engine")
        return Engine(local=_local_count(text))
    return parse_scheduler(text, ca=ca, cert=cert, key=key)


def is_local(text: str) -> bool:
    """Whether an engine is processes of this machine."""
    return text == "local" or text.startswith("local:")


def parse_scheduler(
    text: str, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> Engine:
    """The scheduler that a text names, as `parse_engine`."""
    if is_local(text):
        raise UsageError(f"{printable(text)} is no scheduler, which is dask://HOST:PORT or tls://HOST:PORT")
    if "@" in text:
        raise UsageError("an engine takes no login in its address; who may use it is told by certificates")
    shown = printable(text)
    scheme = next((each for each in (*_PLAIN, _TLS) if text.startswith(each)), "")
    if not scheme and "://" in text:
        raise UsageError(f"{shown}: an engine is dask://HOST:PORT, tls://HOST:PORT or local:N")
    try:
        host = check_host(text.removeprefix(scheme).rstrip("/"))
    except UsageError:
        raise UsageError(f"{shown}: an engine is dask://HOST:PORT, tls://HOST:PORT or local:N") from None
    named_files = bool(ca or cert or key)
    if named_files and not (ca and cert and key):
        raise UsageError("an engine's certificates go together: --engine-ca, --engine-cert and --engine-key")
    encrypted = scheme == _TLS or named_files
    where = host if has_port(host) else f"{host}:{DEFAULT_PORT}"
    return Engine(f"{_TLS if encrypted else 'tcp://'}{where}", ca=ca, cert=cert, key=key)


def has_port(host: str) -> bool:
    """Whether `HOST[:PORT]` has a port."""
    return ":" in host.rpartition("]")[2]


def _local_count(text: str) -> int:
    number = text.removeprefix("local").removeprefix(":")
    if not number:
        return os.cpu_count() or 1
    if not (number.isascii() and number.isdigit()) or not 1 <= int(number[:6]) <= MAX_LOCAL:
        raise UsageError(f"{printable(text)}: say how many processes, from local:1 to local:{MAX_LOCAL}")
    return int(number)
