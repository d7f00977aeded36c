"""Regular expressions that are compiled when they are first used.

Compiling one takes up to a millisecond. What few runs need (a challenge, a next page, an error's words)
is not to be paid for at every start.
"""

from __future__ import annotations

import re
from functools import cached_property


class LazyPattern:
    """A pattern with its flags; `compiled` is what `re.compile` makes of them."""

    def __init__(self, text: str, flags: re.RegexFlag = re.NOFLAG) -> None:
        self._text = text
        self._flags = flags

    @cached_property
    def compiled(self) -> re.Pattern[str]:
        return re.compile(self._text, self._flags)

    def match(self, text: str, at: int = 0) -> re.Match[str] | None:
        """See `re.Pattern.match`."""
        return self.compiled.match(text, at)

    def fullmatch(self, text: str) -> re.Match[str] | None:
        """See `re.Pattern.fullmatch`."""
        return self.compiled.fullmatch(text)

    def search(self, text: str) -> re.Match[str] | None:
        """See `re.Pattern.search`."""
        return self.compiled.search(text)

    def findall(self, text: str) -> list[str]:
        """See `re.Pattern.findall`; for patterns of at most one group."""
        return self.compiled.findall(text)

    def sub(self, by: str, text: str) -> str:
        """See `re.Pattern.sub`."""
        return self.compiled.sub(by, text)
