"""What a proof that fails says: how far it came, and why it is none. Pure."""

from __future__ import annotations

import enum
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from blobflow.printable import one_line

# The filters of warnings are those of all threads: the first to put them back would show those of a second.
_filters = threading.RLock()


class Step(enum.IntEnum):
    """What is proven of a signature, one after the other. The one that fails last came closest."""

    READABLE = 0
    SIGNER = 1
    LOGGED = 2
    TIME = 3
    IMAGE = 4
    NAME = 5


class NotProven(Exception):
    """A signature does not prove what is required. `reason`: a clause about "it", the signature."""

    def __init__(self, step: Step, reason: str) -> None:
        super().__init__(reason)
        self.step = step
        self.reason = reason


@contextmanager
def refusing(step: Step, what: str) -> Iterator[None]:
    """Whatever a library raises over bytes of strangers means that nothing is proven by them: parsers of
    certificates, timestamps and bundles have errors of their own, and some that their authors did not
    mean."""
    try:
        yield
    except NotProven:
        raise
    except Exception as error:
        raise NotProven(step, f"{what}: {one_line(str(error) or type(error).__name__)}") from error


@contextmanager
def without_warnings() -> Iterator[None]:
    """Libraries warn of odd certificates on standard error, past everything that prints for people. No
    verdict follows from it."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
