"""What is wrong with the TLS of a host, found out once it has failed: a handshake of its own, without trust.

Python's ssl tells why a certificate is not trusted, and nothing of what it says; so it is fetched once more,
and read with itself as the only authority. Nothing else is sent over these connections.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Any

import msgspec
from yarl import URL

from blobflow.printable import first_of, one_line

# Seconds for each handshake: an error has happened already, and waits to be told.
_SECONDS = 5.0
# X509_V_FLAG_NO_CHECK_TIME: what expired can be read, too. Python has no name for it.
_NO_CHECK_TIME = 0x200000
_SHOWN = 5


class PeerCertificate(msgspec.Struct, frozen=True):
    """What a peer's certificate says. Times in seconds since the epoch; texts harmless and short."""

    names: tuple[str, ...] = ()
    issuer: str = ""
    begins: float = 0
    ends: float = 0


async def speaks_tls(origin: URL) -> bool:
    """Whether a TLS handshake with the host succeeds, whatever its certificate."""
    return await _fetch_certificate(origin, _untrusting()) is not None


async def read_certificate(origin: URL) -> PeerCertificate | None:
    """The certificate that a host shows; None where it can't be had or read."""
    raw = await _fetch_certificate(origin, _untrusting())
    if not raw:
        return None
    alone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    alone.check_hostname = False
    alone.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    try:
        alone.load_verify_locations(cadata=raw)
    except ssl.SSLError:
        return None
    said: dict[str, Any] = {}
    await _fetch_certificate(origin, alone, said)
    return _certificate(said) if said else None


def _untrusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _fetch_certificate(
    origin: URL, context: ssl.SSLContext, said: dict[str, Any] | None = None
) -> bytes | None:
    """The certificate of a handshake, in DER; into `said` what Python reads in it. None: there was none."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(
                origin.host, origin.port, ssl=context, server_hostname=origin.host
            )
        try:
            peer = writer.get_extra_info("ssl_object")
            if said is not None:
                said.update(peer.getpeercert() or {})
            return bytes(peer.getpeercert(binary_form=True) or b"")
        finally:
            writer.transport.abort()
    return None


def _certificate(said: dict[str, Any]) -> PeerCertificate:
    names = [one_line(str(value), 80) for _, value in said.get("subjectAltName", ())]
    return PeerCertificate(
        tuple(names or filter(None, [_common_name(said.get("subject", ()))])),
        _common_name(said.get("issuer", ())),
        ssl.cert_time_to_seconds(said["notBefore"]),
        ssl.cert_time_to_seconds(said["notAfter"]),
    )


def _common_name(parts: tuple[tuple[tuple[str, str], ...], ...]) -> str:
    """What a certificate calls somebody: the common name, or else all that there is."""
    pairs = [pair for part in parts for pair in part]
    found = [value for key, value in pairs if key == "commonName"] or [value for _, value in pairs]
    return one_line(", ".join(found), 120)


def names_text(names: tuple[str, ...]) -> str:
    """The first few of the names, for a sentence."""
    return first_of(names, _SHOWN)
