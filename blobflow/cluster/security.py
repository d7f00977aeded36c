"""TLS between coordinator, scheduler and workers: each shows a certificate that the same authority signed."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

import dask
from distributed import Security

from blobflow.cluster.address import Engine
from blobflow.errors import InvalidConfig

# What OpenSSL says of a certificate whose time it is not, and what we say.
TIME_FLAWS = {"certificate has expired": "has expired", "certificate is not yet valid": "is not valid yet"}


def security_of(engine: Engine) -> Security:
    """The certificates for all roles. Those of Dask's own configuration where the engine names none. Raises
    InvalidConfig for files that can't be used."""
    if engine.ca is None or engine.cert is None or engine.key is None:
        if engine.address.startswith("tls://") and not dask.config.get("distributed.comm.tls.ca-file", None):
            raise InvalidConfig(
                f"{engine.address} needs certificates: give --engine-ca, --engine-cert and --engine-key"
            )
        return Security()
    _check(engine.ca, engine.cert, engine.key)
    ca, cert, key = str(engine.ca), str(engine.cert), str(engine.key)
    return Security(
        require_encryption=True,
        tls_ca_file=ca,
        tls_client_cert=cert,
        tls_client_key=key,
        tls_scheduler_cert=cert,
        tls_scheduler_key=key,
        tls_worker_cert=cert,
        tls_worker_key=key,
    )


def time_flaw(engine: Engine) -> str:
    """What is wrong with the time of the engine's own certificate, as a value of TIME_FLAWS; "": nothing, or
    that can't be told. Peers refuse it without a word, as often as not."""
    if engine.ca is None or engine.cert is None:
        return ""
    try:
        _shake_hands(engine.ca, engine.cert, engine.key)
    except (OSError, ssl.SSLError) as error:
        return next((flaw for sign, flaw in TIME_FLAWS.items() if sign in str(error)), "")
    return ""


def _shake_hands(ca: Path, cert: Path, key: Path | None) -> None:
    """Show the certificate to somebody in this process who trusts the authority. Raises OSError."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(cert, key, password=lambda: b"")
    client.load_verify_locations(ca)
    client.check_hostname = False
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True))
    for side in sides * 2:
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()


def _check(ca: Path, cert: Path, key: Path) -> None:
    """Raise InvalidConfig for files that hold no authority, or no certificate with its key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfig(f"--engine-ca {ca} can't be used: {_reason(error)}") from None
    try:
        context.load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfig(
            f"--engine-cert {cert} and --engine-key {key} can't be used: {_reason(error)}"
        ) from None


def _reason(error: OSError) -> str:
    return error.strerror or getattr(error, "reason", "") or str(error)
