r"""Regular expressions that users write: RE2's syntax, as in Go's tools. Pure.

The files of skopeo and regsync have Go's expressions, and so has our own spec: one meaning everywhere. RE2
has POSIX classes (`[[:alpha:]]`), `\pN`, `\z` and `\Q…\E`; it has no look-around and no references to groups,
and its time is bounded by the text's length times the expression's, so that no expression can hang a run
(https://github.com/google/re2/wiki/Syntax).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Protocol

from blobflow.errors import UsageError
from blobflow.printable import printable

# Characters of an expression. RE2 bounds what one may need of memory (8 MiB) by itself.
MAX_PATTERN = 4096

# What is quoted, an escape, a class, or any other character.
_TOKEN = re.compile(r"\\Q.*?(?:\\E|\Z)|\\.|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|.", re.DOTALL)
_REFERENCE = re.compile(r"\\(?:(\d{1,2})|g<([A-Za-z0-9_]+)>|(.?))", re.DOTALL)
# What people bring along from elsewhere, and how it is said here.
_NONE = "RE2, whose expressions blobflow and Go's tools read, has no"
_INSTEAD = {
    "(?=": f"{_NONE} look-ahead",
    "(?!": f"{_NONE} look-ahead; leave out what is not wanted by an expression of its own",
    "(?<=": f"{_NONE} look-behind",
    "(?<!": f"{_NONE} look-behind; leave out what is not wanted by an expression of its own",
}


class _Match(Protocol):
    def group(self, group: int | str, /) -> str | None: ...


class _Regexp(Protocol):
    groups: int
    groupindex: dict[str, int]

    def search(self, text: str, /) -> _Match | None: ...

    def fullmatch(self, text: str, /) -> _Match | None: ...


class Regex:
    """An expression that can be matched; made by `compile_pattern`."""

    __slots__ = ("_regexp", "text")

    def __init__(self, text: str, regexp: _Regexp) -> None:
        self.text = text
        self._regexp = regexp

    def is_in(self, text: str) -> bool:
        """Whether it matches anywhere in the text."""
        return self._regexp.search(text) is not None

    def is_whole(self, text: str) -> bool:
        """Whether it matches the text from end to end."""
        return self._regexp.fullmatch(text) is not None

    def check_template(self, template: str) -> None:
        """Raise UsageError for a template that `replaced` can't fill in."""
        for number, name, other in _REFERENCE.findall(template):
            group = _group(number or name)
            if not (number or name) and other != "\\":
                wrong = "behind a backslash comes a group's number, g<its name>, or another backslash"
            elif group and group not in (*range(self._regexp.groups + 1), *self._regexp.groupindex):
                wrong = f"there is no group {group}"
            else:
                continue
            raise UsageError(f"{template[:100]!r} can't replace {self.text[:100]!r}: {wrong}")

    def replaced(self, text: str, template: str) -> str | None:
        r"""The template with its groups filled in (`\1`, `\g<name>`; one that matched nothing is ""); None if
        it does not match the text from end to end."""
        found = self._regexp.fullmatch(text)
        if found is None:
            return None

        def fill(reference: re.Match[str]) -> str:
            number, name, other = reference.groups()
            return (found.group(_group(number or name)) or "") if number or name else other

        return _REFERENCE.sub(fill, template)


def _group(reference: str) -> int | str:
    return int(reference) if reference.isdigit() else reference


@cache
def _options() -> object:
    import re2  # type: ignore[import-untyped]  # who has no expressions starts without it

    options = re2.Options()
    options.log_errors = False  # RE2 writes them to stderr by itself
    return options


def compile_pattern(text: str, shown: str | None = None) -> Regex:
    """An expression of the user's, who wrote it as `shown`, if not as `text`. Raises UsageError."""
    import re2

    shown = text if shown is None else shown
    if len(text) > MAX_PATTERN:
        raise UsageError(f"a regular expression has at most {MAX_PATTERN} characters, this one {len(text)}")
    try:
        if "\\C" in text and "\\C" in _TOKEN.findall(text):
            raise re2.error(rb"\C is half a character; no tool of Go takes it")
        return Regex(text, re2.compile(text, _options()))
    except re2.error as error:
        why = error.args[0].decode("utf-8", "replace")
        why = next((more for form, more in _INSTEAD.items() if form in why), printable(why, 120))
    except UnicodeEncodeError:
        why = "it is no Unicode text"
    raise UsageError(f"{shown[:100]!r} is no regular expression: {why}")


def has_loose_choice(text: str) -> bool:
    """Whether there is a `|` outside of all groups, so that what is put around the expression is put around
    its first and its last alternative alone: ^a|b$ is ^a, or b$."""
    depth = 0
    for token in _TOKEN.findall(text):
        depth += (token == "(") - (token == ")")
        if token == "|" and not depth:
            return True
    return False
