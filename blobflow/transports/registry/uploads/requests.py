"""The requests of a push, by the distribution-spec's numbers. Pure."""

from __future__ import annotations

from yarl import URL

from blobflow.oci import Descriptor, Digest
from blobflow.oci.digest import algorithm_of
from blobflow.permits import Permit
from blobflow.transports.registry.http.messages import Request
from blobflow.transports.registry.uploads.methods import BodyRequest

_COMMITTED = (200, 201, 204)  # the spec says 201


def push_scopes(repository: str) -> tuple[str, ...]:
    """The scopes that a push needs."""
    return (f"repository:{repository}:pull,push",)


def mount_scopes(repository: str, origin: str) -> tuple[str, ...]:
    """The scopes that a mount needs; some registries read only the first, so the rarer right comes first."""
    return (*push_scopes(repository), f"repository:{origin}:pull")


def exists(repository: str, digest: Digest) -> Request:
    """Is the blob there? [end-2]"""
    return Request(
        "HEAD",
        URL(f"/v2/{repository}/blobs/{digest}", encoded=True),
        f"blob {digest} of {repository}",
        scopes=push_scopes(repository),
    )


def mount(repository: str, digest: Digest, origin: str, permit: Permit | None) -> Request:
    """Take a blob over from the repository `origin` of the same registry [end-11]."""
    return Request(
        "POST",
        URL(f"/v2/{repository}/blobs/uploads/?mount={digest}&from={origin}", encoded=True),
        f"mount of blob {digest} from {origin} into {repository}",
        scopes=mount_scopes(repository, origin),
        body=b"",
        ok=(201, 202),
        permit=permit,
    )


def open_session(repository: str, digest: Digest) -> Request:
    """Open a session [end-4a]; what is not to be hashed by sha256 is announced [end-4c]."""
    algorithm = algorithm_of(digest)
    query = "" if algorithm == "sha256" else f"?digest-algorithm={algorithm}"
    return Request(
        "POST",
        URL(f"/v2/{repository}/blobs/uploads/{query}", encoded=True),
        _description(repository, digest),
        scopes=push_scopes(repository),
        body=b"",
        ok=(202,),
    )


def progress(repository: str, digest: Digest, location: URL) -> Request:
    """How much has arrived? [end-13]"""
    return _to_session("GET", repository, digest, location, ok=(200, 204))


def body(
    repository: str, blob: Descriptor, location: URL, part: BodyRequest, content: bytes | None = None
) -> Request:
    """The request that some bytes of a blob go in [end-5] [end-6]. `content`: the bytes, of a small blob;
    None: they are sent as a stream, and are not in it."""
    if part.commits:
        url = _with_digest(location, blob.digest)
        return _to_session(part.verb, repository, blob.digest, url, ok=_COMMITTED, content=content)
    return _to_session(part.verb, repository, blob.digest, location, ok=(200, 202, 204), headers=part.headers)


def commit(repository: str, digest: Digest, location: URL) -> Request:
    """Make a blob of what was sent [end-6]."""
    url = _with_digest(location, digest)
    return _to_session("PUT", repository, digest, url, ok=_COMMITTED, content=b"")


def cancel(repository: str, location: URL) -> Request:
    """Cancel a session [end-14]."""
    return Request(
        "DELETE",
        location,
        f"end of an upload to {repository}",
        scopes=push_scopes(repository),
        ok=(200, 202, 204),
    )


def _to_session(
    verb: str,
    repository: str,
    digest: Digest,
    url: URL,
    *,
    ok: tuple[int, ...],
    headers: dict[str, str] | None = None,
    content: bytes | None = None,
) -> Request:
    return Request(
        verb,
        url,
        _description(repository, digest),
        scopes=push_scopes(repository),
        headers={"Content-Type": "application/octet-stream", **(headers or {})},
        body=content,
        ok=ok,
    )


def _description(repository: str, digest: Digest) -> str:
    return f"upload of blob {digest} to {repository}"


def _with_digest(location: URL, digest: Digest) -> URL:
    """The Location with the digest added as text: it is opaque, and parsing would quote it anew."""
    text = str(location)
    if f"digest={digest}" in text:  # it was redirected, with all that had been asked
        return location
    return URL(f"{text}{'&' if '?' in text else '?'}digest={digest}", encoded=True)
