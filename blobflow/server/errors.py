"""How the embedded registry says no: distribution-spec, "Error Codes", as values.

A room of the server raises `ApiError`; the app alone turns it into a response. So whatever goes wrong, a
client gets a status from one table and a body of the one form `{"errors": [{"code", "message", "detail"}]}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from blobflow.errors import RegistryError

# Code → status. The codes are the spec's (code-1 … code-14); UNKNOWN is what distribution answers with a 500.
STATUS_OF_CODE: Mapping[str, int] = MappingProxyType(
    {
        "BLOB_UNKNOWN": 404,
        "BLOB_UPLOAD_INVALID": 400,
        "BLOB_UPLOAD_UNKNOWN": 404,
        "DIGEST_INVALID": 400,
        # The spec's table of end-7 leaves room; 400 is what distribution 2 and 3 answer and clients know.
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


class ApiError(RegistryError):
    """A request is refused: for `entries`, with `status` (by default that of the first problem's code)."""

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
        super().__init__(message, status=status or STATUS_OF_CODE[code], code=code)
        self.entries = (ErrorEntry(code, message, detail), *more)
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        return msgspec.json.encode({"errors": self.entries})
