"""Classifies the errors of a push for the push (`classify`), and explains them to people (`explain`).
Pure."""

from __future__ import annotations

import asyncio

import msgspec

from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    ConnectionLost,
    IntegrityError,
    NetworkError,
    NotFound,
    RegistryError,
    Rejected,
    StorageError,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from blobflow.transports.registry.capabilities.profiles import UploadMethod
from blobflow.transports.registry.http.dispatch import RequestRedirected
from blobflow.transports.registry.uploads.methods import is_one_request
from blobflow.transports.registry.uploads.state import Event

# Statuses by which a registry says that it does not take a body in this form: 400 and 404 are Artifactory's
# and Docker Hub's for single PUTs, 413 ACR's, 416 GHCR's and ECR's for ranges.
_METHOD_REFUSED = frozenset({400, 404, 405, 411, 413, 415, 416, 501})
# Of these, the ones that have never been about a size.
_AT_ANY_SIZE = frozenset({404, 405, 411, 415, 501})
# Codes that speak of the name or of the session, so another form would fare no better, or no form was
# refused.
_NOT_THE_METHOD = frozenset({"NAME_UNKNOWN", "NAME_INVALID", "DENIED", "UNAUTHORIZED", "TOOMANYREQUESTS"})
_STALE_SESSION = frozenset({"BLOB_UPLOAD_UNKNOWN"})
# What a proxy answers where the way behind it ended, or took too long: caddy so ends a body beyond its limit,
# and any that takes in a body whole before it passes it on, where the registry needs longer for that than it
# waits.
_GATEWAY = frozenset({502, 504})


class Attempt(msgspec.Struct, frozen=True):
    """What a failed try of a push was, as far as that tells what its error means.

    `offset`: bytes that the registry had confirmed. `reused`: the session was not opened by this try.
    `disputed`: the registry had disagreed on the offset before. `proven`: the method has worked at this host.
    `last`: no other method is left. `misreadable`: the session's Location has another meaning that was not
    tried. `shrinkable`: the request may have ended for its size, and a smaller one is left to try.
    `by_source`: the error is the body's.
    """

    method: UploadMethod
    offset: int = 0
    reused: bool = False
    disputed: bool = False
    proven: bool = False
    last: bool = False
    misreadable: bool = False
    shrinkable: bool = False
    by_source: bool = False


def classify(error: BaseException, attempt: Attempt) -> Event:
    """What an error that ended the sending or the commit of a blob means to its push."""
    failed = Event.INTERRUPTED if is_interruption(error) else Event.REFUSED
    if attempt.by_source:
        return failed
    match error:
        case RequestRedirected():
            return Event.REDIRECTED
        case Rejected() if error.status == 413 and attempt.shrinkable:
            return Event.REQUEST_TOO_LARGE
        case _ if attempt.shrinkable:
            return Event.REQUEST_CUT_OFF
        case Unauthorized():
            return Event.TOKEN_EXPIRED
        case ConnectionLost() if is_one_request(attempt.method):
            # A 413 can get lost in the reset that follows it, when the body is still on its way.
            return Event.METHOD_BREAKS
        case Rejected() | NotFound():
            return _classify_refusal(error, attempt)
    return failed


def _classify_refusal(error: Rejected | NotFound, attempt: Attempt) -> Event:
    if error.status == 416 and attempt.offset and not attempt.disputed:
        return Event.OFFSET_DISPUTED
    if attempt.reused:
        return Event.SESSION_STALE
    if error.status in (404, 405) and attempt.misreadable:
        return Event.LOCATION_MISREAD
    if not refuses_method(error):
        return Event.REFUSED
    if error.code == "DIGEST_INVALID":
        # What left had the right digest: the way changed it, or the method is not understood.
        return Event.SESSION_STALE if attempt.proven else Event.METHOD_GARBLES
    if error.code in _STALE_SESSION:
        works = attempt.offset or attempt.proven or attempt.last
        return Event.SESSION_STALE if works else Event.METHOD_DOUBTED
    if error.status in _AT_ANY_SIZE and not attempt.proven:
        return Event.METHOD_UNSUPPORTED
    return Event.SIZE_UNSUPPORTED


def refuses_method(error: RegistryError) -> bool:
    return error.status in _METHOD_REFUSED and error.code not in _NOT_THE_METHOD


def is_interruption(error: BaseException) -> bool:
    """Whether what was sent before this is still good: the bytes are right, only their way broke."""
    if isinstance(error, IntegrityError):
        return False
    if isinstance(error, (asyncio.CancelledError, Unauthorized, StorageError)):
        return True
    return isinstance(error, BlobflowError) and error.retryable


def may_have_arrived(error: BlobflowError) -> bool:
    """Whether a registry that was sent everything may have the blob all the same."""
    gone = isinstance(error, Unavailable) and error.status in _GATEWAY
    return gone or isinstance(error, NetworkError | NotFound)


def ended_by_size(error: BlobflowError, *, all_sent: bool) -> str:
    """What a request with a body ended with that another with a smaller body may not end with; "" if it is
    nothing of that kind. `all_sent`: the whole body had left us."""
    if isinstance(error, Unavailable) and error.status in _GATEWAY:
        return str(error.status)
    if isinstance(error, TimedOut) and all_sent:
        return "no answer"
    return ""


def explain(error: BlobflowError, place: str, sent_to: str) -> None:
    """Add to an error that ends a push what a person can do about it, where that is not what it says. A
    refusal with a code is the registry's own, and no proxy's.

    `place`: `host/repository`. `sent_to`: what is wrong with where the registry sent the upload, "" if
    nothing.
    """
    if sent_to and _may_be_lost(error):
        error.message += f"; {sent_to}"
    elif isinstance(error, Rejected) and error.status == 413 and not error.code:
        error.message += f"; {advise_probe(place)}"
    elif isinstance(error, Unavailable) and error.status in _GATEWAY:
        error.message += f"; if only large blobs fail, {advise_probe(place)}"


def explain_manifest(error: RegistryError, size: int) -> None:
    """Add to the refusal of a manifest of `size` bytes that it can't be had in smaller requests."""
    if error.status == 413 and not error.code:
        error.message += (
            f"; a manifest goes in one request, so a proxy before the registry has to let {size} bytes"
            " through (nginx: client_max_body_size)"
        )


def advise_probe(place: str) -> str:
    """What to do, in a repository beside `place`: some registries delete nothing of what is tried in it."""
    return (
        "a proxy before the registry may limit the bodies of requests (nginx: client_max_body_size):"
        f" `blobflow probe {place}-probe` shows what gets through"
    )


def _may_be_lost(error: BlobflowError) -> bool:
    """Whether an upload may end like this because it was sent to where nobody knows of it."""
    if isinstance(error, ConnectFailed):
        return error.elsewhere
    if isinstance(error, ConnectionLost | TimedOut):
        return False
    return isinstance(error, RegistryError) and not error.retryable and error.status != 413
