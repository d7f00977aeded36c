"""Header fields of responses, as values. Pure; a field that is malformed says nothing."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from blobflow.lazy_pattern import LazyPattern
from blobflow.printable import one_line

_CONTENT_RANGE = LazyPattern(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)\Z", re.ASCII)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """A Retry-After header in seconds from `now` (Unix seconds): a number or an HTTP date; None
    if malformed."""
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
    """A header that is a count of bytes; None if malformed or out of range."""
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 19 else None


class ContentRange(NamedTuple):
    """A Content-Range: bytes `first` to `last`, both included, of `total`; None where it does not say."""

    first: int | None
    last: int | None
    total: int | None


def parse_content_range(value: str | None) -> ContentRange | None:
    """Read a Content-Range of bytes (RFC 9110, 14.4); None if malformed."""
    found = _CONTENT_RANGE.match(value or "")
    if found is None:
        return None
    first, last, total = (int(part) if part and part != "*" else None for part in found.groups())
    return ContentRange(first, last, total)


def parse_warning(value: str) -> str:
    """The text of a `Warning: 299 - "…"` header (distribution-spec, "Warnings"); "" for any other."""
    match = re.match(r'299 [^ ]+ "((?:[^"\\]|\\.)*)"', value[:1000])
    return one_line(re.sub(r"\\(.)", r"\1", match[1])) if match else ""
