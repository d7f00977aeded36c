"""Parses the address that a process listens on. Pure."""

from __future__ import annotations

from blobflow.errors import UsageError


def parse_listen_address(text: str) -> tuple[str, int]:
    """Read `HOST:PORT`; IPv6 in brackets, no host is every address. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"--listen {text!r}: write HOST:PORT, as 127.0.0.1:5000 or [::1]:5000")
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare and bare == host:
        raise UsageError(f"--listen {text!r}: write an IPv6 address in brackets, as [::1]:5000")
    return bare or "0.0.0.0", int(port)
