"""Reads JSON that decides about trust: what is not understood, or could be read in two ways, is refused.

A member twice, a word that is not known, a value of another type, or text that is no text each end in one
sentence with the place in the document, as `transports.docker["quay.io/x"][0].keyPath`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection
from typing import Any, NoReturn

from blobflow.errors import InvalidConfig
from blobflow.printable import one_line, printable

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,60}\Z")
# Blanks that encoders put into long base64; others are an error.
_LINE_ENDS = str.maketrans("", "", "\r\n")
_KINDS: dict[type, str] = {
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class _Members(tuple[tuple[str, Any], ...]):
    """The members of an object as they stand there, with those that are there twice."""

    __slots__ = ()


class Part:
    """A value of a document, and where it stands."""

    __slots__ = ("_document", "_value", "place")

    def __init__(self, value: Any, document: str, place: str = "") -> None:
        self._value = value
        self._document = document
        self.place = place

    def refuse(self, reason: str) -> NoReturn:
        """Raise InvalidConfig, with the document and the place before the reason."""
        place = f"{self.place}: " if self.place else ""
        raise InvalidConfig(f"{self._document}: {place}{reason}")

    def members(self) -> dict[str, Part]:
        """The members of an object, whatever they are called."""
        if not isinstance(self._value, _Members):
            self.refuse(f"should be an object, and is {_kind(self._value)}")
        found: dict[str, Part] = {}
        for key, value in self._value:
            if key in found:
                self.refuse(f"has {_quoted(key)} twice")
            found[key] = self._below(value, key)
            if not _is_text(key):
                found[key].refuse("the name has half a character in it")
        return found

    def fields(self, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Part]:
        """The members of an object that has these fields and no others."""
        found = self.members()
        known = [*required, *optional]
        for key in found:
            if key not in known:
                self.refuse(f"has an unknown field {_quoted(key)}; known are {', '.join(known)}")
        for key in required:
            if key not in found:
                self.refuse(f"lacks {_quoted(key)}")
        return found

    def items(self) -> list[Part]:
        """The items of a list, of which there is at least one."""
        if not isinstance(self._value, list):
            self.refuse(f"should be a list, and is {_kind(self._value)}")
        if not self._value:
            self.refuse("should not be an empty list")
        return [
            Part(each, self._document, f"{self.place}[{number}]") for number, each in enumerate(self._value)
        ]

    def text(self) -> str:
        """Text, which may be empty."""
        if not isinstance(self._value, str):
            self.refuse(f"should be text, and is {_kind(self._value)}")
        if not _is_text(self._value):
            self.refuse("has half a character in it")
        return self._value

    def filled(self) -> str:
        """Text that is not empty: a path or a name that was left out is a mistake, not a wish for none."""
        if not (text := self.text()):
            self.refuse("should not be empty")
        return text

    def is_null(self) -> bool:
        return self._value is None

    def whole_number(self) -> int:
        """A number without a fraction; 1e3 is one, as it is to programs that read all numbers as floats."""
        if isinstance(self._value, bool) or not isinstance(self._value, int | float):
            self.refuse(f"should be a number, and is {_kind(self._value)}")
        if self._value != self._value // 1:
            self.refuse("should be a whole number")
        return int(self._value)

    def decoded(self) -> bytes:
        """What text in base64 (RFC 4648, section 4; with ends of lines) stands for."""
        try:
            return base64.b64decode(self.text().translate(_LINE_ENDS), validate=True)
        except ValueError:
            self.refuse("should be base64, and is not")

    def _below(self, value: Any, key: str) -> Part:
        step = key if _WORD.match(key) else f'["{printable(key, 200)}"]'
        dot = "." if self.place and step == key else ""
        return Part(value, self._document, f"{self.place}{dot}{step}")


def parse_strictly(raw: bytes, document: str) -> Part:
    """The root of a document, which errors call `document`. Raises InvalidConfig for what is no JSON."""
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_Members, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise InvalidConfig(f"{document} is not JSON: it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidConfig(
            f"{document} is not JSON: {one_line(error.msg)} (line {error.lineno}, column {error.colno})"
        ) from None
    except ValueError as error:  # a number of thousands of digits, or one of JavaScript's that are none
        raise InvalidConfig(f"{document} is not JSON: {one_line(str(error))}") from None
    except RecursionError:
        raise InvalidConfig(f"{document} is not what it should be: it is nested too deeply") from None
    return Part(value, document)


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "an object")


def _quoted(word: str) -> str:
    return f'"{printable(word, 100)}"'


def _is_text(text: str) -> bool:
    """Whether it has no halves of surrogate pairs, which JSON can spell and no encoding can hold."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
