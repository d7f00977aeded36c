"""Learns how large requests to a host may be from broken and refused uploads.

`request_size` holds the size; here is judged which end of a request says something of it, and what was lost
of each blob. One object a host, shared by all its pushes.
"""

from __future__ import annotations

from blobflow.errors import BlobflowError, ConnectionLost, Rejected
from blobflow.oci import Descriptor, Digest
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.uploads.failures import advise_probe, ended_by_size
from blobflow.transports.registry.uploads.methods import is_one_request
from blobflow.transports.registry.uploads.request_size import TELLING, RequestSize
from blobflow.transports.registry.uploads.sessions import UploadSession

# A blob that lost so large a part of itself by breaks goes by the smallest chunks.
TOO_MUCH_LOST = 4


class SizeLearner:
    """See above. `size` is what is to be gone by."""

    def __init__(self, size: RequestSize, client: HostClient) -> None:
        self.size = size
        self._client = client
        self._losses: dict[tuple[str, Digest], tuple[int, int]] = {}

    def ended(self, error: BlobflowError, session: UploadSession, blob: Descriptor) -> bool:
        """Whether the session's last request ended because of its size, and a smaller one is left to try."""
        size = session.request_size
        if isinstance(error, Rejected) and error.status == 413:
            # A PUT may be bounded where PATCH is not. What took a chunk as large before, or is the registry's
            # own word, is about the blob.
            bounded = session.method is not None and is_one_request(session.method)
            if bounded or not size or size <= session.offset or error.code:
                return False
            self.size.refused(size)
        elif size and (reason := ended_by_size(error, all_sent=session.request_sent == size)):
            self.lost(session, blob, reason)
        else:
            return False
        return max(self.size.chunk_bytes, session.chunk_floor) < size

    def broke(self, session: UploadSession, error: BaseException | None) -> bool:
        """Whether the connection broke under a request. Where two in a row did so at about the same byte,
        something lets no more than so much through."""
        if error is session.source_error or not isinstance(error, ConnectionLost):
            return False
        if 0 < session.request_sent < session.request_size and self.size.ended_alike(session.request_sent):
            self.size.broke(session.request_size, session.request_sent)
        return True

    def lost(self, session: UploadSession, blob: Descriptor, reason: str = "") -> None:
        """A request broke, and what had been sent to its session is lost. `reason`: what it ended with, where
        that speaks of its size; without one, the first break of a blob teaches nothing yet."""
        key = session.repository, blob.digest
        times, lost = self._losses.get(key, (0, 0))
        self._losses[key] = times, lost = times + 1, lost + session.sent
        if session.request_sent < TELLING or (times == 1 and not reason):
            return
        if times > 1 and lost > blob.size // TOO_MUCH_LOST:
            self.size.shrink_most()  # to look for the largest that passes would cost more
        self.size.broke(session.request_size, session.request_sent, reason)

    def nothing_counted(self, session: UploadSession) -> None:
        """A chunk broke, and the registry has nothing of it: the line is too bad for chunks of this size."""
        self.size.broke(session.request_size, session.request_size)

    def passed(self, session: UploadSession, size: int) -> None:
        """A chunk of `size` bytes arrived. If refusals taught that size, the user is warned."""
        if reason := self.size.passed(size):
            host = self._client.host
            self._client.warn(
                f"larger requests to {host} ended with {reason}, so blobs go there by chunks of"
                f" {size / 1e6:.1f} MB; {advise_probe(f'{host}/{session.repository}')}"
            )

    def arrived(self, repository: str, digest: Digest) -> None:
        """The blob is there: what it lost is of no account any more."""
        self._losses.pop((repository, digest), None)
