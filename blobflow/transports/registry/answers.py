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
from blobflow.oci.decoding import decode
from blobflow.visible import is_visible

# Of the registry's own words, this many characters get into a message.
MAX_WORDS = 300
# Codes with which a registry that refuses a manifest says that children are not there (a sparse index, a
# blob that was collected). Registries disagree on status (400, 404, 422) and code, so the method decides.
_MISSING_CODES = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"})
_SENTENCES: dict[int, tuple[type[Unauthorized | Denied | NotFound | Rejected], str]] = {
    401: (Unauthorized, "{host} wants a valid login for {asked}{tail}; check the credentials for {host}"),
    403: (Denied, "{host} denies {asked}{tail}; check what the login may do"),
    404: (NotFound, "{host} has no {asked}{tail}"),
    413: (Rejected, "{host} refused {asked} with 413: it is larger than {host} takes{tail}"),
    # Not a passing 5xx: a disk does not empty itself while we wait.
    507: (Rejected, "{host} refused {asked}: its storage is full{tail}; free some space there"),
}
_PASSING = frozenset({408, 425})  # below 500, but time mends them
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)\Z", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_GAPS = re.compile("\n+")


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None
    detail: msgspec.Raw = msgspec.Raw(b"")


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


_decoder = msgspec.json.Decoder(_Errors)


class Words(msgspec.Struct, frozen=True):
    """What an error body said: the first error's `code`, its words, and the digests it names."""

    code: str = ""
    text: str = ""
    digests: tuple[str, ...] = ()


def clean(text: str, limit: int = MAX_WORDS) -> str:
    """`text` fit for a terminal: one line, at most `limit` characters, and none that a terminal could obey.

    Control characters, marks that reorder or hide text and halves of characters become a blank.
    """
    shown = "".join(char if is_visible(char) else "\n" for char in text[: 4 * limit])
    flat = _GAPS.sub(" ", shown).strip()
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def words_of(body: bytes, content_type: str = "") -> Words:
    """Read an error body, of whatever form."""
    try:
        errors = decode(body, _decoder).errors
    except (msgspec.DecodeError, ValueError, RecursionError):
        html = "html" in content_type or body.lstrip()[:1] == b"<"
        return Words(text="" if html else clean(body.decode("utf-8", "replace")))
    if not errors:
        return Words()
    first = errors[0]
    named = dict.fromkeys(
        digest
        for error in errors
        for digest in _DIGEST.findall(f"{bytes(error.detail).decode('utf-8', 'replace')} {error.message}")
    )
    return Words(code=clean(first.code or "", 60), text=clean(first.message or ""), digests=tuple(named))


def retry_after(value: str | None, now: float) -> float | None:
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


def number_of(value: str | None) -> int | None:
    """A header that is a count of bytes; None where it is none, or none that a size could have."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 19 else None


class Told(NamedTuple):
    """A Content-Range: bytes `first` to `last`, both included, of `total`; None where it does not say."""

    first: int | None
    last: int | None
    total: int | None


def content_range(value: str | None) -> Told | None:
    """Read a Content-Range of bytes (RFC 9110, 14.4); None: it is no such."""
    found = _CONTENT_RANGE.match(value or "")
    if found is None:
        return None
    first, last, total = (int(part) if part and part != "*" else None for part in found.groups())
    return Told(first, last, total)


def warning_of(value: str) -> str:
    """The text of a `Warning: 299 - "…"` header (distribution-spec, "Warnings"); "" for any other."""
    match = re.match(r'299 [^ ]+ "((?:[^"\\]|\\.)*)"', value[:1000])
    return clean(re.sub(r"\\(.)", r"\1", match[1])) if match else ""


def error_of(
    host: str,
    method: str,
    asked: str,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    passing: Collection[str] = (),
) -> RegistryError:
    """The error that `status` means when `host` was asked for `asked` ("manifest app:1").

    `passing`: codes of refusals that time mends, for this request.
    """
    said = words_of(body, headers.get("Content-Type", ""))
    tail = _tail(said)
    if method == "PUT" and 400 <= status < 500 and said.code in _MISSING_CODES:
        return Rejected(
            f"{host} refused {asked}: it lacks {_listed(said.digests)}{tail}",
            missing=said.digests,
            status=status,
            code=said.code,
            detail=said.text,
        )
    if (row := _SENTENCES.get(status)) is not None:
        kind, sentence = row
        said_so = sentence.format(host=host, asked=asked, tail=tail)
        return kind(said_so, status=status, code=said.code, detail=said.text)
    wish = retry_after(headers.get("Retry-After"), time.time())
    if status == 429:
        note = f", to be repeated in {wish:.0f} s" if wish else ""
        return Throttled(f"{host} wants fewer requests ({asked}{note}){tail}", retry_after=wish)
    if status in _PASSING or said.code in passing or (status >= 500 and status != 501):
        return Unavailable(
            f"{host} failed with {status} on {asked}{tail}",
            retry_after=wish,
            status=status,
            code=said.code,
            detail=said.text,
        )
    return Rejected(
        f"{host} refused {asked} with {status}{tail}", status=status, code=said.code, detail=said.text
    )


def _tail(said: Words) -> str:
    words = ": ".join(part for part in (said.code, said.text) if part)
    return f" ({words})" if words else ""


def _listed(digests: tuple[str, ...]) -> str:
    if not digests:
        return "content that it refers to"
    more = f" and {len(digests) - 3} more" if len(digests) > 3 else ""
    return ", ".join(digests[:3]) + more
