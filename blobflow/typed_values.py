"""Checks plain values (of YAML, TOML or JSON) against types, and finds all that does not fit. Pure.

msgspec converts, and stops at the first mistake. Here each key and item is looked at by itself, so that all
mistakes of a file are found in one reading, and what is right of it can still be looked at more closely.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import msgspec

from blobflow.validation_messages import closest, split_message

T = TypeVar("T")
Path = tuple[str | int, ...]

_DROPPED = object()
# Mistakes after which nothing more is looked at: it is a file of another kind, or made to be looked at long.
_MOST = 1000


class Mistake(msgspec.Struct, frozen=True):
    """Something that does not fit its type.

    `path`: the keys and indexes that lead there. `problem`: msgspec's words. `unknown`: a key of the mapping
    at `path` that is not among `known`, and `meant` the one that it is taken for; `below`: the
    keys that are known under each of these. `words`: those that fit there, if only certain ones do.
    """

    path: Path
    problem: str
    unknown: str = ""
    known: tuple[str, ...] = ()
    meant: str = ""
    below: dict[str, tuple[str, ...]] = {}
    words: tuple[str, ...] = ()


class Checked(msgspec.Struct, frozen=True):
    """The value that is right, or None if nothing is left of it; and the mistakes.

    `dropped`: the items of lists that are left out of it, by their paths in what was checked.
    """

    value: Any
    mistakes: tuple[Mistake, ...]
    dropped: tuple[Path, ...]


def check_value(value: object, kind: type[T], *, strict: bool = True) -> Checked:
    """Check a plain value against a type that msgspec can convert to, and convert what fits of it.

    Keys and items that don't fit are left out. A key that is not known, and close to an absent one that is,
    is taken for that, so that nothing is said to be missing that is only misspelt. `strict`: see
    `msgspec.convert`; without it the text `3` is a number.
    """
    walk = _Walk(strict)
    fitting = walk.fit(value, kind, ())
    if fitting is _DROPPED:
        return Checked(None, tuple(walk.mistakes), tuple(walk.dropped))
    try:
        return Checked(
            msgspec.convert(fitting, kind, strict=strict), tuple(walk.mistakes), tuple(walk.dropped)
        )
    except msgspec.ValidationError as error:  # a rule for a whole container, such as its least length
        problem, path = split_message(str(error))
        mistake = Mistake((path.lstrip("."),) if path else (), problem)
        return Checked(None, (*walk.mistakes, mistake), tuple(walk.dropped))


class _Walk:
    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self.mistakes: list[Mistake] = []
        self.dropped: list[Path] = []

    def fit(self, value: object, kind: Any, path: Path) -> Any:
        """What fits of a value; _DROPPED if nothing does."""
        if len(self.mistakes) >= _MOST:
            return _DROPPED
        below = _container_for(value, kind)
        if below is None:
            return self._leaf(value, kind, path)
        if isinstance(value, list):
            return self._items(value, below, path)
        assert isinstance(value, dict)
        if isinstance(below, type) and issubclass(below, msgspec.Struct):
            return self._fields(value, below, path)
        fitting = {
            key: self.fit(each, typing.get_args(below)[1], (*path, key)) for key, each in value.items()
        }
        return {key: each for key, each in fitting.items() if each is not _DROPPED}

    def _leaf(self, value: object, kind: Any, path: Path) -> Any:
        try:
            msgspec.convert(value, kind, strict=self._strict)
        except msgspec.ValidationError as error:
            problem, _ = split_message(str(error))
            self.mistakes.append(Mistake(path, problem, words=tuple(_words(kind))))
            return _DROPPED
        return value

    def _items(self, value: list[object], kind: Any, path: Path) -> list[Any]:
        item = typing.get_args(kind)[0]
        fitting = []
        for index, each in enumerate(value):
            one = self.fit(each, item, (*path, index))
            if one is _DROPPED:
                self.dropped.append((*path, index))
            else:
                fitting.append(one)
        return fitting

    def _fields(self, value: dict[Any, object], kind: type[msgspec.Struct], path: Path) -> Any:
        fields, hints = {field.encode_name: field for field in msgspec.structs.fields(kind)}, _hints(kind)
        fitting: dict[str, Any] = {}
        met: set[str] = set()
        for key, each in value.items():
            name = str(key)
            if name not in fields:
                meant = closest(name, fields) or ""
                meant = "" if meant in value or meant in met else meant
                below = {field: _keys_below(hints[fields[field].name]) for field in fields}
                self.mistakes.append(
                    Mistake(path, "", unknown=name, known=tuple(fields), meant=meant, below=below)
                )
                if not meant:
                    continue
                name = meant
            met.add(name)
            one = self.fit(each, hints[fields[name].name], (*path, str(key)))
            gone = one is _DROPPED or (one == [] and each != [] and not fields[name].required)
            if not gone:
                fitting[name] = one
        whole = True
        for name, field in fields.items():
            if field.required and name not in fitting:
                whole = False
                if name not in met:
                    self.mistakes.append(Mistake(path, f"Object missing required field `{name}`"))
        return fitting if whole else _DROPPED


@cache
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _alternatives(kind: Any) -> Iterator[Any]:
    """The types of a union, each without what annotates it."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        yield from _alternatives(typing.get_args(kind)[0])
    elif origin in (typing.Union, types.UnionType):
        for each in typing.get_args(kind):
            yield from _alternatives(each)
    else:
        yield kind


def _container_for(value: object, kind: Any) -> Any:
    """The alternative of a type whose keys or items those of the value have to be; None for a scalar, or
    where there is none."""
    fits: Callable[[Any], bool]
    if isinstance(value, dict):

        def fits(each: Any) -> bool:
            return typing.get_origin(each) is dict or (
                isinstance(each, type) and issubclass(each, msgspec.Struct)
            )
    elif isinstance(value, list):

        def fits(each: Any) -> bool:
            return typing.get_origin(each) in (tuple, list)
    else:
        return None
    return next(filter(fits, _alternatives(kind)), None)


def _keys_below(kind: Any) -> tuple[str, ...]:
    """The keys of a mapping that a value of this type may be."""
    structs = (each for each in _alternatives(kind) if isinstance(each, type))
    return tuple(
        field.encode_name
        for each in structs
        if issubclass(each, msgspec.Struct)
        for field in msgspec.structs.fields(each)
    )


def _words(kind: Any) -> Iterator[str]:
    for each in _alternatives(kind):
        if typing.get_origin(each) is typing.Literal:
            yield from map(str, typing.get_args(each))


def path_text(path: Sequence[str | int]) -> str:
    """Keys and indexes as people write them: `images[1].tags[0]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
