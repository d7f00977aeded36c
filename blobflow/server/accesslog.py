"""The access log in the forms that programs read which read httpd's. Pure."""

from __future__ import annotations

import time

from blobflow.server.exchange import Access

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ESCAPED = {'"': '\\"', "\\": "\\\\"}


class CommonLog:
    """Writes accesses as httpd's logs have them: "Common Log Format", and `combined`, which ends with who
    referred and the user agent. What a client chose is escaped, so that a line is a line."""

    def __init__(self, *, combined: bool = False) -> None:
        self._combined = combined
        self._stamped = (0, "")

    def line(self, access: Access) -> str:
        """One access, without an end of line; times are UTC."""
        target = f"{access.path}?{access.query}" if access.query else access.path
        text = (
            f"{access.remote or '-'} - {_safe(access.user) or '-'} [{self._stamp(access.at)}] "
            f'"{access.method} {_safe(target)} HTTP/1.1" {access.status} {access.sent or "-"}'
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


def _safe(text: str) -> str:
    """Without quotes, and without what a terminal would obey."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(_ESCAPED.get(each) or _visible(each) for each in text)


def _visible(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
