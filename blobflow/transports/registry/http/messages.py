"""Requests to a registry, and responses, as values that do not depend on the HTTP library."""

from __future__ import annotations

import msgspec
from multidict import CIMultiDictProxy
from yarl import URL

from blobflow.permits import Permit

# Responses that we only look into (tokens, a page of tags) are read up to this many bytes.
SMALL_RESPONSE = 1024 * 1024


class Request(msgspec.Struct, frozen=True):
    """What is asked of a registry. `description` names it in sentences: "manifest app:1".

    `url` is absolute, or a path at the host (`/v2/…`). `scopes`: the rights that it needs. `ok`: the statuses
    of success. `transient_codes`: error codes that time mends. `limit`: bytes of the response's body that are
    read; one more is read where there is more. `fail_fast`: see `backoff`.
    `permit`: what it is sent under; None: it waits for one.
    """

    method: str
    url: URL
    description: str
    scopes: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    body: bytes | None = None
    ok: tuple[int, ...] = (200,)
    transient_codes: tuple[str, ...] = ()
    limit: int = SMALL_RESPONSE
    fail_fast: bool = False
    permit: Permit | None = None


class Response(msgspec.Struct, frozen=True):
    """A whole response. `url` is where it came from, after redirects."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    url: URL
