"""The errors of blobflow, as one tree.

    BlobflowError              1   anything below, when nothing more exact fits
      UsageError               2   what was asked for can't be asked for
        InvalidReference
        InvalidDigest
        InvalidConfig
          InvalidFile            several things at once are wrong with one file
          ForeignFile          7   a file that is no saved plan, as one that is no archive
          DamagedFile          8   a saved plan that was cut or edited, as an archive that was
      RunIncomplete            3   a run over a set ended with failures (each is in its report)
        RunCutShort              a run was told to end before it had what its result is made of
      NetworkError             4   retryable: no whole answer came
        ConnectFailed
          UntrustedPeer            not retryable: the same certificate would come again
          ProxyRefused             not retryable: the forward proxy wants a login, or forbids the host
        TimedOut
        ConnectionLost
        EngineLost               not retryable: who brings the blobs elsewhere is gone
      RegistryError            5   an answer came, and it says no
        NotFound
          NoSuchFile           2   no such archive, layout or part of a bundle: as a missing list is
          NoSuchPlatform           an image for other platforms than those that were chosen
        Unauthorized
        Denied
        Throttled                  retryable, after `retry_after` seconds if given
        Unavailable                retryable: 5xx
        Rejected                   the content or request was refused; `missing` digests if told
        ProtocolViolation          the answer breaks the distribution spec
      IntegrityError           6   bytes are not what their digest or size says
        DigestMismatch
        SizeMismatch
      SignatureRejected        9   the signature policy does not accept an image
      UnsupportedContent       7   a manifest media type that we can't read
      StorageError             8   the store, an archive, a layout: full, read-only, corrupt
        StorageFull                no room: a disk, a quota, a limit on the size of files
        StoreLeft                  retryable: past the store
        StalePartial               retryable: from the start

The number is the exit code of a verb about one image; verbs about sets exit with 3.

An error is one sentence that names the side, the thing and what to do, plus facts as attributes. Foreign
exceptions (aiohttp's, OSError) are translated where they enter, so nothing above a transport sees one.
Secrets and query strings never get into a message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, TypeVar

Side = Literal["source", "target"]
AnyError = TypeVar("AnyError", bound=BaseException)


class BlobflowError(Exception):
    """Root of the tree.

    `side` is filled in by the engine, which alone knows which end it was talking to; a transport leaves it
    None. `attempts` counts how often the thing was tried in all. `about_file`: an archive or layout as such
    can't be read, not one of its images.

    Errors can be pickled and copied, and keep their type, message and attributes; the cause and the traceback
    stay behind, as with every exception of Python.
    """

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    about_file = False

    def __init__(self, message: str, *, side: Side | None = None, attempts: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.side: Side | None = side
        self.attempts = attempts

    def __str__(self) -> str:
        head = f"{self.side}: " if self.side else ""
        tail = f" (after {self.attempts} attempts)" if self.attempts > 1 else ""
        return f"{head}{self.message}{tail}"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own calls the class with `args`, and not every class here takes a message alone.
        return _blank, (type(self), self.args), self.__dict__.copy()


class UsageError(BlobflowError):
    exit_code = 2


class InvalidReference(UsageError):
    """A string that is no reference; the message holds the string and the rule that it breaks."""


class InvalidDigest(UsageError):
    """A string that is no digest of an algorithm we verify (sha256, sha512)."""


class InvalidConfig(UsageError):
    """A spec, list, plan or configuration file that can't be used; the message names file and place."""


class InvalidFile(InvalidConfig):
    """A file with several errors; `errors` has a sentence for each, with its line, and may end in one that
    says how many more there are. The message is all of them."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = tuple(errors)


class ForeignFile(InvalidConfig):
    """A file that should be what blobflow saved, and is something else."""

    exit_code = 7


class DamagedFile(InvalidConfig):
    """A file that blobflow saved, and that is not as it was: cut off, edited, spoilt."""

    exit_code = 8


class RunIncomplete(BlobflowError):
    """A run over a set ended, and not everything arrived."""

    exit_code = 3


class RunCutShort(RunIncomplete):
    """A run was wound down before everything was there that what it makes consists of, so there is nothing.
    On the command line a signal did that, and the command ends as interrupted."""


class NetworkError(BlobflowError):
    exit_code = 4
    retryable = True


class ConnectFailed(NetworkError):
    """No connection: refused, unreachable, unknown host, failed TLS handshake.

    `elsewhere`: not with the registry itself, but with a host that it sent us to.
    """

    elsewhere = False


class UntrustedPeer(ConnectFailed):
    """TLS with the peer failed: its certificate is not trusted, or it does not speak TLS at all."""

    retryable = False


class ProxyRefused(ConnectFailed):
    """The forward proxy won't let us through: it wants a login, or forbids the host."""

    retryable = False


class TimedOut(NetworkError):
    """Connected, but no byte moved for the progress timeout."""


class ConnectionLost(NetworkError):
    """The connection broke inside a message: `received` of `expected` bytes (None: unknown)."""

    def __init__(
        self, message: str, *, received: int = 0, expected: int | None = None, side: Side | None = None
    ) -> None:
        super().__init__(message, side=side)
        self.received = received
        self.expected = expected


class EngineLost(NetworkError):
    """What carried the blobs of a run on other machines can't be reached any more: the run ends, and the same
    command goes on."""

    retryable = False


class RegistryError(BlobflowError):
    """The registry answered, and not with what was asked.

    `status` is the HTTP status, `code` the distribution spec's error code if the body had one, `detail` the
    registry's own words, bounded and stripped of control characters. `method`: of the request that was
    answered so; "" where no single answer said it. `cached`: that the answer came from a cache, and how old
    it was, if that said so; `maybe_cached`: it came through something that can keep answers.
    """

    exit_code = 5
    method = ""
    cached = ""
    maybe_cached = False

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        detail: str = "",
        side: Side | None = None,
    ) -> None:
        super().__init__(message, side=side)
        self.status = status
        self.code = code
        self.detail = detail


class NotFound(RegistryError):
    pass


class NoSuchFile(NotFound):
    """A file or folder that should hold images is not there. No registry was asked, so it is a mistake of
    usage to whoever ran a command; to whoever reads content, it is content that is missing."""

    exit_code = 2


class NoSuchPlatform(NotFound):
    """An image is for other platforms than those that were chosen; the message says for which."""


class Unauthorized(RegistryError):
    pass


class Denied(RegistryError):
    pass


class Throttled(RegistryError):
    """429. `retry_after`: seconds the registry asked us to wait, None if it did not say."""

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None, status: int = 429) -> None:
        super().__init__(message, status=status)
        self.retry_after = retry_after


class Unavailable(RegistryError):
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        status: int = 503,
        code: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(message, status=status, code=code, detail=detail)
        self.retry_after = retry_after


class Rejected(RegistryError):
    """The registry refused content. `missing`: digests that it says it lacks (MANIFEST_BLOB_UNKNOWN)."""

    def __init__(
        self, message: str, *, missing: Sequence[str] = (), status: int = 0, code: str = "", detail: str = ""
    ) -> None:
        super().__init__(message, status=status, code=code, detail=detail)
        self.missing = tuple(missing)


class ProtocolViolation(RegistryError):
    pass


class IntegrityError(BlobflowError):
    exit_code = 6


class DigestMismatch(IntegrityError):
    """Bytes hashed to `actual`, not to the `expected` digest that names them."""

    def __init__(self, what: str, *, expected: str, actual: str, side: Side | None = None) -> None:
        super().__init__(f"{what} has digest {actual}, expected {expected}", side=side)
        self.expected = expected
        self.actual = actual


class SizeMismatch(IntegrityError):
    """Another number of bytes came than the descriptor says. Both in bytes."""

    def __init__(self, what: str, *, expected: int, actual: int, side: Side | None = None) -> None:
        super().__init__(f"{what} has {actual} bytes, expected {expected}", side=side)
        self.expected = expected
        self.actual = actual


class SignatureRejected(BlobflowError):
    """The signature policy does not accept an image; the message says what is not met, and why."""

    exit_code = 9


class UnsupportedContent(BlobflowError):
    exit_code = 7


class StorageError(BlobflowError):
    exit_code = 8


class StorageFull(StorageError):
    """There is no room for what should be written."""


class StoreLeft(StorageError):
    """The store failed under a blob that can do without: the next attempt goes past it."""

    retryable = True


class StalePartial(StorageError):
    """A download went on from bytes found on disk, and they turned out not to be the blob's.

    The source is not to blame. The bytes are dropped, so the next attempt starts from none.
    """

    retryable = True


def own_copy(error: AnyError) -> AnyError:
    """A copy of an error that is kept (in a memo, a shared task), to be raised to one of its readers.

    Raising one object to many readers lengthens its traceback with each of them, keeps their frames alive,
    and shows each what another wrote on it (`side`, `attempts`). A copy has the type, message, attributes,
    notes, cause and context of the original, and its traceback up to here: the reader's frames come before
    those of where it happened, and go with the copy. An exception of another library that can't be copied
    is returned itself.
    """
    try:
        # Not by `copy`, which goes by what tblib registers for all exceptions once Dask is imported: with
        # 3.2.2, a UnicodeDecodeError loses its text.
        made = error.__reduce_ex__(4)
        own: Any = made[0](*made[1]) if isinstance(made, tuple) else error
        if len(made) > 2 and made[2]:
            own.__setstate__(made[2])
    except Exception:  # noqa: BLE001  any class may refuse in its own way, and the error itself counts more
        return error
    if own is error or type(own) is not type(error):
        return error
    if hasattr(error, "__notes__"):
        own.__notes__ = [*error.__notes__]
    own.__cause__, own.__context__ = error.__cause__, error.__context__
    own.__suppress_context__ = error.__suppress_context__
    copied: AnyError = own.with_traceback(error.__traceback__)
    return copied


def without_frames(error: AnyError) -> AnyError:
    """The error itself, without the traceback, and without those of what led to it: for one of many that are
    kept. Frames hold what they worked on, such as the manifest of megabytes that was refused."""
    met: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop()
        if each is not None and id(each) not in met:
            met.add(id(each))
            each.__traceback__ = None
            todo += (each.__cause__, each.__context__)
    return error


def _blank(kind: type[BlobflowError], args: tuple[Any, ...]) -> BlobflowError:
    """An error of a class whose `__init__` has not run; what it would set comes with the state."""
    return kind.__new__(kind, *args)


@contextmanager
def error_side(side: Side) -> Iterator[None]:
    """Name the side in an error that passes, unless it is named already."""
    try:
        yield
    except BlobflowError as error:
        error.side = error.side or side
        raise
