"""The upload methods: the requests by which a blob's bytes are sent. Pure.

    single   PUT with the whole body                            [end-6]
    stream   PATCH with the whole body, then PUT                [end-5] [end-6]
    chunked  PATCH after PATCH with Content-Range, then PUT     [end-5] [end-6]

Each begins with a session (`sessions`). Which are tried, and in which order, is `profiles.method_order`'s
affair. What else the push has to know of a method is asked of its row in `REQUESTS`; only `chunked` is known
by its name elsewhere, as the one that goes on from an offset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from blobflow.transports.registry.capabilities.profiles import UploadMethod


class BodyRequest(NamedTuple):
    """A request that carries `size` bytes of a blob from `start` on. `ranged`: it says which ones."""

    verb: Literal["PATCH", "PUT"]
    start: int
    size: int
    ranged: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What tells the registry which bytes these are."""
        return {"Content-Range": f"{self.start}-{self.start + self.size - 1}"} if self.ranged else {}

    @property
    def commits(self) -> bool:
        """Whether the blob is made by this request, and no PUT follows."""
        return self.verb == "PUT"


# For each method the request that follows when `position` of a blob's `size` bytes have been taken; `chunk`
# is the size that a chunk may have.
REQUESTS: dict[UploadMethod, Callable[[int, int, int], BodyRequest]] = {
    "single": lambda position, size, chunk: BodyRequest("PUT", position, size - position),
    "stream": lambda position, size, chunk: BodyRequest("PATCH", position, size - position),
    "chunked": lambda position, size, chunk: BodyRequest(
        "PATCH", position, min(chunk, size - position), ranged=True
    ),
}


def next_request(method: UploadMethod, position: int, size: int, chunk: int) -> BodyRequest | None:
    """The request for the next bytes of a blob; None if all were taken, and only the commit is left."""
    return REQUESTS[method](position, size, chunk) if position < size else None


def whole_request(method: UploadMethod, size: int) -> BodyRequest:
    """The request with the whole of a blob that the registry has nothing of, without chunks."""
    return REQUESTS[method](0, size, size)


def is_one_request(method: UploadMethod) -> bool:
    """Whether the request that brings a whole blob makes it, too."""
    return whole_request(method, 0).commits


def choose_method(
    methods: Sequence[UploadMethod], *, offset: int, size: int, largest_request: int
) -> UploadMethod:
    """The method for a session: chunks where it has a part of the blob already, or where the registry or the
    way to it takes no more than a part at once."""
    if offset or (size > largest_request and "chunked" in methods):
        return "chunked"
    return methods[0]
