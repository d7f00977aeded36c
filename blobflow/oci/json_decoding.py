"""Decodes untrusted JSON into our types as Go's decoder reads it: a null is an absent field.

Most of what registries and builders write comes out of Go, where an empty list or map is encoded as null and
read back as nothing. A null in an object is therefore left out; one in an array, which has to be something,
is as Go has it an empty object among objects, else an empty string: where that says too little it is refused.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

# Commas, objects and arrays of a document whose nulls are taken out: they are held as values for that. A
# manifest of 20,000 children has about as many.
MAX_PARTS = 400_000


def decode(raw: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode with `decoder`. Costs nothing more where no null is in the way.

    Raises msgspec.DecodeError, ValueError or RecursionError for what is not of its type.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        if b"null" not in raw or raw.count(b",") + raw.count(b"{") + raw.count(b"[") > MAX_PARTS:
            raise
    return decoder.decode(msgspec.json.encode(without_nulls(msgspec.json.decode(raw))))


def without_nulls(value: Any) -> Any:
    """A decoded document, or a part of one, with its nulls taken out."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        zero: Any = {} if any(isinstance(each, dict) for each in value) else ""
        return [zero if each is None else without_nulls(each) for each in value]
    return value
