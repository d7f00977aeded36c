"""`registries.yaml` of k3s and RKE2 (rancher/wharfie's `registries.Registry`; k3s' getHostConfigs).

`mirrors` is by registry, "*" for every one. All endpoints of a registry share one set of `rewrite`s, regular
expressions that make one repository's name of another; they are a map without an order, so that no two may
fit one name. Where mirrors have different prefixes these go into their endpoints' paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from blobflow.node_files.request import (
    MirroredPrefix,
    NodeFile,
    NodeFiles,
    NodeRequest,
    address_notes,
    certificate_notes,
    certificates,
    header,
)
from blobflow.node_files.yaml_text import yaml_text

_NESTED = "applies its rewrites in no order, so none may be inside another:"


def k3s_files(request: NodeRequest) -> NodeFiles:
    """/etc/rancher/k3s/registries.yaml, which k3s reads when it starts."""
    return _registries_yaml(request, "k3s")


def rke2_files(request: NodeRequest) -> NodeFiles:
    """/etc/rancher/rke2/registries.yaml, which RKE2 reads when it starts."""
    return _registries_yaml(request, "rke2")


def _registries_yaml(request: NodeRequest, program: str) -> NodeFiles:
    folder = f"etc/rancher/{program}"
    refused = [f"{program} gives no image another name, and {each}" for each in request.renamed]
    if request.by_digest:
        refused.append(f"{program} asks its mirrors for tags as well, and --by-digest rules it out")
    mirrors: dict[str, object] = {}
    for host in dict.fromkeys(each.host for each in request.prefixes):
        own = [each for each in request.prefixes if each.host == host]
        mirror, why = _mirror(own, request)
        refused += [f"{program} {reason}" for reason in why]
        if mirror:
            mirrors[host or "*"] = mirror
    ca = f"{folder}/certs.d/{{host}}/ca.crt"
    document: dict[str, object] = {"mirrors": mirrors}
    if configs := _configs(request, ca):
        document["configs"] = configs
    path = f"{folder}/registries.yaml"
    login = "A login goes below `configs`, as HOST: {auth: …}, on the nodes alone; this file has none."
    text = header(path, login) + yaml_text([document])
    files = [NodeFile(path, text.encode())]
    if not request.upstream:
        drop_in = f"{folder}/config.yaml.d/50-blobflow.yaml"
        why_here = "Nothing but mirrors is asked for images of the registries in registries.yaml."
        line = "disable-default-registry-endpoint: true\n"
        files.append(NodeFile(drop_in, (header(drop_in, why_here) + line).encode()))
    where = f"on each node, and name them in {path} below configs, as tls: {{cert_file: …, key_file: …}}"
    notes = [
        *certificate_notes(request, where.replace("{", "{{").replace("}", "}}")),
        *address_notes(request),
    ]
    return NodeFiles(tuple(files if mirrors else ()), certificates(request, ca), tuple(refused), tuple(notes))


def _configs(request: NodeRequest, ca: str) -> dict[str, object]:
    """The TLS of mirrors that have something of their own."""
    configs: dict[str, object] = {}
    for host in request.mirror_hosts:
        access = request.access_to(host)
        if access.plain_http:
            continue
        if access.skip_verify:
            configs[host] = {"tls": {"insecure_skip_verify": True}}
        elif access.ca:
            configs[host] = {"tls": {"ca_file": f"/{ca.format(host=host)}"}}
    return configs


def _mirror(own: Sequence[MirroredPrefix], request: NodeRequest) -> tuple[dict[str, object], list[str]]:
    """What is said of one registry, and what of it can't be."""
    whole = next((each for each in own if not each.path), None)
    parts = [each for each in own if each.path]
    if whole is not None:
        why = [f"{_NESTED} {each}, and {whole}" for each in parts]
        paths = {target.partition("/")[2] for target in whole.targets}
        if len(paths) > 1:
            return {"endpoint": [_with_path(target, request) for target in whole.targets]}, why
        mirror: dict[str, object] = {"endpoint": _endpoints(whole.targets, request)}
        if path := paths.pop():
            mirror["rewrite"] = {"^(.*)$": f"{path}/$1"}
        return mirror, why
    return _parts(parts, request)


def _parts(parts: Sequence[MirroredPrefix], request: NodeRequest) -> tuple[dict[str, object], list[str]]:
    """What is said of a registry of which some repositories are mirrored."""
    hosts = [target.partition("/")[0] for target in parts[0].targets]
    said: list[MirroredPrefix] = []
    why: list[str] = []
    for each in sorted(parts, key=lambda part: part.source):
        above = next((other for other in said if each.source.startswith(f"{other.source}/")), None)
        if above is not None:
            why.append(f"{_NESTED} {each}, and {above}")
        elif [target.partition("/")[0] for target in each.targets] != hosts or len(_paths(each)) > 1:
            why.append(f"has one set of rewrites for all mirrors of a registry, and {each}")
        else:
            said.append(each)
    if not said:
        return {}, why
    rewrites = dict(map(_rewrite, said))
    mirror: dict[str, object] = {"endpoint": _endpoints(said[0].targets, request)}
    if rewrites := {pattern: to for pattern, to in rewrites.items() if to}:
        mirror["rewrite"] = rewrites
    return mirror, why


def _paths(each: MirroredPrefix) -> set[str]:
    return {target.partition("/")[2] for target in each.targets}


def _rewrite(each: MirroredPrefix) -> tuple[str, str]:
    """The expression of a repository, or of all below a prefix, and what it is replaced by; "" if by
    itself."""
    path = each.targets[0].partition("/")[2]
    escaped = re.escape(each.path).replace("\\-", "-")
    if path == each.path:
        return f"^{escaped}", ""
    if each.exact:
        return f"^{escaped}$", path
    if not path:
        return f"^{escaped}/(.*)$", "$1"
    return f"^{escaped}(/.*)?$", f"{path}$1"


def _endpoints(targets: Iterable[str], request: NodeRequest) -> list[str]:
    return list(dict.fromkeys(request.url(target.partition("/")[0]) for target in targets))


def _with_path(target: str, request: NodeRequest) -> str:
    host, slash, path = target.partition("/")
    return f"{request.url(host)}/v2/{path}" if slash else request.url(host)
