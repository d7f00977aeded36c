"""Bearer tokens: requests to a token server, and its answers. Pure.

The protocol is distribution's token specification, and OAuth2's form for identity tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec
from yarl import URL

from blobflow.errors import ProtocolViolation
from blobflow.oci.json_decoding import decode
from blobflow.transports.registry.auth.credentials import Credentials

# Lifetimes in seconds. The token specification's default is 60; seen are 60 to 300. A server's wish is
# bounded so that a hostile one gets no token kept for ever.
DEFAULT_LIFETIME = 60.0
MAX_LIFETIME = 24 * 3600.0
# A token is renewed when less than this is left, or a fifth of its life if that is less.
RENEWAL_MARGIN = 10.0
# By these statuses a realm says that it does not know the way in which it was asked.
UNKNOWN_WAY = (404, 405)


def scopes_with(wanted: Sequence[str], challenged: str) -> tuple[str, ...]:
    """The scopes to ask for: those wanted, in their order, and what the challenge names beyond them.

    Some registries serve a repository under another name than it is asked for, and say so in the challenge.
    """
    scopes = list(wanted)
    for scope in challenged.split()[:16]:
        if not any(_covers(have, scope) for have in scopes):
            scopes.append(scope)
    return tuple(scopes)


def repository_of(scopes: Sequence[str]) -> str:
    """The repository whose login is to be used: that of the first scope, which is where something is done."""
    kind, _, rest = (scopes[0] if scopes else "").partition(":")
    return rest.rpartition(":")[0] if kind == "repository" else ""


def _covers(have: str, scope: str) -> bool:
    """Scopes are type:name:actions, and a name may have a port's colon in it."""
    name, _, actions = have.rpartition(":")
    other, _, description = scope.rpartition(":")
    return name == other and set(description.split(",")) <= set(actions.split(","))


class _TokenResponse(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | int | str | None = None


_decoder = msgspec.json.Decoder(_TokenResponse)


class Token(msgspec.Struct, frozen=True):
    """`header` is ready to be sent until `renew_at` (the clock's seconds)."""

    header: str
    renew_at: float

    def __repr__(self) -> str:
        return "Token(…)"


def read_token(body: bytes, now: float, realm: str) -> Token:
    """Decode a token server's answer that was asked for at `now`. Raises ProtocolViolation."""
    try:
        answer = decode(body, _decoder)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ProtocolViolation(
            f"the token server {realm} answered with something that is no token"
        ) from None
    text = answer.token or answer.access_token
    if not text or not re.fullmatch(r"[\x21-\x7e]{1,65536}", text):
        raise ProtocolViolation(f"the token server {realm} answered without a usable token")
    try:
        lifetime = float(answer.expires_in or DEFAULT_LIFETIME)
    except (ValueError, OverflowError):
        lifetime = DEFAULT_LIFETIME
    if not 0 < lifetime <= MAX_LIFETIME:
        lifetime = DEFAULT_LIFETIME
    return Token(f"Bearer {text}", now + lifetime - min(RENEWAL_MARGIN, lifetime / 5))


class TokenRequest(msgspec.Struct, frozen=True):
    """A GET to a token server, or a POST where it has a `form`; with an Authorization, or None."""

    url: URL
    authorization: str | None = None
    form: bytes | None = None

    def __repr__(self) -> str:
        return "TokenRequest(…)"


def token_requests(
    realm: URL, service: str | None, scopes: Sequence[str], login: Credentials | None
) -> tuple[TokenRequest, ...]:
    """How a token is asked for, a way after the other as long as the realm says `UNKNOWN_WAY`; at least one.

    An identity token is changed by OAuth2's POST; all else is the token specification's GET.
    """
    ways = []
    if login is not None and login.identity_token:
        ways.append(TokenRequest(realm, form=oauth2_form(service or "", scopes, login.identity_token)))
    if not ways or (login is not None and login.password):
        basic = login.basic if login is not None and login.username else None
        ways.append(TokenRequest(token_url(realm, service, scopes), basic))
    return tuple(ways)


def token_url(realm: URL, service: str | None, scopes: Sequence[str]) -> URL:
    """The token specification's GET: a parameter for each scope."""
    pairs = [("service", service)] if service is not None else []
    pairs += [("scope", scope) for scope in scopes]
    text = str(realm)
    text += ("&" if "?" in text else "?") + urlencode(
        pairs, quote_via=quote, safe="", errors="surrogateescape"
    )
    return URL(text, encoded=True)


def oauth2_form(service: str, scopes: Sequence[str], refresh_token: str) -> bytes:
    """The body of OAuth2's POST: one field for all scopes."""
    fields = {
        "grant_type": "refresh_token",
        "service": service,
        "client_id": "blobflow",
        "scope": " ".join(scopes),
        "refresh_token": refresh_token,
    }
    return urlencode(fields, errors="surrogateescape").encode()
