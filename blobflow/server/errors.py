"""The registry's error responses (distribution-spec, "Error Codes"), as values.

An endpoint raises `ApiError`; the application alone turns it into a response. So a client always gets a
status from one table and a body of the one form `{"errors": [{"code", "message", "detail"}]}`.

These errors are the server's own. What the store and the upstreams raise (`blobflow.errors`) ends at the code
that calls them, which says what a client is to know of it; the application answers for the store where nobody
else does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

# Code → status. The codes are the spec's (code-1 … code-14); UNKNOWN is what distribution answers with a 500.
STATUS_OF_CODE: Mapping[str, int] = MappingProxyType(
    {
        "BLOB_UNKNOWN": 404,
        "BLOB_UPLOAD_INVALID": 400,
        "BLOB_UPLOAD_UNKNOWN": 404,
        "DIGEST_INVALID": 400,
        # The spec's table of end-7 leaves it open; 400 is what distribution 2 and 3 answer and clients know.
        "MANIFEST_BLOB_UNKNOWN": 400,
        "MANIFEST_INVALID": 400,
        "MANIFEST_UNKNOWN": 404,
        "NAME_INVALID": 400,
        "NAME_UNKNOWN": 404,
        "SIZE_INVALID": 400,
        "UNAUTHORIZED": 401,
        "DENIED": 403,
        "UNSUPPORTED": 405,
        "TOOMANYREQUESTS": 429,
        "UNKNOWN": 500,
    }
)


class ErrorEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of an error body. `detail` is any JSON value that lets a client go on."""

    code: str
    message: str
    detail: str | Mapping[str, str] | None = None


class ApiError(Exception):
    """The answer to a request that can't be served: `entries`, the first of which has `code` and `message`.

    `status` is by default that of the code; `headers` go out with the answer. It can be pickled and copied,
    and keeps its attributes: several requests may wait for one answer of an upstream.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        detail: str | Mapping[str, str] | None = None,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        more: Sequence[ErrorEntry] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status or STATUS_OF_CODE[code]
        self.entries = (ErrorEntry(code, message, detail), *more)
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        return msgspec.json.encode({"errors": self.entries})

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own calls the class with `args`, which are not the arguments of this one.
        return _without_init, (type(self), self.args), self.__dict__.copy()


def _without_init(kind: type[ApiError], args: tuple[Any, ...]) -> ApiError:
    """An error whose `__init__` has not run; what that would set comes with the state."""
    return kind.__new__(kind, *args)
