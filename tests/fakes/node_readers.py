"""How runtimes read what points them at mirrors: where each looks for an image, in order.

By their sources: containerd's remotes/docker/config/hosts.go (1.6), sysregistriesv2 of containers/image
(5.23), k3s' getHostConfigs with the rewrites of its containerd, Kyverno's foreach mutations. No more of each
than says where an image is looked for; the end-to-end tests ask the real ones that are here.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import re2  # type: ignore[import-untyped]
import yaml

from blobflow.node_files.request import NodeFiles
from blobflow.oci import Reference


def text_of(made: NodeFiles) -> str:
    """The content of the only file."""
    [file] = made.files
    return file.content.decode()


@cache
def documents_of(text: str) -> list[Any]:
    """Read once, however many images are looked for."""
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def by_containerd(made: NodeFiles, image: Reference) -> list[str]:
    """The URLs of its manifest. A server without `resolve` is asked for digests alone."""
    hosts = {
        each.path.split("/")[-2]: tomllib.loads(each.content.decode())
        for each in made.files
        if each.path.startswith("etc/containerd/certs.d/") and each.path.endswith("/hosts.toml")
    }
    own = "registry-1.docker.io" if image.host == "docker.io" else image.host
    file = hosts.get(image.host, hosts.get("_default"))
    servers = [] if file is None else [*file["host"].items(), (file.get("server", f"https://{own}"), file)]
    if not servers:
        servers = [(f"https://{own}", {})]
    found = []
    for url, server in servers:
        assert set(server) <= {"server", "host", "capabilities", "override_path", "ca", "skip_verify"}
        root = url if server.get("override_path") else f"{url}/v2"
        if image.digest or "resolve" in server.get("capabilities", ("pull", "resolve")):
            found.append(f"{root}/{image.repository}/manifests/{image.name}")
    return found


def by_registries_conf(made: NodeFiles, image: Reference) -> list[str]:
    """The references. Tables are found by the repository, whose longest prefix counts."""
    name = f"{image.host}/{image.repository}"
    fitting = [
        table
        for table in tomllib.loads(text_of(made)).get("registry", [])
        if name == table["prefix"] or name.startswith(table["prefix"] + "/")
    ]
    if not fitting:
        return [str(image)]
    table = max(fitting, key=lambda each: len(each["prefix"]))
    mirrors = table.get("mirror", [])
    if table.get("mirror-by-digest-only") and not image.digest:
        mirrors = []
    rest = str(image).removeprefix(table["prefix"])
    return [each["location"] + rest for each in (*mirrors, table)]


def by_mirror_sets(made: NodeFiles, image: Reference) -> list[str]:
    """As OpenShift reads its mirror sets, and hands them to registries.conf."""
    entries: list[dict[str, Any]] = []
    for document in documents_of(text_of(made)):
        if document["kind"] in ("ImageDigestMirrorSet", "ImageContentSourcePolicy") and image.digest:
            [listed] = document["spec"].values()
            entries += listed
        if document["kind"] == "ImageTagMirrorSet" and not image.digest:
            entries += document["spec"]["imageTagMirrors"]
    name = f"{image.host}/{image.repository}"
    fitting = [each for each in entries if name == each["source"] or name.startswith(each["source"] + "/")]
    if not fitting:
        return [str(image)]
    entry = max(fitting, key=lambda each: len(each["source"]))
    rest = str(image).removeprefix(entry["source"])
    upstream = [] if entry.get("mirrorSourcePolicy") == "NeverContactSource" else [str(image)]
    return [*(mirror + rest for mirror in entry["mirrors"]), *upstream]


def by_rancher(made: NodeFiles, image: Reference) -> list[str]:
    """The URLs of its manifest at k3s and RKE2. At most one rewrite may fit a name, as they have no order."""
    document = documents_of(made.files[0].content.decode())[0]
    mirror = document["mirrors"].get(image.host, document["mirrors"].get("*"))
    own = "registry-1.docker.io" if image.host == "docker.io" else image.host
    found = []
    if mirror is not None:
        fitting = [
            (pattern, by)
            for pattern, by in mirror.get("rewrite", {}).items()
            if _fits(pattern, image.repository)
        ]
        assert len(fitting) <= 1
        repository = image.repository
        for pattern, by in fitting:
            repository = go_replaced(pattern, repository, by)
        for endpoint in mirror["endpoint"]:
            root = endpoint if re.fullmatch("https?://[^/]+/.+", endpoint) else f"{endpoint}/v2"
            found.append(f"{root}/{repository}/manifests/{image.name}")
    if len(made.files) == 1:
        return [*found, f"https://{own}/v2/{image.repository}/manifests/{image.name}"]
    assert documents_of(made.files[1].content.decode())[0] == {"disable-default-registry-endpoint": True}
    return found


def by_kyverno(made: NodeFiles, written: str) -> str:
    """The image of a pod that the policy has let in."""
    document = documents_of(text_of(made))[0]
    results = {_admitted(rule, written) for rule in document["spec"]["rules"]}
    [result] = results  # all lists of containers are treated alike
    return result


def _admitted(rule: Mapping[str, Any], written: str) -> str:
    [loop] = rule["mutate"]["foreach"]
    known = {"element.image": written, "element.name": "app"}
    for variable in loop["context"]:
        known[variable["name"]] = str(_evaluated(variable["variable"]["value"], known))
    for check in loop["preconditions"]["all"]:
        assert check["operator"] == "Equals"
        if _evaluated(check["key"], known) != check["value"]:
            return written
    [containers] = loop["patchStrategicMerge"]["spec"].values()
    return str(_evaluated(containers[0]["image"], known))


def _evaluated(text: str, known: Mapping[str, str]) -> str | bool:
    """An expression of names, strings and the two functions that a policy uses."""
    found = re.fullmatch(r"\{\{ (.*) \}\}", text)
    assert found and "$(" not in text and "\\" not in text
    value, rest = _expression(found[1], known)
    assert not rest
    return value


def _expression(text: str, known: Mapping[str, str]) -> tuple[str | bool, str]:
    if text.startswith("'"):
        string, _, rest = text[1:].partition("'")
        return string, rest
    word = re.match(r"[\w.]+", text)
    assert word
    rest = text[word.end() :]
    if not rest.startswith("("):
        return known[word[0]], rest
    arguments: list[Any] = []
    rest = rest[1:]
    while not rest.startswith(")"):
        argument, rest = _expression(rest.removeprefix(", "), known)
        arguments.append(argument)
    functions: dict[str, Callable[..., str | bool]] = {
        "regex_match": _fits,
        "regex_replace_all": go_replaced,
    }
    return functions[word[0]](*arguments), rest[1:]


def _fits(pattern: str, name: str) -> bool:
    return re2.search(pattern, name) is not None


def go_replaced(pattern: str, name: str, by: str) -> str:
    """As Go's `regexp.ReplaceAllString`: `$1x` there is the group called 1x, so none may follow a word."""
    assert not re.search(r"\$\d\w", by)
    return str(re2.sub(pattern, re.sub(r"\$\{?(\d)\}?", r"\\\1", by), name))


def daemon_json(made: NodeFiles) -> dict[str, list[str]]:
    document: dict[str, list[str]] = json.loads(text_of(made))
    return document
