"""Go's templates, as far as regsync.yml has use for them. Pure, but for the files that they name.

    {{env "HUB_USER"}}   {{file "/run/secrets/token"}}   {{ env "HOST" | default "docker.io" | lower }}

Functions are `env`, `file`, `default`, `lower`, `upper` and `trimSpace`, in pipelines; `.Sync.Source` and its
like name a fact. A variable that is not set, or a file that can't be read, is an error, where regsync goes on
with nothing: a login without its password would be refused far from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from blobflow.errors import InvalidConfig
from blobflow.visible import visible

_TEMPLATE = re.compile(r"(?:\s*\{\{-(?=\s)|\{\{)(.*?)(?:(?<=\s)-\}\}\s*|\}\})", re.DOTALL)
_COMMENT = re.compile(r"/\*.*\*/\Z", re.DOTALL)
_WORD = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|`([^`]*)`|(\.?[A-Za-z][A-Za-z0-9.]*)|(\|))')
_MOST = 4096  # characters of a value with templates in it
_MOST_FILE = 64 * 1024  # bytes; a secret, and no more
_ON_TEXT: dict[str, Callable[[str], str]] = {"lower": str.lower, "upper": str.upper, "trimSpace": str.strip}
_KNOWN = ("env", "file", "default", *_ON_TEXT)


def filled(text: str, environ: Mapping[str, str], facts: Mapping[str, str] | None = None) -> str:
    """The text with its templates filled in; `facts`: what names with a dot stand for.

    Raises InvalidConfig for one that can't be filled in.
    """
    if "{{" not in text:
        return text
    if len(text) > _MOST:
        raise InvalidConfig(f"a value with a template has at most {_MOST} characters, this one {len(text)}")

    def fill(found: re.Match[str]) -> str:
        inner = found[1].strip()
        shown = f"the template `{visible(found[0].strip(), 80)}`"
        return "" if _COMMENT.match(inner) else _Pipeline(shown, environ, facts or {}).run(inner)

    return _TEMPLATE.sub(fill, text)


class _Pipeline:
    def __init__(self, shown: str, environ: Mapping[str, str], facts: Mapping[str, str]) -> None:
        self._shown = shown
        self._environ = environ
        self._facts = facts

    def run(self, text: str) -> str:
        value, commands = None, self._commands(text)
        for number, command in enumerate(commands):
            value = self._call(command, [value] if number else [])
        if value is None:
            raise InvalidConfig(f"{self._shown} names a variable that is not set")
        return value

    def _commands(self, text: str) -> list[list[tuple[str, bool]]]:
        """Words by command, each with whether it is a text in quotes."""
        commands: list[list[tuple[str, bool]]] = [[]]
        at = 0
        while at < len(text):
            word = _WORD.match(text, at)
            if word is None:
                raise self._unknown()
            quoted, raw, name, bar = word.groups()
            if bar:
                commands.append([])
            else:
                literal = raw if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                commands[-1].append((name, False) if name else (literal, True))
            at = word.end()
        if not all(commands):
            raise self._unknown()
        return commands

    def _call(self, command: list[tuple[str, bool]], piped: list[str | None]) -> str | None:
        (name, literal), *more = command
        given = [self._plain(*each) for each in more] + piped
        match (name, given):
            case _ if literal and not given:
                return name
            case ("env", [str(key)]):
                return self._environ.get(key)
            case ("file", [str(path)]):
                return self._file(path)
            case ("default", [instead, value]):
                return value or instead
            case (_, [None]):
                return None
            case (_, [str(value)]) if name in _ON_TEXT and not literal:
                return _ON_TEXT[name](value)
            case (_, []) if name in self._facts:
                return self._facts[name]
        raise self._unknown()

    def _plain(self, word: str, literal: bool) -> str:
        if literal:
            return word
        if word in self._facts:
            return self._facts[word]
        raise self._unknown()

    def _file(self, path: str) -> str:
        try:
            with Path(path).open("rb") as file:
                raw = file.read(_MOST_FILE + 1)
            if len(raw) > _MOST_FILE:
                raise InvalidConfig(f"{self._shown}: {path} has more than {_MOST_FILE} bytes")
            return raw.decode().strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise InvalidConfig(f"{self._shown}: can't read {visible(path, 200)}: {why}") from None

    def _unknown(self) -> InvalidConfig:
        return InvalidConfig(
            f"{self._shown} can't be filled in; of what Go's templates may have, {', '.join(_KNOWN)} can"
        )
