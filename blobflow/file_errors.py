"""Collects what is wrong with a file that a person wrote, so that one reading tells all of it.

errors = FileErrors()
with errors.at("mirror.yaml line 3", line=3):
    ...                                   # a UsageError in here is kept, with its place
errors.check()                            # and raised here, with all the others
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blobflow.errors import InvalidConfig, InvalidDigest, InvalidFile, InvalidReference, UsageError

# Errors of one file that are listed; a file of another kind has one on each of its lines.
MAX_LISTED = 20
# Errors of which it is known whether they were said before, which two readers of one value may do.
_MAX_TOLD_APART = 10_000


class FileErrors:
    """The errors of one file. Truthy once there is one."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[bool, int, UsageError]] = {}
        self._said: set[int] = set()
        self._unlisted = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, error: UsageError, *, line: int = 0, typo: bool = False) -> None:
        """Keep an error of this line (from 1; 0: of the whole file). A `typo`, which may be the cause of
        others, is listed before all else, and in place of what is none where there are too many. What was
        said already counts once."""
        if (said := hash(error.message)) in self._said:
            return
        if len(self._said) < _MAX_TOLD_APART:
            self._said.add(said)
        self._found[error.message] = (not typo, line, error)
        if len(self._found) > MAX_LISTED:
            last = max(self._found, key=lambda message: self._found[message][:2])
            del self._found[last]
            self._unlisted += 1

    @contextmanager
    def at(self, where: str, *, line: int = 0) -> Iterator[None]:
        """Keep the error about the input that is raised inside, with `where` before its message."""
        try:
            with errors_located_at(where):
                yield
        except UsageError as error:
            self.add(error, line=line)

    def check(self) -> None:
        """Raise what was found: one error as it is, several as an InvalidFile, typing mistakes first and the
        others by line."""
        found = sorted(self._found.values(), key=lambda each: each[:2])
        if len(found) == 1:
            raise found[0][2]
        if found:
            more = [f"and {self._unlisted} more like these"] if self._unlisted else []
            raise InvalidFile([*(error.message for *_, error in found), *more])


@contextmanager
def errors_located_at(where: str) -> Iterator[None]:
    """Put `where` before the message of an error about the input that is raised inside."""
    try:
        yield
    except (InvalidReference, InvalidDigest) as error:
        raise InvalidReference(f"{where}: {error}") from None
    except InvalidConfig as error:
        raise InvalidConfig(f"{where}: {error}") from None
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
