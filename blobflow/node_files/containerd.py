"""containerd's `certs.d/HOST/hosts.toml` (containerd from 1.5, docs/hosts.md of its repository).

It names whole registries. A mirror's prefix goes into its URL, behind `/v2`, which `override_path` makes the
root of the API. What stands under `server` is asked last; without mirrors in the file nothing of it counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from blobflow.node_files.request import (
    MirroredPrefix,
    NodeFile,
    NodeFiles,
    NodeRequest,
    address_notes,
    certificate_file,
    certificate_notes,
    header,
)

_FOLDER = "etc/containerd/certs.d"
_COMMENT = (
    "containerd looks here if its config.toml has config_path below the registry table of its CRI plugin:",
    '  [plugins."io.containerd.grpc.v1.cri".registry]     # containerd 1; "io.containerd.cri.v1.images" in 2',
    '  config_path = "/etc/containerd/certs.d"',
)


def containerd_files(request: NodeRequest) -> NodeFiles:
    """A folder for each registry that is mirrored, with its hosts.toml; `_default` for every registry."""
    whole = [each for each in request.prefixes if not each.path]
    parts = [each for each in request.prefixes if each.path]
    refused = [
        *(f"containerd mirrors whole registries alone, and {each}" for each in parts),
        *(f"containerd gives no image another name, and {each}" for each in request.renamed),
    ]
    files, beside = [], []
    for each in whole:
        folder = f"{_FOLDER}/{each.host or '_default'}"
        files.append(NodeFile(f"{folder}/hosts.toml", _hosts_toml(each, request, folder).encode()))
        for host in dict.fromkeys(target.partition("/")[0] for target in each.targets):
            access = request.access_to(host)
            if access.ca and not access.insecure:
                beside.append(certificate_file(f"{folder}/{_ca(host)}", access.ca))
    notes = [
        *certificate_notes(request, "beside hosts.toml, and name them there as `client`"),
        *address_notes(request),
    ]
    return NodeFiles(tuple(files), tuple(beside), tuple(refused), tuple(notes))


def _hosts_toml(prefix: MirroredPrefix, request: NodeRequest, folder: str) -> str:
    lines: list[str] = []
    if not request.upstream:
        # Also a [host], as containerd 1.6 reads no file without one.
        last = prefix.targets[-1]
        lines += [f"server = {json.dumps(_url(last, request))}", *_access(last, request)]
    elif prefix.host:
        lines.append(f"server = {json.dumps(request.url(prefix.host))}")
    for target in prefix.targets:
        lines += ["", f"[host.{json.dumps(_url(target, request))}]"]
        lines += [f"  {line}" for line in _access(target, request)]
    hosts = ", ".join(dict.fromkeys(target.partition("/")[0] for target in prefix.targets))
    login = f"A login for {hosts} goes into config.toml, as registry.configs.HOST.auth, and not in here."
    return header(f"{folder}/hosts.toml", *_COMMENT, login) + "\n".join(lines).lstrip("\n") + "\n"


def _url(target: str, request: NodeRequest) -> str:
    host, slash, path = target.partition("/")
    return f"{request.url(host)}/v2/{path}" if slash else request.url(host)


def _access(target: str, request: NodeRequest) -> Iterator[str]:
    """What a server can do, and how it is reached."""
    host, slash, _ = target.partition("/")
    access = request.access_to(host)
    # Without "resolve" it is asked for digests alone.
    yield 'capabilities = ["pull"]' if request.by_digest else 'capabilities = ["pull", "resolve"]'
    if slash:
        yield "override_path = true"
    if access.skip_verify and not access.plain_http:
        yield "skip_verify = true"
    elif access.ca and not access.plain_http:
        yield f"ca = {json.dumps(_ca(host))}"


def _ca(host: str) -> str:
    """The file with a mirror's certificates, beside hosts.toml, which names it by that."""
    return f"{host}.crt"
