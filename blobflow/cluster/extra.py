"""What needs the extra `blobflow[dask]`: imported where it is used, and a sentence where it is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blobflow.errors import UsageError


@contextmanager
def with_extra(what: str) -> Iterator[None]:
    """While `what` is imported, which is an option or a verb. Raises UsageError without the extra."""
    try:
        yield
    except ImportError as error:
        if error.name is not None and error.name.startswith("blobflow"):
            raise
        raise UsageError(
            f'{what} needs Dask: pip install "blobflow[dask]" ({error.name or error} is missing or too old)'
        ) from None
