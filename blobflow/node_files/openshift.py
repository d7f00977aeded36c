"""OpenShift's mirror sets: ImageDigestMirrorSet and ImageTagMirrorSet (config.openshift.io/v1, from 4.13),
and ImageContentSourcePolicy (operator.openshift.io/v1alpha1), which clusters before have.

They become registries.conf on the nodes, so they name prefixes as it does; tags have no other name in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from blobflow.node_files.registries_conf import nameable
from blobflow.node_files.request import MirroredPrefix, NodeFile, NodeFiles, NodeRequest, header
from blobflow.node_files.yaml_text import yaml_text

_FILE = "openshift-mirrors.yaml"
_NAME = "blobflow"
_CA_NAME = "blobflow-registry-cas"


def openshift_files(request: NodeRequest) -> NodeFiles:
    """One file for `oc apply -f`; nodes are drained and restarted as the machine config operator does it."""
    kind = request.openshift_kind
    refused = [f"OpenShift gives no image another tag, and {each}" for each in request.renamed]
    refused += [
        f"OpenShift names each registry that it mirrors, and {each}; say which, with --from HOST or a spec"
        for each in request.prefixes
        if not each.source
    ]
    said, unsaid = nameable(request, "OpenShift")
    refused += unsaid
    if request.by_digest and kind == "itms":
        refused.append("an ImageTagMirrorSet is for pulls by tag alone, and --by-digest rules these out")
    if kind == "icsp" and not request.upstream:
        refused.append(
            "an ImageContentSourcePolicy always lets the source be asked, and --no-upstream rules it out;"
            " --openshift-kind idms can"
        )
    if not said:
        return NodeFiles((), (), tuple(refused))
    hosts = list(dict.fromkeys(target.partition("/")[0] for each in said for target in each.targets))
    documents = [*_mirror_sets(said, request), *_certificates(request, hosts)]
    text = header(_FILE, *_comments(request)) + yaml_text(documents)
    return NodeFiles((NodeFile(_FILE, text.encode()),), (), tuple(refused), tuple(_notes(request, hosts)))


def _mirror_sets(said: Sequence[MirroredPrefix], request: NodeRequest) -> Iterator[dict[str, Any]]:
    mirrors: list[dict[str, Any]] = [{"source": each.source, "mirrors": list(each.targets)} for each in said]
    kind = request.openshift_kind
    if kind == "icsp":
        spec: dict[str, Any] = {"repositoryDigestMirrors": mirrors}
        yield _resource("operator.openshift.io/v1alpha1", "ImageContentSourcePolicy", spec)
        return
    if not request.upstream:
        mirrors = [{**each, "mirrorSourcePolicy": "NeverContactSource"} for each in mirrors]
    if kind in ("both", "idms"):
        spec = {"imageDigestMirrors": mirrors}
        yield _resource("config.openshift.io/v1", "ImageDigestMirrorSet", spec)
    if kind == "itms" or (kind == "both" and not request.by_digest):
        # Of its own, so that YAML writes it out again and not as an alias.
        spec = {"imageTagMirrors": [{**each, "mirrors": list(each["mirrors"])} for each in mirrors]}
        yield _resource("config.openshift.io/v1", "ImageTagMirrorSet", spec)


def _resource(api: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": _NAME}, "spec": spec}


def _certificates(request: NodeRequest, hosts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The ConfigMap that `additionalTrustedCA` names: a port stands behind two dots."""
    found = {
        host.replace(":", ".."): access.ca.decode()
        for host in hosts
        if (access := request.access_to(host)).ca and not access.insecure
    }
    if found:
        metadata = {"name": _CA_NAME, "namespace": "openshift-config"}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": found}


def _comments(request: NodeRequest) -> Iterator[str]:
    yield "Apply it with `oc apply -f`. A login belongs into the cluster's pull secret, and not in here:"
    yield "  oc set data secret/pull-secret -n openshift-config --from-file=.dockerconfigjson=FILE"


def _notes(request: NodeRequest, hosts: Sequence[str]) -> Iterator[str]:
    patch = "oc patch image.config.openshift.io/cluster --type=merge -p"
    if any(True for _ in _certificates(request, hosts)):
        yield f"""{patch} '{{"spec":{{"additionalTrustedCA":{{"name":"{_CA_NAME}"}}}}}}'"""
    insecure = [host for host in hosts if request.access_to(host).insecure]
    if insecure:
        listed = ",".join(f'"{host}"' for host in insecure)
        yield (
            "to reach a mirror without TLS, or whatever its certificate, add it to those that the cluster"
            f""" lists: {patch} '{{"spec":{{"registrySources":{{"insecureRegistries":[{listed}]}}}}}}'"""
        )
