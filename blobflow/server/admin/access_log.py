"""The access log in formats that other programs read: httpd's, and JSON. Pure.

People read logs on terminals, too: nothing that a client chose reaches the log as what a terminal obeys.
"""

from __future__ import annotations

import json
import time

import msgspec

from blobflow.printable import printable

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ESCAPED = str.maketrans({'"': '\\"', "\\": "\\\\"})
# Characters of a request's target, and of another field, that a line has. The target is there whole: only the
# escapes in it can make it longer than what the server reads.
_TARGET = 16 * 1024
_FIELD = 1024
_DEL = "\x7f"


class AccessRecord(msgspec.Struct, frozen=True):
    """One answered request. `received` and `sent` are body bytes as announced (received: -1 if it was not);
    `seconds` to the end of a streamed answer, or to the handing over of a small one. `at` is when it came in
    (Unix seconds), `user` the login that it came with."""

    remote: str
    method: str
    path: str
    query: str
    status: int
    received: int
    sent: int
    seconds: float
    user_agent: str
    user: str = ""
    referer: str = ""
    at: float = 0.0


class CommonLogFormat:
    """Writes accesses as httpd's logs have them: "Common Log Format", and `combined`, which ends with who
    referred and the user agent. What a client chose is escaped, so that a line is a line."""

    def __init__(self, *, combined: bool = False) -> None:
        self._combined = combined
        self._stamped = (0, "")

    def line(self, access: AccessRecord) -> str:
        """One access, without an end of line; times are UTC."""
        target = f"{access.path}?{access.query}" if access.query else access.path
        text = (
            f"{_safe(access.remote) or '-'} - {_safe(access.user) or '-'} [{self._stamp(access.at)}] "
            f'"{_safe(access.method)} {_safe(target, _TARGET)} HTTP/1.1" {access.status} {access.sent or "-"}'
        )
        if self._combined:
            text += f' "{_safe(access.referer) or "-"}" "{_safe(access.user_agent) or "-"}"'
        return text

    def _stamp(self, at: float) -> str:
        """`21/Nov/2026:16:14:49 +0000`, made once a second."""
        second = int(at)
        if second != self._stamped[0]:
            t = time.gmtime(second)
            date = f"{t.tm_mday:02}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year:04}"
            self._stamped = second, f"{date}:{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000"
        return self._stamped[1]


def json_line(access: AccessRecord) -> str:
    """One access as a JSON object in ASCII, without an end of line. Every character of it can be had back."""
    try:
        text = msgspec.json.encode(access).decode()
    except UnicodeEncodeError:  # bytes of a header that are no UTF-8, as halves of surrogate pairs
        text = ""
    if text and text.isascii() and _DEL not in text:
        return text
    return json.dumps(msgspec.structs.asdict(access), separators=(",", ":"))


def _safe(text: str, most: int = _FIELD) -> str:
    """Between quotes: without quotes, and without what a terminal would obey."""
    if '"' in text or "\\" in text:
        text = text[:most].translate(_ESCAPED)
    return printable(text, most)
