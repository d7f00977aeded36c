"""Carriages and arrivals as bytes, for a carrier whose workers are other processes.

An error goes as what it says and not as an object: its class by name, its message, and its attributes.
Whoever unpacks it imports and runs nothing that the bytes name: a class that is not known here (a newer
worker's) becomes the nearest one that it is derived from, with the same sentence and exit code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from blobflow.content import Site
from blobflow.engine.transfer.carrying import Arrival, Carriage
from blobflow.errors import BlobflowError

# A sentence, with a registry's own words in it, is shorter; what is longer is cut.
MAX_TEXT = 16 * 1024  # characters
# Digests that a registry says it lacks, or mistakes in one file.
MAX_ITEMS = 1000

_Packed = TypeVar("_Packed")
_Plain = str | int | float | bool | None


class PackedError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error in plain values. `kinds`: its class and what that is derived from, the nearest first;
    `facts`: its attributes, tuples as lists."""

    kinds: tuple[str, ...]
    text: str
    facts: dict[str, _Plain | list[_Plain]] = {}
    notes: tuple[str, ...] = ()


class _PackedArrival(msgspec.Struct, frozen=True, omit_defaults=True):
    target: Site
    worker: str = ""
    error: PackedError | None = None


def pack_error(error: BlobflowError) -> PackedError:
    """The error, but for its cause and traceback, which stay behind as when it is pickled. An attribute that
    is neither a plain value nor a sequence of those stays behind too."""
    facts = {name: _plain(value) for name, value in vars(error).items() if name != "__notes__"}
    return PackedError(
        tuple(_name_of(kind) for kind in _kinds(type(error))),
        _text(str(error.args[0])) if error.args else "",
        {name: value for name, value in facts.items() if value is not _LEFT},
        tuple(map(_text, getattr(error, "__notes__", ())[:MAX_ITEMS])),
    )


def unpack_error(packed: PackedError) -> BlobflowError:
    """The error as it was; of the nearest class that is known here."""
    known = {_name_of(kind): kind for kind in _known(BlobflowError)}
    kind = next((known[name] for name in packed.kinds if name in known), BlobflowError)
    error = kind.__new__(kind, packed.text)
    error.message, error.side, error.attempts = packed.text, None, 1
    for name, value in packed.facts.items():
        if not name.startswith("__"):
            setattr(error, name, tuple(value) if isinstance(value, list) else value)
    for note in packed.notes:
        error.add_note(note)
    return error


def pack_carriage(carriage: Carriage) -> bytes:
    """A carriage as msgpack."""
    return msgspec.msgpack.encode(carriage)


def unpack_carriage(packed: bytes) -> Carriage:
    """Raises BlobflowError for what is no carriage."""
    return _decode(packed, Carriage)


def pack_arrivals(arrivals: Sequence[Arrival]) -> bytes:
    """Arrivals as msgpack, with their errors."""
    return msgspec.msgpack.encode(
        [
            _PackedArrival(each.target, each.worker, None if each.error is None else pack_error(each.error))
            for each in arrivals
        ]
    )


def unpack_arrivals(packed: bytes) -> tuple[Arrival, ...]:
    """Raises BlobflowError for what are no arrivals."""
    return tuple(
        Arrival(each.target, None if each.error is None else unpack_error(each.error), each.worker)
        for each in _decode(packed, tuple[_PackedArrival, ...])
    )


def _decode(packed: bytes, kind: type[_Packed]) -> _Packed:
    try:
        return msgspec.msgpack.decode(packed, type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        raise BlobflowError(f"a worker and its coordinator do not understand each other: {error}") from None


_LEFT: Any = object()


def _plain(value: object) -> Any:
    match value:
        case str():
            return _text(value)
        case bool() | int() | float() | None:
            return value
        case tuple() | list() if all(isinstance(each, _Plain) for each in value):
            return [_plain(each) for each in value[:MAX_ITEMS]]
    return _LEFT


def _text(text: str) -> str:
    """What is sent of a text: half of a surrogate pair, as in the name of a file, can't be."""
    return text[:MAX_TEXT].encode(errors="replace").decode()


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _kinds(kind: type[BlobflowError]) -> Iterator[type]:
    return (each for each in kind.__mro__ if issubclass(each, BlobflowError))


def _known(kind: type[BlobflowError]) -> Iterator[type[BlobflowError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _known(each)
