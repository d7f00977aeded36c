"""Go's templates, as far as regsync.yml uses them. Pure, but for the files that they name.

    {{env "HUB_USER"}}   {{file "/run/secrets/token"}}   {{ env "HOST" | default "docker.io" | lower }}
    {{ index (split .Sync.Source "gcr.io/") 1 }}

Functions are `env`, `file`, `default`, `lower`, `upper`, `trimSpace`, `split`, `join` and `index`, in
pipelines and parentheses; `.Sync.Source` and its like name a fact. A variable that is not set, or a file that
can't be read, is an error, where regsync goes on with nothing: a login without its password would be refused
far from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from blobflow.bounded_file import read_beginning
from blobflow.errors import InvalidConfig
from blobflow.printable import printable

_TEMPLATE = re.compile(r"(?:\s*\{\{-(?=\s)|\{\{)(.*?)(?:(?<=\s)-\}\}\s*|\}\})", re.DOTALL)
_COMMENT = re.compile(r"/\*.*\*/\Z", re.DOTALL)
_WORD = re.compile(
    r'\s*(?:"((?:[^"\\]|\\.)*)"|`([^`]*)`|(\.?[A-Za-z][A-Za-z0-9.]*)|(\d{1,4})|([|()]))\s*', re.ASCII
)
_MOST = 4096  # characters of a value with templates in it
_MOST_FILE = 64 * 1024  # bytes; a secret, and no more
_ON_TEXT: dict[str, Callable[[str], str]] = {"lower": str.lower, "upper": str.upper, "trimSpace": str.strip}
_KNOWN = ("env", "file", "default", *_ON_TEXT, "split", "join", "index")

# What a term may be worth; None: a variable that is not set.
_Value = str | int | list[str] | None


def render_template(text: str, environ: Mapping[str, str], facts: Mapping[str, str] | None = None) -> str:
    """The text with its templates filled in; `facts` are the values of names with a dot.

    Raises InvalidConfig for one that can't be filled in.
    """
    if "{{" not in text:
        return text
    if len(text) > _MOST:
        raise InvalidConfig(f"a value with a template has at most {_MOST} characters, this one {len(text)}")

    def fill(found: re.Match[str]) -> str:
        inner = found[1].strip()
        shown = f"the template `{printable(found[0].strip(), 80)}`"
        return "" if _COMMENT.match(inner) else _Pipeline(shown, environ, facts or {}).run(inner)

    return _TEMPLATE.sub(fill, text)


class _Word(NamedTuple):
    """A token: a name, a mark (| or a parenthesis), or a literal text or number."""

    name: str = ""
    mark: str = ""
    literal: str | int = ""


class _Pipeline:
    """The content of one template's braces; errors show it as `shown`."""

    def __init__(self, shown: str, environ: Mapping[str, str], facts: Mapping[str, str]) -> None:
        self._shown = shown
        self._environ = environ
        self._facts = facts
        self._words: list[_Word] = []

    def run(self, text: str) -> str:
        """Its value. Raises InvalidConfig."""
        self._words = [*self._split(text)][::-1]
        try:
            value = self._pipeline()
        except RecursionError:
            raise self._unknown() from None
        if value is None:
            raise InvalidConfig(f"{self._shown} names a variable that is not set")
        if self._words or not isinstance(value, str):
            raise self._unknown()
        return value

    def _split(self, text: str) -> Iterator[_Word]:
        at = 0
        while at < len(text):
            word = _WORD.match(text, at)
            if word is None:
                raise self._unknown()
            quoted, raw, name, number, mark = word.groups()
            literal = re.sub(r"\\(.)", r"\1", quoted) if quoted else raw or ""
            yield _Word(name or "", mark or "", int(number) if number else literal)
            at = word.end()

    def _pipeline(self) -> _Value:
        value = self._command([])
        while self._words and self._words[-1].mark == "|":
            self._words.pop()
            value = self._command([value])
        return value

    def _command(self, piped: list[_Value]) -> _Value:
        if not self._words:
            raise self._unknown()
        first = self._words[-1]
        if first.name and first.name not in self._facts:
            self._words.pop()
            return self._call(first.name, [*self._terms(), *piped])
        terms = self._terms()
        if len(terms) != 1 or piped:
            raise self._unknown()
        return terms[0]

    def _terms(self) -> list[_Value]:
        found: list[_Value] = []
        while self._words and self._words[-1].mark not in ("|", ")"):
            word = self._words.pop()
            if word.mark:
                found.append(self._pipeline())
                if not self._words or self._words.pop().mark != ")":
                    raise self._unknown()
            elif word.name in self._facts:
                found.append(self._facts[word.name])
            elif word.name:
                raise self._unknown()
            else:
                found.append(word.literal)
        return found

    def _call(self, name: str, given: list[_Value]) -> _Value:
        match (name, given):
            case ("env", [str(key)]):
                return self._environ.get(key)
            case ("file", [str(path)]):
                return self._file(path)
            case ("default", [instead, value]):
                return value or instead
            case ("split", [str(text), str(by)]) if by:
                return text.split(by)
            case ("join", [list(parts), str(by)]):
                return by.join(parts)
            case ("index", [list(parts), int(place)]):
                if place >= len(parts):
                    raise InvalidConfig(f"{self._shown}: there is no part {place} of {len(parts)}")
                return parts[place]
            case (_, [str(text)]) if name in _ON_TEXT:
                return _ON_TEXT[name](text)
            case _ if name in _KNOWN and None in given:
                return None
        raise self._unknown()

    def _file(self, path: str) -> str:
        try:
            raw = read_beginning(Path(path), _MOST_FILE + 1)
            if len(raw) > _MOST_FILE:
                raise InvalidConfig(f"{self._shown}: {path} has more than {_MOST_FILE} bytes")
            return raw.decode().strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise InvalidConfig(f"{self._shown}: can't read {printable(path, 200)}: {why}") from None

    def _unknown(self) -> InvalidConfig:
        return InvalidConfig(
            f"{self._shown} can't be filled in; of what Go's templates may have, {', '.join(_KNOWN)} can"
        )
