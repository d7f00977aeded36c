"""TLS settings: trusted CAs and client certificates, as files, and one SSL context for each choice.

Certificates given are added to the system's trust, as docker and containers do; verification off is a choice
of its own. A client certificate is shown to a host that asks for one.

Folders in the shape of docker's certs.d have a folder a host, named `host` or `host:port` as in references:
each `*.crt` in it is a CA, each `*.cert` a client certificate with its key in the `.key` of that name.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

from blobflow.errors import InvalidConfig


class ClientCertificate(msgspec.Struct, frozen=True):
    """A client certificate (PEM, with its chain) and its key, which must not be encrypted."""

    cert: Path
    key: Path


class TlsSettings(msgspec.Struct, frozen=True):
    """A choice of TLS. `ca`: PEM files beyond the system's trust. Of several pairs with keys of one kind
    the first is shown."""

    verify: bool = True
    ca: tuple[Path, ...] = ()
    pairs: tuple[ClientCertificate, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything was chosen: False is the system's trust and no certificate of ours."""
        return self != TlsSettings()


def tls_settings_in(folders: Sequence[Path], host: str) -> TlsSettings:
    """What folders in certs.d's shape have for `host[:port]`, all of them together, in their order.

    A folder that we may not look into has nothing. Raises InvalidConfig for a certificate without its key.
    """
    ca: list[Path] = []
    pairs: list[ClientCertificate] = []
    for folder in folders:
        try:
            files = sorted((folder / host).iterdir())
        except OSError:
            continue
        ca += [file for file in files if file.suffix == ".crt"]
        certs = {file for file in files if file.suffix == ".cert"}
        keys = {file for file in files if file.suffix == ".key"}
        for lone in sorted({file.with_suffix(".key") for file in certs} - keys):
            raise InvalidConfig(f"{lone.with_suffix('.cert')} is a client certificate without {lone.name}")
        for lone in sorted({file.with_suffix(".cert") for file in keys} - certs):
            raise InvalidConfig(f"{lone.with_suffix('.key')} is a key without {lone.name}")
        pairs += [ClientCertificate(cert, cert.with_suffix(".key")) for cert in sorted(certs)]
    return TlsSettings(ca=tuple(ca), pairs=tuple(pairs))


@lru_cache(maxsize=64)
def ssl_context_of(trust: TlsSettings) -> ssl.SSLContext | bool:
    """The context of a choice, made once; True for the system's trust (`system_ssl_context`), False for none.

    Raises InvalidConfig naming the file that can't be used.
    """
    if not trust.pairs and (not trust.verify or not trust.ca):
        return trust.verify
    context = _new_system_context()
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for file in trust.ca:
        _add_ca(context, file)
    for pair in reversed(trust.pairs):  # of one kind the last that is loaded counts
        _add_client_certificate(context, pair)
    return context


@lru_cache(maxsize=1)
def system_ssl_context() -> ssl.SSLContext:
    """The system's trust. Made when TLS is first spoken, as its certificates take 30 ms to read; aiohttp's
    own is made whenever aiohttp is imported, and without certificates where `blobflow.cli` imported it."""
    return _new_system_context()


def _new_system_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _add_ca(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        raise InvalidConfig(f"{file} has no CA certificate in PEM form") from None
    except OSError as error:
        raise InvalidConfig(f"can't read the CA certificate {file}: {error.strerror}") from None


def _add_client_certificate(context: ssl.SSLContext, pair: ClientCertificate) -> None:
    for file in (pair.cert, pair.key):
        try:
            with file.open("rb"):
                pass
        except OSError as error:
            kind = "client certificate" if file == pair.cert else "key"
            raise InvalidConfig(f"can't read the {kind} {file}: {error.strerror}") from None
    try:
        # Without a password of ours OpenSSL would ask for one on the terminal.
        context.load_cert_chain(pair.cert, pair.key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidConfig(f"{pair.key} is not the key of the client certificate {pair.cert}") from None
        raise InvalidConfig(
            f"{pair.cert} and {pair.key} are no client certificate and unencrypted key in PEM form"
        ) from None
