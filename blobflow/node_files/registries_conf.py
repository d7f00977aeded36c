"""registries.conf, as podman, CRI-O, skopeo and buildah have it (containers-registries.conf(5)).

A table is for a prefix: a registry, a part of one, or a repository; the longest that fits counts. What
follows the prefix in an image's name follows the location in the mirror. Of the tags in prefixes that the
manual speaks of nothing came: podman 4.3 and skopeo 1.9 look for tables by an image's repository. A prefix
can't stand for every registry.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from blobflow.node_files.request import (
    MirroredPrefix,
    NodeFile,
    NodeFiles,
    NodeRequest,
    certificate_notes,
    certificates,
    header,
)
from blobflow.oci.reference import looks_like_host

_FILE = "etc/containers/registries.conf.d/50-blobflow.conf"
_CA = "etc/containers/certs.d/{host}/ca.crt"


def podman_files(request: NodeRequest) -> NodeFiles:
    """A drop-in of registries.conf.d for podman, skopeo and buildah."""
    return _registries_conf(
        request, "podman", "A mirror's login is kept by `podman login`, in an auth.json, and not in here."
    )


def crio_files(request: NodeRequest) -> NodeFiles:
    """A drop-in of registries.conf.d for CRI-O, which reads it again on SIGHUP."""
    return _registries_conf(
        request,
        "CRI-O",
        "A mirror's login goes into the file that crio.conf names as global_auth_file, and not in here.",
    )


def _registries_conf(request: NodeRequest, reader: str, login: str) -> NodeFiles:
    refused = [
        f"registries.conf names each registry that it mirrors, and for {reader} {each}; say which,"
        " with --from HOST or a spec"
        for each in request.prefixes
        if not each.source
    ]
    refused += [f"registries.conf gives no image another tag, and {each}" for each in request.renamed]
    said, unsaid = nameable(request, "registries.conf")
    refused += unsaid
    if request.by_digest and not request.upstream:
        refused.append(
            "registries.conf keeps tags from mirrors alone: with --by-digest and --no-upstream the last"
            " mirror would be asked for tags, too"
        )
    tables = ["\n".join(_table(each, request)) for each in said]
    mirrors = dict.fromkeys(target.partition("/")[0] for each in said for target in each.targets)
    text = header(_FILE, login) + "\n" + "\n\n".join(tables) + "\n"
    return NodeFiles(
        (NodeFile(_FILE, text.encode()),) if tables else (),
        certificates(request, _CA, list(mirrors)),
        tuple(refused),
        tuple(
            certificate_notes(request, "into /etc/containers/certs.d/{host}, as client.cert and client.key")
        ),
    )


def nameable(request: NodeRequest, called: str) -> tuple[list[MirroredPrefix], list[str]]:
    """The prefixes of registries, with those of their mirrors that can be in an image's name as
    containers/image reads it; and what can't, a sentence each about the format that is `called` so. A name
    that can't be read ends the pull, whatever other mirrors there are."""
    said: list[MirroredPrefix] = []
    unsaid: list[str] = []
    for each in request.prefixes:
        if not each.source:
            continue
        reasons = {place: _why_unnamed(place) for place in (each.source, *each.targets)}
        unsaid += [
            f"{called} {why}, and {each.source} is at {target}"
            for target in each.targets
            if (why := reasons[each.source] or reasons[target])
        ]
        targets = tuple(target for target in each.targets if not reasons[target])
        if targets and not reasons[each.source]:
            said.append(msgspec.structs.replace(each, targets=targets))
    return said, unsaid


def _why_unnamed(place: str) -> str:
    """Why no name may begin so; "" if one may."""
    host = place.partition("/")[0]
    if "[" in host:
        return "names no registry by an address of IPv6"
    if not looks_like_host(host):
        return f"takes {host}, which has neither a dot nor a port, for no registry"
    return ""


def _table(each: MirroredPrefix, request: NodeRequest) -> Iterator[str]:
    *mirrors, location = (*each.targets, each.source) if request.upstream else each.targets
    yield "[[registry]]"
    yield f"prefix = {json.dumps(each.source)}"
    yield from _endpoint(location, request)
    if request.by_digest:
        yield "mirror-by-digest-only = true"
    for mirror in mirrors:
        yield ""
        yield "[[registry.mirror]]"
        yield from _endpoint(mirror, request)


def _endpoint(location: str, request: NodeRequest) -> Iterator[str]:
    yield f"location = {json.dumps(location)}"
    if request.access_to(location).insecure:
        yield "insecure = true"
