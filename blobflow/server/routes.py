"""Routes: parses the distribution-spec's paths into endpoints and their parameters. Pure.

A repository's name may have any number of components, also ones called `blobs` or `tags`, so a path is read
from its end. Names are checked here: none that breaks the spec's grammar reaches the store, which never uses
one as a path of files either.
"""

from __future__ import annotations

from typing import NamedTuple

from blobflow.content import Site
from blobflow.errors import InvalidDigest, InvalidReference
from blobflow.oci import Digest, parse_digest
from blobflow.oci.reference import check_repository, check_tag
from blobflow.server.errors import ApiError

API_PREFIX = "/v2/"
# Needs no login: it tells nothing of the content, and what watches the process asks for it.
HEALTH_PATH = "/healthz"


class Route(NamedTuple):
    """What a path names. `endpoint` is a key of the application's table of endpoints; `reference` a tag, a
    digest, or the name of an upload session.

    `upstream`: where the repository is pulled through from; None if it is our own. Once the request is let
    in, `repository` is the name in the store: see `pullthrough.stored_names`.
    """

    endpoint: str
    repository: str = ""
    reference: str = ""
    upstream: Site | None = None


_FIXED = {
    "/v2": Route("root"),
    API_PREFIX: Route("root"),
    f"{API_PREFIX}_catalog": Route("catalog"),
    "/": Route("page"),
    "/metrics": Route("metrics"),
    HEALTH_PATH: Route("health"),
}


def match_route(path: str) -> Route | None:
    """The route of a decoded path; None if no endpoint has it. Raises ApiError (NAME_INVALID)."""
    if path in _FIXED:
        return _FIXED[path]
    if not path.startswith(API_PREFIX):
        return None
    parts = path[len(API_PREFIX) :].split("/")
    match parts:
        case [*name, "tags", "list"] if name:
            return Route("tags", _repository(name))
        case [*name, "manifests", reference] if name and reference:
            return Route("manifest", _repository(name), reference)
        case [*name, "blobs", "uploads", ""] | [*name, "blobs", "uploads"] if name:
            return Route("uploads", _repository(name))
        case [*name, "blobs", "uploads", reference] if name:
            return Route("upload", _repository(name), reference)
        case [*name, "referrers", reference] if name and reference:
            return Route("referrers", _repository(name), reference)
        case [*name, "blobs", reference] if name and reference:
            return Route("blob", _repository(name), reference)
    return None


def parse_digest_parameter(text: str) -> Digest:
    """A digest from a path or query. Raises ApiError (DIGEST_INVALID)."""
    try:
        return parse_digest(text)
    except InvalidDigest as error:
        raise ApiError("DIGEST_INVALID", str(error)) from None


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
        raise ApiError("NAME_INVALID", str(error)) from None
