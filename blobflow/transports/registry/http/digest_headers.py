"""Digests in answers: Docker-Content-Digest ([end-2] [end-3] [end-6] [end-7]), and OCI-Subject ([end-7]).

A header proves nothing: bytes do. But a registry that tells another digest than its bytes have is broken, or
something on the way is, and what comes under a tag may not be what the tag names. So whose header contradicts
the bytes, or the digest that was asked for, is not believed.

Real ones do these, so they are no contradictions: to send no such header; to tell sha256 of what was asked
for as sha512 (distribution, its own algorithm); to tell the digest of a schema 1 manifest's payload, which is
not that of its bytes (docker-registry 2.8.2; such are refused before this is looked at). What is no digest of
an algorithm that can be verified says nothing. The field holds one value; where there are more, each counts.
"""

from __future__ import annotations

from multidict import CIMultiDictProxy

from blobflow.errors import DigestMismatch, InvalidDigest
from blobflow.oci import Digest, digest_of, parse_digest
from blobflow.oci.digest import algorithm_of

_CONTENT = "Docker-Content-Digest"
# Values of one header that are looked at; two are one too many.
_MOST = 4


def digests_in(headers: CIMultiDictProxy[str], name: str = _CONTENT) -> tuple[Digest, ...]:
    """The digests that a header names, each once: none, one, or several that contradict each other."""
    found: dict[Digest, None] = {}
    values = (part for value in headers.getall(name, ()) for part in value[:1000].split(","))
    for value in list(values)[:_MOST]:
        try:
            found[parse_digest(value.strip())] = None
        except InvalidDigest:
            continue
    return tuple(found)


def contradicting_digest(
    digest: Digest, headers: CIMultiDictProxy[str], name: str = _CONTENT
) -> Digest | None:
    """What a header names in the place of `digest`, in the same algorithm; None if nothing."""
    if headers.get(name, digest) == digest and len(headers.getall(name, ())) <= 1:
        return None  # as nearly always
    for named in digests_in(headers, name):
        if named != digest and algorithm_of(named) == algorithm_of(digest):
            return named
    return None


def check_digest_header(headers: CIMultiDictProxy[str], digest: Digest, what: str) -> None:
    """Raises DigestMismatch where the answer about `what` names another digest of the same algorithm."""
    if (named := contradicting_digest(digest, headers)) is not None:
        raise DigestMismatch(what, expected=digest, actual=named)


def check_content(
    headers: CIMultiDictProxy[str], raw: bytes, what: str, *, known: Digest | None = None
) -> None:
    """Raises DigestMismatch where bytes are not what the answer that brought them names. `known`: a digest
    that they are known to have."""
    for named in digests_in(headers):
        if named == known:
            continue
        actual = digest_of(raw, algorithm_of(named))
        if actual != named:
            raise DigestMismatch(f"{what}, by its {_CONTENT},", expected=named, actual=actual)
