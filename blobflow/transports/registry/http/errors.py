"""Maps an unsuccessful response to an error of the tree. Pure.

Here are the sentences of refusals, for all requests. What a status means to one of them alone (a deletion, a
mount, a push) is said where that is made; what becomes of a login that is refused, by `auth.authenticator`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from blobflow.errors import Denied, NotFound, RegistryError, Rejected, Throttled, Unauthorized, Unavailable
from blobflow.transports.registry.http.cache_headers import describe_cache, may_be_cached
from blobflow.transports.registry.http.error_body import MISSING_CODES, ErrorBody, parse_error_body
from blobflow.transports.registry.http.headers import parse_retry_after

# Statuses with which registries refuse a manifest whose children are not there.
_REFUSALS_OF_CONTENT = frozenset({400, 404, 409, 412, 415, 422, 424})
_SENTENCES: dict[int, tuple[type[Unauthorized | Denied | NotFound | Rejected], str]] = {
    401: (
        Unauthorized,
        "{host} wants a valid login for {description}{tail}; check the credentials for {host}",
    ),
    403: (Denied, "{host} denies {description}{tail}; check what the login may do"),
    404: (NotFound, "{host} has no {description}{tail}"),
    413: (Rejected, "{host} refused {description} with 413: it is larger than {host} takes{tail}"),
    # Not a passing 5xx: a disk does not empty itself while we wait.
    507: (Rejected, "{host} refused {description}: its storage is full{tail}; free some space there"),
}
_TRANSIENT = frozenset({408, 425})  # below 500, but time mends them


def error_of(
    host: str,
    method: str,
    description: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    transient_codes: Collection[str] = (),
) -> RegistryError:
    """The error that `status` means when `host` was asked for `description` ("manifest app:1").

    `transient_codes`: codes of refusals that time mends, for this request.
    """
    error = _error_of(host, method, description, status, headers, body, transient_codes)
    error.method, error.cached = method, describe_cache(headers)
    error.maybe_cached = may_be_cached(headers)
    if error.cached:
        error.message += f"; that answer came {error.cached}"
    return error


def _error_of(
    host: str,
    method: str,
    description: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    transient_codes: Collection[str],
) -> RegistryError:
    said = parse_error_body(body, headers.get("Content-Type", ""))
    tail = _tail(said)
    by_its_words = (
        said.lacks
        and said.digests
        and description.startswith("manifest ")
        and said.code not in transient_codes
    )
    names_it = said.code in MISSING_CODES or by_its_words
    if method == "PUT" and status in _REFUSALS_OF_CONTENT and names_it:
        return Rejected(
            f"{host} refused {description}: it lacks {_listed(said.digests)}{tail}",
            missing=said.digests,
            status=status,
            code=said.code,
            detail=said.text,
        )
    if (row := _SENTENCES.get(status)) is not None:
        kind, sentence = row
        said_so = sentence.format(host=host, description=description, tail=tail)
        return kind(said_so, status=status, code=said.code, detail=said.text)
    wish = parse_retry_after(headers.get("Retry-After"), time.time())
    if status == 429:
        note = f", to be repeated in {wish:.0f} s" if wish else ""
        return Throttled(f"{host} wants fewer requests ({description}{note}){tail}", retry_after=wish)
    if status in _TRANSIENT or said.code in transient_codes or (status >= 500 and status != 501):
        return Unavailable(
            f"{host} failed with {status} on {description}{tail}",
            retry_after=wish,
            status=status,
            code=said.code,
            detail=said.text,
        )
    return Rejected(
        f"{host} refused {description} with {status}{tail}", status=status, code=said.code, detail=said.text
    )


def _tail(said: ErrorBody) -> str:
    words = ": ".join(part for part in (said.code, said.text) if part)
    return f" ({words})" if words else ""


def _listed(digests: tuple[str, ...]) -> str:
    if not digests:
        return "content that it refers to"
    more = f" and {len(digests) - 3} more" if len(digests) > 3 else ""
    return ", ".join(digests[:3]) + more
