"""WWW-Authenticate (RFC 9110, 11.6.1): the challenges by which a registry asks for authentication. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from blobflow.lazy_pattern import LazyPattern

_MAX_HEADER = 8192
_MAX_CHALLENGES = 8
_SCHEME = LazyPattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?=[ \t,]|\Z)")
_PARAM = LazyPattern(
    r"""([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([!#$%&'*+.^_`|~0-9A-Za-z:/-]+))"""
)
_TOKEN68 = LazyPattern(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_BLANKS = LazyPattern(r"[ \t]*")
_SEPARATORS = LazyPattern(r"[ \t,]*")


class Challenge(msgspec.Struct, frozen=True):
    """One challenge: `scheme` and the names of `params` in lower case."""

    scheme: str
    params: dict[str, str] = {}


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Read WWW-Authenticate headers: any number of challenges, in one header or several.

    What can't be read ends the header that it is in. Never raises.
    """
    found: list[Challenge] = []
    for value in values:
        text, at = value[:_MAX_HEADER], 0
        current: Challenge | None = None
        while len(found) < _MAX_CHALLENGES:
            at = _end(_SEPARATORS, text, at)
            if current is not None and (param := _PARAM.match(text, at)):
                plain = param[3] if param[2] is None else re.sub(r"\\(.)", r"\1", param[2])
                current.params.setdefault(param[1].lower(), plain)
                at = param.end()
            elif scheme := _SCHEME.match(text, at):
                current = Challenge(scheme[0].lower(), {})
                found.append(current)
                at = scheme.end()
                after = _end(_BLANKS, text, at)
                if after > at and not _PARAM.match(text, after):
                    at = _end(_TOKEN68, text, after)
            else:
                break
    return found


def _end(pattern: LazyPattern, text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
