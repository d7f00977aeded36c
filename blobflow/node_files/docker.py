"""docker's daemon.json: `registry-mirrors`, which are docker.io's alone, and `insecure-registries`."""

from __future__ import annotations

import json

from blobflow.node_files.request import (
    NodeFile,
    NodeFiles,
    NodeRequest,
    certificate_notes,
    certificates,
)
from blobflow.oci.reference import DOCKER_HUB

_FILE = "etc/docker/daemon.json"
_CA = "etc/docker/certs.d/{host}/ca.crt"


def docker_files(request: NodeRequest) -> NodeFiles:
    """daemon.json with these keys alone; what else is in a machine's own has to be kept by hand."""
    hub = [each for each in request.prefixes if each.source == DOCKER_HUB]
    other = [each for each in request.prefixes if each.source != DOCKER_HUB]
    refused = [
        *(f"docker has mirrors of docker.io alone, as a whole, and {each}" for each in other),
        *(f"docker gives no image another name, and {each}" for each in request.renamed),
        *(
            f"docker's mirrors have no prefix, and {each.source} is at {target}"
            for each in hub
            for target in each.targets
            if "/" in target
        ),
    ]
    if not request.upstream:
        refused.append("docker always asks docker.io for what no mirror has, and --no-upstream rules it out")
    if request.by_digest:
        refused.append("docker asks its mirrors for tags as well, and --by-digest rules it out")
    mirrors = [target for each in hub for target in each.targets if "/" not in target]
    document: dict[str, list[str]] = {"registry-mirrors": [request.url(host) for host in mirrors]}
    if insecure := [host for host in mirrors if request.access_to(host).insecure]:
        document["insecure-registries"] = insecure
    return NodeFiles(
        (NodeFile(_FILE, (json.dumps(document, indent=2) + "\n").encode()),) if mirrors else (),
        certificates(request, _CA, mirrors),
        tuple(refused),
        (
            "docker sends its login for docker.io to no mirror: these have to give images without one",
            *certificate_notes(request, "into /etc/docker/certs.d/{host}, as client.cert and client.key"),
        ),
    )
