"""The Link header (RFC 8288), which says where the next page of a list is. Pure.

    Link: </v2/app/tags/list?n=1000&last=1.9>; rel="next"

Distribution-spec [end-8b] knows this one relation. What comes out of `next_link` is the target as it was
written; whether it may be gone to is judged by `origins.follow_location`. Work is linear in the header's
length, and that is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable

from yarl import URL

from blobflow.lazy_pattern import LazyPattern
from blobflow.transports.registry.origins import follow_location

# Signed cursors are long; this is what servers take for one header field.
_MAX_HEADER = 8192
_MAX_LINKS = 16

# A target; some write it without the brackets, and a page that is not gone on to is names that are missing.
_TARGET = LazyPattern(r"<([^<>]*)>|([^ \t<>;,\"]+)(?=[ \t]*;)")
# A parameter: its value a token, a quoted string, or absent. URLs without quotes are seen in the wild.
_PARAM = LazyPattern(
    r"""[ \t]*;[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)"""
    r"""(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^ \t;,"]*)))?"""
)
_SEPARATORS = LazyPattern(r"[ \t,;]*")


def next_link(values: Iterable[str]) -> str | None:
    """The target of the first link whose relations hold `next`, None if there is none.

    `values` are the Link headers of one answer. What can't be read ends the header that it is in.
    """
    for value in values:
        text, at = value[:_MAX_HEADER], 0
        for _ in range(_MAX_LINKS):
            at = _end(_SEPARATORS, text, at)
            target = _TARGET.match(text, at)
            if target is None:
                break
            relations, at = _relations(text, target.end())
            if "next" in relations and (found := target[1] or target[2]):
                return found
    return None


def next_page(home: URL, at: URL, link: str, description: str) -> URL:
    """Where a `link` that was met at `at` leads, at the registry whose origin is `home`.

    A list goes on where it began: the same list at another origin is what a registry behind a proxy makes of
    the name that it was told, as in an upload's Location. Raises ProtocolViolation.
    """
    place, mark, query = link.partition("#")[0].partition("?")
    if "//" in place and place.endswith(at.raw_path):
        link = f"{at.raw_path}{mark}{query}"
    return follow_location(home, at, link, description)


def _relations(text: str, at: int) -> tuple[list[str], int]:
    """The relation types of a link whose target ends at `at`, and where its parameters end.

    Of several `rel` the first counts (RFC 8288, 3.3).
    """
    found: list[str] | None = None
    while param := _PARAM.match(text, at):
        at = param.end()
        if found is None and param[1].lower() == "rel":
            found = (param[2] or param[3] or "").lower().split()
    return found or [], at


def _end(pattern: LazyPattern, text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
