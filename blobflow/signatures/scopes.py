"""Scopes of a signature policy: which part of it is about an image. Pure, but for the links in a path.

containers-policy.json(5), "Supported transports and their scopes". The most specific one counts:

    docker       quay.io/team/app:1 or quay.io/team/app@sha256:…, quay.io/team/app, quay.io/team, quay.io,
                 *.io; then "", which is all of the transport
    oci,         /srv/images/app, /srv/images, /srv; then ""
    oci-archive
    docker-archive   "" alone

A reference with a tag and a digest is looked up by its digest, since that is what is read; podman drops such
a tag as well. Nothing becomes trusted by a tag that somebody wrote before its digest.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator

from blobflow.oci import Reference
from blobflow.oci.local_reference import STREAM, path_of

DOCKER = "docker"

# Transports whose scopes are absolute paths, and those that have the scope "" alone.
_PATHS = frozenset({"dir", "oci", "oci-archive", "sif"})
_WHOLE = frozenset({"docker-archive", "tarball"})
_DIGEST = r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})"
_IMAGE_ID = "[0-9a-f]{64}"
_DAEMON_ID = re.compile(rf"{_DIGEST}\Z")
_ATOMIC = re.compile(r"[^/]*(?:/[^:/]*(?:/[^:/]*(?::[^:/]*)?)?)?\Z")
_STORE = re.compile(
    r"\[(?:[^@\]]+@/[^\]]*|/[^@\]]*)\][^@]*"
    rf"(?:@(?:{_DIGEST}|{_IMAGE_ID})|@{_DIGEST}@{_IMAGE_ID})?\Z"
)


def scope_error(transport: str, scope: str) -> str:
    """Why a policy can't have this scope, as the end of a sentence; "" if it can.

    As containers/image has it: "" is a scope of all transports, and a transport that nobody knows has any.
    Scopes of docker are not looked at: one that names nothing is never met.
    """
    if not scope:
        return ""
    if transport in _WHOLE:
        return f'{transport} has no scope but ""'
    if transport in _PATHS:
        return _path_error(scope)
    if transport == "docker-daemon" and _DAEMON_ID.match(scope):
        return "a digest is not a scope of docker-daemon"
    if transport == "atomic" and not _ATOMIC.match(scope):
        return "a scope of atomic is HOST[:PORT][/NAMESPACE[/STREAM[:TAG]]]"
    if transport == "containers-storage" and not _STORE.match(scope):
        return "a scope of containers-storage is [DRIVER@/ROOT] or [/ROOT], with or without NAME and @ID"
    return ""


def canonical_scope(transport: str, scope: str) -> str:
    """A scope as it is looked up: hosts are the same in upper and lower case (RFC 9110, section 4.2.3)."""
    if transport != DOCKER:
        return scope
    host, slash, rest = scope.partition("/")
    return f"{host.lower()}{slash}{rest}"


def scopes_of(transport: str, reference: Reference) -> Iterator[str]:
    """The scopes that an image is in, the most specific one first, and "" last."""
    if transport == DOCKER:
        yield from _names(reference)
    elif transport in _PATHS:
        yield from _paths(reference)
    yield ""


def _names(reference: Reference) -> Iterator[str]:
    """As containers' docker/policyconfiguration: wildcards stand for subdomains, and have no port."""
    name = f"{reference.host}/{reference.repository}"
    if reference.digest:
        yield f"{name}@{reference.digest}"
    elif reference.tag:
        yield f"{name}:{reference.tag}"
    while True:
        yield name
        name, slash, _ = name.rpartition("/")
        if not slash:
            break
    domain = reference.host.partition(":")[0]
    while "." in domain:
        domain = domain.partition(".")[2]
        yield f"*.{domain}"


def _paths(reference: Reference) -> Iterator[str]:
    path = path_of(reference.host)
    if path == STREAM:
        return
    path = os.path.realpath(path)  # a link into a folder is not in the scope of where it stands
    while path != "/":
        yield path
        path = posixpath.dirname(path)


def _path_error(scope: str) -> str:
    if not scope.startswith("/"):
        return "a scope has to be an absolute path"
    if scope == "/":
        return 'the scope of all paths is "", not "/"'
    clean = "/" + posixpath.normpath(scope).lstrip("/")
    return "" if clean == scope else f"the path has another spelling; write {clean}"
