"""TOML that people write: its document, and the lines of its keys, which its parser does not tell. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from blobflow.errors import InvalidConfig

# Lines of one value that are put together: a longer one has its line found at its table.
_LONGEST = 200

_Path = tuple[str | int, ...]


def parse_toml(text: str, name: str, kind: str) -> dict[str, Any]:
    """What a text says. Raises InvalidConfig; `name` is what the text is called there, `kind` what it should
    be ("a rule file")."""
    try:
        return tomllib.loads(text)
    except ValueError as error:  # beside TOML's own: a number of thousands of digits
        raise InvalidConfig(f"{name} is not TOML: {error}") from None
    except RecursionError:
        raise InvalidConfig(f"{name} is nested too deeply to be {kind}") from None


class TomlLines:
    """Lines of a text that `tomllib` reads, found when they are first asked for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[_Path, int] | None = None

    def line(self, path: Sequence[str | int]) -> int:
        """The line, from 1, of a key, or an item of a list; of what is nearest above it, where it has none
        of its own; 0 if there is nothing."""
        if self._found is None:
            self._found = _find(self._text)
        where = tuple(path)
        while where and where not in self._found:
            where = where[:-1]
        return self._found.get(where, 0)

    def rename(self, path: Sequence[str | int], key: str) -> None:
        """Find the line of a misspelt key under the right one, too."""
        line = self.line(path)
        if self._found is not None:
            self._found[(*path[:-1], key)] = line


def _find(text: str) -> dict[_Path, int]:
    lines = text.split("\n")
    found: dict[_Path, int] = {}
    counts: dict[_Path, int] = {}
    here: _Path = ()
    at = 0
    while at < len(lines):
        begin, first = at, lines[at].strip()
        at += 1
        if not first or first.startswith("#"):
            continue
        is_header = first.startswith("[")
        value, at = _statement(lines, begin, 1 if is_header else _LONGEST)
        if is_header:
            here = _header(value, counts, is_list=first.startswith("[["))
            found.setdefault(here, begin + 1)
            for end in range(1, len(here)):
                found.setdefault(here[:end], begin + 1)
        else:
            _note(value, here, begin + 1, found)
    return found


def _statement(lines: Sequence[str], begin: int, most: int) -> tuple[dict[str, object], int]:
    """What the statement that begins in a line says, and the line after it."""
    for end in range(begin + 1, min(begin + most, len(lines)) + 1):
        try:
            return tomllib.loads("\n".join(lines[begin:end])), end
        except (ValueError, RecursionError):
            continue
    return {}, begin + 1


def _header(value: object, counts: dict[_Path, int], *, is_list: bool) -> _Path:
    """The path of a table's header; a list of tables is numbered."""
    keys: list[str] = []
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        keys.append(key)
    path: _Path = ()
    for number, key in enumerate(keys):
        path = (*path, key)
        if is_list and number == len(keys) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _note(value: object, above: _Path, line: int, found: dict[_Path, int]) -> None:
    """Note the line for all keys and items of a value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        found.setdefault((*above, key), line)
        _note(below, (*above, key), line, found)
