"""`$NAME` and `${NAME…}` as the shell, Compose, GitLab and Dockerfiles write them, in bounded work. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

# What is known of a variable: its value; None if it has none here.
Lookup = Callable[[str], str | None]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# One character at least, up to the next that may begin something.
_PLAIN = re.compile(r"[\s\S][^$\\`]*")
_MAX_TEXT = 2000  # characters; no image's name is that long
_MAX_STEPS = 2000
_MAX_DEPTH = 20


class Expanded(msgspec.Struct, frozen=True):
    """What a text becomes; None if a variable has no value. `missing`: the variables without one."""

    text: str | None
    missing: tuple[str, ...] = ()


class _Unknown(Exception):
    """The text is more than what is understood here, or takes too much work."""


def expand(text: str, lookup: Lookup, *, escape: str = "") -> Expanded:
    """Replace the variables of a text by their values or defaults: `${A:-b}`, `${A-b}`, `${A:+b}`, `${A+b}`,
    `${A:?…}` and `${A?…}`, also within each other. `escape`: what `$` after it stands for itself with."""
    expansion = _Expansion(lookup, escape)
    try:
        found = expansion.expand(text, 0)
    except _Unknown:
        return Expanded(None, tuple(dict.fromkeys(expansion.missing)))
    missing = tuple(dict.fromkeys(expansion.missing))
    return Expanded(None if missing else found, missing)


def nothing(_name: str) -> str | None:
    """The lookup where no variable has a value."""
    return None


class _Expansion:
    def __init__(self, lookup: Lookup, escape: str) -> None:
        self.missing: list[str] = []
        self._lookup = lookup
        self._escape = escape
        self._steps = 0
        # Those whose value is being expanded: in it they have none, as in `A=${A:-b}`.
        self._open: set[str] = set()

    def expand(self, text: str, depth: int) -> str:
        self._steps += 1
        if depth > _MAX_DEPTH or self._steps > _MAX_STEPS or len(text) > _MAX_TEXT:
            raise _Unknown
        made = ""
        at = 0
        while at < len(text):
            if self._escape and text.startswith(f"{self._escape}$", at):
                made, at = f"{made}$", at + len(self._escape) + 1
            elif text[at] != "$":
                run = _PLAIN.match(text, at)
                assert run is not None
                made, at = made + run.group(), run.end()
            else:
                value, at = self._variable(text, at + 1, depth)
                made += value
            if len(made) > _MAX_TEXT:
                raise _Unknown
        return made

    def _variable(self, text: str, at: int, depth: int) -> tuple[str, int]:
        if text.startswith("{", at):
            end = _closing(text, at)
            return self._in_braces(text[at + 1 : end], depth), end + 1
        name = _NAME.match(text, at)
        if not name:
            raise _Unknown
        return self._value(name.group(), depth), name.end()

    def _in_braces(self, inner: str, depth: int) -> str:
        name = _NAME.match(inner)
        if not name:
            raise _Unknown
        operator = inner[name.end() : name.end() + 2]
        if not operator:
            return self._value(name.group(), depth)
        length = 2 if operator[0] == ":" else 1
        if operator[length - 1 : length] not in ("-", "+", "?") or not operator[:length].strip():
            raise _Unknown
        word = inner[name.end() + length :]
        value = self._known(name.group())
        is_set = value is not None and (length == 1 or value != "")
        if operator[length - 1] == "-":
            return self._value(name.group(), depth) if is_set else self.expand(word, depth + 1)
        if operator[length - 1] == "+":
            return self.expand(word, depth + 1) if is_set else ""
        return self._value(name.group(), depth)

    def _value(self, name: str, depth: int) -> str:
        value = self._known(name)
        if value is None:
            self.missing.append(name)
            return ""
        self._open.add(name)
        made = self.expand(value, depth + 1)
        self._open.discard(name)
        return made

    def _known(self, name: str) -> str | None:
        return None if name in self._open else self._lookup(name)


def _closing(text: str, at: int) -> int:
    """Where the brace that opens at `at` closes."""
    depth = 0
    for index in range(at, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    raise _Unknown
