"""Where a request goes: distribution-spec's paths, taken apart. Pure.

A repository's name may have any number of components, also ones called `blobs` or `tags`, so a path is read
from its end. What comes out has been checked: a name can't leave its place, because the store never sees
one as a path, and no name that breaks the grammar gets past here.
"""

from __future__ import annotations

from typing import NamedTuple

from blobflow.content import Site
from blobflow.errors import InvalidDigest, InvalidReference
from blobflow.oci import Digest, parse_digest
from blobflow.oci.reference import check_repository, check_tag
from blobflow.server.refusal import Refusal

PREFIX = "/v2/"
# Tells nothing of the content: who watches the process needs no login for it.
HEALTH = "/healthz"


class Place(NamedTuple):
    """What a path points at. `room` is one of the registry's rooms; `item` a digest, reference or session.

    `origin`: where the repository is pulled through from; None: it is our own.
    """

    room: str
    repository: str = ""
    item: str = ""
    origin: Site | None = None


_FIXED = {
    "/v2": Place("root"),
    PREFIX: Place("root"),
    f"{PREFIX}_catalog": Place("catalog"),
    "/": Place("page"),
    "/metrics": Place("metrics"),
    HEALTH: Place("health"),
}


def locate(path: str) -> Place | None:
    """The place of a decoded path, None if the registry has no such. Raises Refusal (NAME_INVALID)."""
    if path in _FIXED:
        return _FIXED[path]
    if not path.startswith(PREFIX):
        return None
    parts = path[len(PREFIX) :].split("/")
    match parts:
        case [*name, "tags", "list"] if name:
            return Place("tags", _repository(name))
        case [*name, "manifests", item] if name and item:
            return Place("manifest", _repository(name), item)
        case [*name, "blobs", "uploads", ""] | [*name, "blobs", "uploads"] if name:
            return Place("uploads", _repository(name))
        case [*name, "blobs", "uploads", item] if name:
            return Place("upload", _repository(name), item)
        case [*name, "referrers", item] if name and item:
            return Place("referrers", _repository(name), item)
        case [*name, "blobs", item] if name and item:
            return Place("blob", _repository(name), item)
    return None


def digest_in(text: str) -> Digest:
    """A digest from a path or query. Raises Refusal (DIGEST_INVALID)."""
    try:
        return parse_digest(text)
    except InvalidDigest as error:
        raise Refusal("DIGEST_INVALID", str(error)) from None


def is_tag(reference: str) -> bool:
    """Whether `<reference>` is a tag by the spec's grammar; a digest never is, for its colon."""
    try:
        check_tag(reference)
    except InvalidReference:
        return False
    return True


def is_repository(name: str) -> bool:
    try:
        check_repository(name)
    except InvalidReference:
        return False
    return True


def _repository(parts: list[str]) -> str:
    name = "/".join(parts)
    try:
        return check_repository(name)
    except InvalidReference as error:
        raise Refusal("NAME_INVALID", str(error)) from None
