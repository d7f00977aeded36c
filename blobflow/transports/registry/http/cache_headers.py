"""Headers by which caches mark the responses that they pass on or keep. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from blobflow.printable import one_line
from blobflow.transports.registry.http.headers import parse_length

_HIT = re.compile(r"(?<![=\w])(?:\w{1,20}_)?(?:hit|stale|updating|revalidated)\b", re.ASCII | re.IGNORECASE)
_TWO_REQUESTS = re.compile(r"\d+ \d+\Z", re.ASCII)  # Varnish: this one, and the one that it kept
_CACHE_HEADERS = ("Cache-Status", "X-Cache-Status", "X-Cache", "X-Proxy-Cache", "CF-Cache-Status")


def describe_cache(headers: Mapping[str, str]) -> str:
    """How an answer says that a cache had kept it: "from a cache, 81 s old"; "" where it does not say so.

    By Age (RFC 9111, 5.1), Cache-Status (RFC 9211), or what caches have of their own. An Age of 0 says that
    there is a cache, not that it had this.
    """
    age = parse_length(headers.get("Age")) or 0
    said = [value for name in _CACHE_HEADERS if (value := headers.get(name))]
    hit = age or any(_HIT.search(value[:200]) for value in said)
    if not hit and not _TWO_REQUESTS.search(headers.get("X-Varnish", "")[:100].strip()):
        return ""
    via = one_line(headers.get("Via", ""), 60)
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
