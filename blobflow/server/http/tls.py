"""A server's TLS certificate, which can be reloaded while it serves."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

from blobflow.errors import InvalidConfig


class Certificate:
    """The certificate of a server, which can be read again while it serves.

    `context` is for `Server`. Handshakes after a `reread` get the new chain; connections go on as they are.
    """

    def __init__(self, certificate: Path, key: Path | None = None) -> None:
        """Raises InvalidConfig as `tls_context` does."""
        self._files = (certificate, key)
        self.path = certificate
        self.context = self._newest = tls_context(certificate, key)
        # OpenSSL calls it in every handshake, also of clients that name no server.
        self.context.sni_callback = self._take_newest

    def reread(self) -> None:
        """Raises InvalidConfig; then the old certificate stays. Reads files: not for the loop's thread."""
        self._newest = tls_context(*self._files)

    def _take_newest(
        self, connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext
    ) -> None:
        if self._newest is not context:
            connection.context = self._newest


def tls_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """TLS as the server of `certificate` (PEM, with its chain); its key is in the same file unless named.

    Raises InvalidConfig with a sentence that names the file.
    """
    for path in filter(None, (certificate, key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise InvalidConfig(f"can't read {path}: {error.strerror or error}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with suppress(NotImplementedError):
        context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError):
        raise InvalidConfig(
            f"{certificate} is no certificate (PEM) with the key of {key or certificate}; the key may not be "
            "encrypted"
        ) from None
    return context


def _no_password() -> str:
    """For an encrypted key, so that OpenSSL asks for no password at the terminal."""
    return ""
