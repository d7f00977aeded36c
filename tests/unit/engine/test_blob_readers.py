"""Readers that read from the start, whatever offset they are asked for."""

from __future__ import annotations

import pytest

from blobflow.engine.blob_readers import WholeReader
from blobflow.errors import DigestMismatch
from tests.fakes.registry import Bytes, blob_of, collect

CONTENT = bytes(range(256)) * 1000


@pytest.mark.parametrize("offset", [0, 1, 65_536, 65_537, len(CONTENT) - 1, len(CONTENT)])
async def test_a_reader_that_goes_on_gets_the_rest_and_everything_is_hashed(offset: int) -> None:
    body = Bytes(CONTENT)
    async with WholeReader(body).open(offset) as chunks:
        assert await collect(chunks) == CONTENT[offset:]
    assert (body.opened, body.closed) == ([0], 1)


async def test_a_prefix_that_changed_withholds_the_end() -> None:
    """What lies below the offset was sent before; at the source it is something else by now."""
    body = Bytes(b"!" + CONTENT[1:], blob=blob_of(CONTENT))
    with pytest.raises(DigestMismatch):
        async with WholeReader(body).open(100_000) as chunks:
            await collect(chunks)
