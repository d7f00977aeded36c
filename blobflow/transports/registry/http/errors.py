"""From an HTTP answer that is no success to one error of the tree. Pure; the only place that reads statuses.

Error bodies are the distribution spec's JSON (`{"errors": [{code, message, detail}]}`, "Error Codes") or
anything else at all: text/plain from Go's default 404, HTML from a proxy. Whatever of it reaches a message is
bounded and has lost its control characters, since it may be printed on a terminal.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import msgspec

from blobflow.errors import Denied, NotFound, RegistryError, Rejected, Throttled, Unauthorized, Unavailable
from blobflow.oci.json_decoding import decode
from blobflow.printable import is_printable

# Of the registry's own words, this many characters get into a message.
MAX_MESSAGE = 300
# Codes with which a registry that refuses a manifest says that children are not there (a sparse index, a
# blob that was collected). Registries disagree on status (400, 404, 422) and code, so the method decides.
_MISSING_CODES = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"})
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
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)\Z", re.ASCII)
# Digests in a refusal's words and details: strings, objects or lists, with their algorithm or without.
_HEX = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{128}|[0-9a-f]{64})(?![0-9a-f])", re.ASCII)
# How refusals of a manifest that have another code, or none, say that something is not there.
_SAYS_MISSING = re.compile(
    r"\b(?:unknown|missing|not found|no such|does ?n[o']t exist|lacks?)\b", re.ASCII | re.IGNORECASE
)
_GAPS = re.compile("\n+")
_FIRST_CODE = re.compile(
    r'\s*\{\s*"errors"\s*:\s*\[\s*\{[^{}]{0,1000}?"code"\s*:\s*"([A-Z_]{1,60})"', re.ASCII
)
_MESSAGE = re.compile(r'"message"\s*:\s*"([^"\\]{0,1000})"')


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None
    detail: msgspec.Raw = msgspec.Raw(b"")


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


_decoder = msgspec.json.Decoder(_Errors)


class ErrorBody(msgspec.Struct, frozen=True):
    """What an error body said: the first error's `code`, its words, and the digests it names. `lacks`: it
    says that something is not there."""

    code: str = ""
    text: str = ""
    digests: tuple[str, ...] = ()
    lacks: bool = False


def printable(text: str, limit: int = MAX_MESSAGE) -> str:
    """`text` fit for a terminal: one line, at most `limit` characters, and none that a terminal could obey.

    Control characters, marks that reorder or hide text and halves of characters become a blank.
    """
    shown = "".join(char if is_printable(char) else "\n" for char in text[: 4 * limit])
    flat = _GAPS.sub(" ", shown).strip()
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def parse_error_body(body: bytes, content_type: str = "") -> ErrorBody:
    """Read an error body, of whatever form."""
    try:
        errors = decode(body, _decoder).errors
    except (msgspec.DecodeError, ValueError, RecursionError):
        html = "html" in content_type or body.lstrip()[:1] == b"<"
        words = "" if html else body.decode("utf-8", "replace")
        code, text = _parse_truncated(words)
        lacks = code in _MISSING_CODES or bool(_SAYS_MISSING.search(words))
        return ErrorBody(code, printable(text), _digests_in(words), lacks)
    if not errors:
        words = body.decode("utf-8", "replace")
        return ErrorBody(digests=_digests_in(words), lacks=bool(_SAYS_MISSING.search(words)))
    first = errors[0]
    told = " ".join(f"{bytes(each.detail).decode('utf-8', 'replace')} {each.message}" for each in errors)
    lacks = any(each.code in _MISSING_CODES for each in errors) or bool(_SAYS_MISSING.search(told))
    return ErrorBody(
        printable(first.code or "", 60), printable(first.message or ""), _digests_in(told), lacks
    )


def _parse_truncated(words: str) -> tuple[str, str]:
    """The first code and message of a body that is the spec's but for its end: who lacks a thousand blobs
    says more than is read. Of any other body there is no code, and all of it is the message."""
    code = _FIRST_CODE.match(words)
    if code is None:
        return "", words
    message = _MESSAGE.search(words)
    return code[1], message[1] if message else ""


def _digests_in(text: str) -> tuple[str, ...]:
    """The digests that a text names, each once; their algorithm is told by their length."""
    found = dict.fromkeys(_HEX.findall(text))
    return tuple(f"{'sha256' if len(each) == 64 else 'sha512'}:{each}" for each in found)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """A Retry-After header in seconds from `now` (Unix seconds): a number or an HTTP date; None: no such."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        at = parsedate_to_datetime(text[:60]).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return max(0.0, at - now)


def parse_length(value: str | None) -> int | None:
    """A header that is a count of bytes; None where it is none, or none that a size could have."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 19 else None


class ContentRange(NamedTuple):
    """A Content-Range: bytes `first` to `last`, both included, of `total`; None where it does not say."""

    first: int | None
    last: int | None
    total: int | None


def parse_content_range(value: str | None) -> ContentRange | None:
    """Read a Content-Range of bytes (RFC 9110, 14.4); None: it is no such."""
    found = _CONTENT_RANGE.match(value or "")
    if found is None:
        return None
    first, last, total = (int(part) if part and part != "*" else None for part in found.groups())
    return ContentRange(first, last, total)


def parse_warning(value: str) -> str:
    """The text of a `Warning: 299 - "…"` header (distribution-spec, "Warnings"); "" for any other."""
    match = re.match(r'299 [^ ]+ "((?:[^"\\]|\\.)*)"', value[:1000])
    return printable(re.sub(r"\\(.)", r"\1", match[1])) if match else ""


_HIT = re.compile(r"(?<![=\w])(?:\w{1,20}_)?(?:hit|stale|updating|revalidated)\b", re.ASCII | re.IGNORECASE)
_TWO_REQUESTS = re.compile(r"\d+ \d+\Z", re.ASCII)  # Varnish: this one, and the one that it kept
_CACHE_HEADERS = ("Cache-Status", "X-Cache-Status", "X-Cache", "X-Proxy-Cache", "CF-Cache-Status")


def describe_cache(headers: Mapping[str, str]) -> str:
    """How an answer says that a cache had kept it: "from a cache, 81 s old"; "" where it does not say so.

    By Age (RFC 9111, 5.1), Cache-Status (RFC 9211), or what caches have of their own. An Age of 0 says that
    there is a cache, not that it had this.
    """
    age = parse_length(headers.get("Age")) or 0
    hit = age or any(_HIT.search(headers.get(name, "")[:200]) for name in _CACHE_HEADERS)
    if not hit and not _TWO_REQUESTS.search(headers.get("X-Varnish", "")[:100].strip()):
        return ""
    via = printable(headers.get("Via", ""), 60)
    old = f", {age} s old" if age else ""
    return f"from a cache{old} (Via: {via})" if via else f"from a cache{old}"


# Servers that pass requests on and can keep the answers, and say nothing of that as they come.
_CACHING_SERVERS = re.compile(
    r"nginx|openresty|tengine|angie|apache|squid|varnish|trafficserver", re.IGNORECASE
)


def may_be_cached(headers: Mapping[str, str]) -> bool:
    """Whether an answer came through something that may have kept it, by what that says of itself."""
    if _CACHING_SERVERS.search(headers.get("Server", "")[:100]):
        return True
    return any(name in headers for name in ("Via", "Age", "X-Varnish", *_CACHE_HEADERS))


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
    names_it = said.code in _MISSING_CODES or by_its_words
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
