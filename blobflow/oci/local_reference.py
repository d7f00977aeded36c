"""Local references, to layouts and archives: a transport and a path, in the notation of the containers tools.

    oci:DIR[:NAME]               an OCI image layout, image-spec image-layout.md
    oci-archive:FILE[:NAME]      the same in a tar
    docker-archive:FILE[:NAME]   what `docker save` writes; NAME is a reference

A path ends at the first colon. NAME is what the place calls the image (the annotation
`org.opencontainers.image.ref.name`, or docker's RepoTags), or `@n` for the n-th image from 0; without one
the place has to hold a single image. A digest may follow, as `@sha256:…`. The path `-` of an archive is
stdin or stdout.

A `Reference` to such a place has word and path as its `host`, an empty repository, and NAME as its tag: the
place is to the engine what a registry with one repository is.
"""

from __future__ import annotations

import posixpath
import re

from blobflow.errors import InvalidDigest, InvalidReference
from blobflow.oci.digest import parse_digest

LAYOUT = "oci"
OCI_ARCHIVE = "oci-archive"
DOCKER_ARCHIVE = "docker-archive"
ARCHIVES = (OCI_ARCHIVE, DOCKER_ARCHIVE)
TRANSPORTS = (LAYOUT, *ARCHIVES)
STREAM = "-"

_NAME = re.compile(r"[!-~]{1,512}\Z")  # wider than the ref.name grammar: what others wrote shall be readable


def transport_of(host: str) -> str:
    """The transport's word if `host` is that of a place, "" if it is a registry's."""
    word, colon, path = host.partition(":")
    return word if colon and word in TRANSPORTS and not path.isdigit() else ""


def path_of(host: str) -> str:
    """The path of a place's `host`."""
    return host.partition(":")[2]


def local_host(word: str, path: str) -> str:
    """The `host` of the place at a path, which may have colons in it."""
    return f"{word}:{_normal(path)}"


def check_local(host: str, name: str = "") -> bool:
    """Whether `host` is that of a place. Raises InvalidReference where its path, or what it calls an image,
    can't be that."""
    word = transport_of(host)
    if not word:
        return False
    path = path_of(host)
    if not path or "\0" in path or (word not in ARCHIVES and path == STREAM):
        raise InvalidReference(f"{host[:300]!r} names no path of a layout or archive")
    if name and not _NAME.match(name):
        raise InvalidReference(f"{name[:150]!r} is no name of an image in {host[:300]}")
    return True


def split_local_reference(text: str) -> tuple[str, str, str] | None:
    """Cut `TRANSPORT:PATH[:NAME][@DIGEST]` into host, name and digest ("" where absent).

    None if `text` begins with no transport of these. Raises InvalidReference.
    """
    word, colon, rest = text.partition(":")
    if not colon or word not in TRANSPORTS:
        return None
    shown = repr(text[:300])
    rest, digest = _cut_digest(rest)
    path, colon, name = rest.partition(":")
    if not path or "\0" in path:
        raise InvalidReference(f"{shown} names no path; write {word}:PATH or {word}:PATH:NAME")
    if colon and not _NAME.match(name):
        raise InvalidReference(f"{shown} has a bad name {name[:150]!r} after the path's colon")
    if word not in ARCHIVES and path == STREAM:
        raise InvalidReference(f"{shown}: an OCI layout is a directory; write oci-archive:- for a stream")
    return local_host(word, path), name, digest


def _cut_digest(text: str) -> tuple[str, str]:
    head, at, tail = text.rpartition("@")
    if at:
        try:
            return head, parse_digest(tail)
        except InvalidDigest:
            pass
    return text, ""


def _normal(path: str) -> str:
    """One spelling of a path; `./-` stays what is no stream, and `5000` becomes what is no port."""
    normal = posixpath.normpath(path)
    return f"./{normal}" if normal.isdigit() or normal == STREAM != path else normal
