"""Translates aiohttp's and the system's exceptions into the error tree. Pure.

Messages are written here and not copied: a foreign one may hold a URL with a signed query.
"""

from __future__ import annotations

import os
import ssl
import time

import aiohttp

from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    ConnectionLost,
    ProtocolViolation,
    ProxyRefused,
    TimedOut,
    UntrustedPeer,
)
from blobflow.printable import one_line
from blobflow.transports.registry.http.minimum_rate import MINIMUM_BYTES, TooSlow
from blobflow.transports.registry.http.tls_diagnosis import PeerCertificate, names_text

# What peers answer to a client certificate that is missing, unknown or ended.
_CLIENT_CERTIFICATE = frozenset(
    {
        "TLSV13_ALERT_CERTIFICATE_REQUIRED",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "TLSV1_ALERT_UNKNOWN_CA",
    }
)

# What OpenSSL calls an answer that is no TLS.
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})
# OpenSSL's codes (X509_V_ERR_…) for what is wrong with a certificate.
_NOT_YET, _EXPIRED, _SELF_SIGNED = 9, 10, 18
_UNKNOWN_AUTHORITY = frozenset({2, _SELF_SIGNED, 19, 20, 21, 24, 27})
_OTHER_NAME = frozenset({62, 64})


def translate_error(
    error: Exception,
    host: str,
    description: str,
    *,
    received: int = 0,
    expected: int | None = None,
    late: bool = False,
    certificate: PeerCertificate | None = None,
    proxy: str = "",
) -> BlobflowError:
    """The error that `error`, raised while `host` was asked for `description`, means.

    `received` of `expected` bytes of a body had come (None: unknown). `late`: the response had begun, but its
    head did not end. `certificate`: the peer's, as far as it was found out. `proxy`: who was to pass it on.
    """
    if (
        failure := _connect_error(error, host, certificate, proxy)
        or _timeout_error(error, host, description, late=late)
    ) is not None:
        return failure
    match error:
        case aiohttp.InvalidURL():
            return ProtocolViolation(f"{host} answered {description} with an unusable address")
        case aiohttp.ClientResponseError():
            return ProtocolViolation(f"{host} answered {description} with something that is not HTTP")
    progress = f" after {received} of {expected} bytes" if expected is not None else ""
    return ConnectionLost(
        f"connection to {host} lost{progress} ({description})", received=received, expected=expected
    )


def _connect_error(
    error: Exception, host: str, certificate: PeerCertificate | None, proxy: str
) -> BlobflowError | None:
    """What kept us from a connection, or a TLS session, with the host or its proxy."""
    match error:
        case aiohttp.ConnectionTimeoutError() if proxy:
            return ConnectFailed(
                f"can't connect to {host}: no answer from the proxy {proxy}, or through it; check the proxy"
            )
        case aiohttp.ClientConnectorDNSError() if proxy:  # a proxy looks the host's name up itself
            reason = _reason(error.os_error)
            return ConnectFailed(f"can't reach the proxy {proxy} of {host}: {reason}; check the proxy's name")
        case aiohttp.ConnectionTimeoutError():
            return ConnectFailed(f"can't connect to {host}: no answer; check the host and the network")
        case aiohttp.ClientConnectorCertificateError():
            fault = _certificate_fault(error.certificate_error, host, error.host, certificate)
            return UntrustedPeer(f"{host} shows a certificate that is not trusted: {fault}")
        case aiohttp.ClientOSError() if _alert_of(error) in _CLIENT_CERTIFICATE:
            return UntrustedPeer(
                f"{host} wants a client certificate that it trusts ({_alert_of(error)});"
                " give one with --cert and --key"
            )
        case aiohttp.ClientConnectorSSLError() if _ssl_code(error.os_error) in _NO_TLS:
            return UntrustedPeer(
                f"{host} does not speak TLS, but most likely plain HTTP; if that is meant, say so with"
                f" --plain-http {host}, or write http://{host}"
            )
        case aiohttp.ClientConnectorSSLError():
            return UntrustedPeer(
                f"{host} does not speak TLS with us ({_ssl_reason(error.os_error)});"
                " if it speaks plain HTTP, say so with --plain-http"
            )
        case aiohttp.ClientProxyConnectionError():
            there = proxy or error.host
            return ConnectFailed(f"can't reach the proxy {there} of {host}: {_reason(error.os_error)}")
        case aiohttp.ClientConnectorDNSError():
            return ConnectFailed(f"can't connect to {host}: {_reason(error.os_error)}; check the host's name")
        case aiohttp.ClientConnectorError():
            return ConnectFailed(f"can't connect to {host}: {_reason(error.os_error)}")
        case aiohttp.ClientHttpProxyError() if error.status == 407:
            return ProxyRefused(
                f"can't connect to {host}: the proxy wants a login (407); give it in the proxy's URL"
            )
        case aiohttp.ClientHttpProxyError():
            kind = ProxyRefused if error.status < 500 else ConnectFailed
            return kind(f"can't connect to {host}: the proxy answered {error.status}")
    return None


def _timeout_error(error: Exception, host: str, description: str, *, late: bool) -> TimedOut | None:
    """Who was too slow once there was a connection."""
    match error:
        case TooSlow():
            return TimedOut(
                f"{host} sends too slowly: {error.brought} bytes of {description} in"
                f" {error.waited:.0f} seconds; at least {MINIMUM_BYTES} are waited for"
            )
        case TimeoutError() if late:
            return TimedOut(f"{host} sends too slowly: the head of its answer does not end ({description})")
        case TimeoutError():
            return TimedOut(f"{host} sent nothing for too long ({description})")
    return None


def _reason(error: OSError) -> str:
    """An OS error in words: several addresses were tried, and asyncio joins their messages."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return one_line(error.strerror or str(error) or type(error).__name__, 160)


def _alert_of(error: aiohttp.ClientOSError) -> str:
    """OpenSSL's name for the TLS alert with which the peer ended the connection, "" if it did not.

    With TLS 1.3 it ends it only after the handshake, and so under a request.
    """
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error.__cause__
    return getattr(cause, "reason", None) or ""


def _certificate_fault(error: Exception, host: str, name: str, certificate: PeerCertificate | None) -> str:
    """What is wrong with the certificate of `host`, whose `name` has no port, and what can be done."""
    code = getattr(error, "verify_code", 0)
    said = certificate or PeerCertificate()
    anyway = "accept any certificate with --tls-verify=false"
    if code == _EXPIRED and said.ends:
        return f"it expired on {_date(said.ends)}; have it renewed, or {anyway}"
    if code == _NOT_YET and said.begins:
        return f"it is valid from {_date(said.begins)} on; check this machine's clock, or {anyway}"
    if code in _OTHER_NAME and said.names:
        return f"it is for {names_text(said.names)}, and not for {name}; use such a name, or {anyway}"
    if code in _UNKNOWN_AUTHORITY:
        whom = f" ({said.issuer})" if said.issuer else ""
        who = "it is signed by itself" if code == _SELF_SIGNED else f"who signed it{whom} is not known here"
        return f"{who}; to trust it name its CA with --ca FILE, or keep that as certs.d/{host}/ca.crt"
    return f"{_ssl_reason(error)}; add its CA with --ca FILE, or {anyway}"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _ssl_code(error: Exception) -> str:
    return getattr(error, "reason", None) or ""


def _ssl_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return one_line(error.verify_message, 160)
    return one_line(getattr(error, "reason", "") or "handshake failed", 160)
