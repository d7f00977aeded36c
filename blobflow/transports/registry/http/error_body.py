"""Parses the body of an error response, of whatever form: its code, message and digests. Pure.

It is the distribution spec's JSON (`{"errors": [{code, message, detail}]}`, "Error Codes") or anything else:
text/plain from Go's default 404, HTML from a proxy. Whatever of it reaches a message is bounded and has
lost its control characters, since it may be printed on a terminal.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from blobflow.lazy_pattern import LazyPattern
from blobflow.oci.json_decoding import decode
from blobflow.printable import one_line

# Codes with which a registry that refuses a manifest says that children are not there (a sparse index, a
# blob that was collected). Registries disagree on status (400, 404, 422) and code, so the method decides.
MISSING_CODES = frozenset({"MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN"})
# Digests in a refusal's words and details: strings, objects or lists, with their algorithm or without.
_HEX = LazyPattern(r"(?<![0-9a-f])(?:[0-9a-f]{128}|[0-9a-f]{64})(?![0-9a-f])", re.ASCII)
# How refusals of a manifest that have another code, or none, say that something is not there.
_SAYS_MISSING = LazyPattern(
    r"\b(?:unknown|missing|not found|no such|does ?n[o']t exist|lacks?)\b", re.ASCII | re.IGNORECASE
)
_FIRST_CODE = LazyPattern(
    r'\s*\{\s*"errors"\s*:\s*\[\s*\{[^{}]{0,1000}?"code"\s*:\s*"([A-Z_]{1,60})"', re.ASCII
)
_MESSAGE = LazyPattern(r'"message"\s*:\s*"([^"\\]{0,1000})"')


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None
    detail: msgspec.Raw = msgspec.Raw(b"")


class _Errors(msgspec.Struct):
    """`errors`; and what token servers (OAuth2's RFC 6749, 5.2), Docker Hub and others say instead."""

    errors: list[_Error] = []
    error_description: Any = None
    message: Any = None
    details: Any = None
    detail: Any = None
    error: Any = None

    def other_words(self) -> str:
        nested = self.error.get("message") if isinstance(self.error, dict) else self.error
        places = (self.error_description, self.message, self.details, self.detail, nested)
        return next((words for words in places if isinstance(words, str) and words), "")


_decoder = msgspec.json.Decoder(_Errors)


class ErrorBody(msgspec.Struct, frozen=True):
    """What an error body said: the first error's `code`, its words, and the digests it names. `lacks`: it
    says that something is not there."""

    code: str = ""
    text: str = ""
    digests: tuple[str, ...] = ()
    lacks: bool = False


def parse_error_body(body: bytes, content_type: str = "") -> ErrorBody:
    """Read an error body, of whatever form."""
    try:
        found = decode(body, _decoder)
    except (msgspec.DecodeError, ValueError, RecursionError):
        html = "html" in content_type or body.lstrip()[:1] == b"<"
        words = "" if html else body.decode("utf-8", "replace")
        code, text = _parse_truncated(words)
        lacks = code in MISSING_CODES or bool(_SAYS_MISSING.search(words))
        return ErrorBody(code, one_line(text), _digests_in(words), lacks)
    errors = found.errors
    if not errors:
        words = body.decode("utf-8", "replace")
        lacks = bool(_SAYS_MISSING.search(words))
        return ErrorBody("", one_line(found.other_words()), _digests_in(words), lacks)
    first = errors[0]
    told = " ".join(f"{bytes(each.detail).decode('utf-8', 'replace')} {each.message}" for each in errors)
    lacks = any(each.code in MISSING_CODES for each in errors) or bool(_SAYS_MISSING.search(told))
    return ErrorBody(one_line(first.code or "", 60), one_line(first.message or ""), _digests_in(told), lacks)


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
