"""Resources of tools whose fields mean something else than the same names elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Callable

from blobflow.deployment_files.addressed_artifacts import (
    read_argo_source,
    read_flux_source,
    read_k3s_chart,
)
from blobflow.deployment_files.contract import PartKind
from blobflow.deployment_files.findings import Findings, is_surely_image
from blobflow.deployment_files.kustomize_entries import read_entry
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, Scalar, each_mapping

_FIELD = "custom resource image"
# What kubeadm puts behind a repository (its ClusterConfiguration).
_OF_KUBEADM = {"dns": "coredns", "etcd": "etcd"}
_KUBEADM_LISTS = "is where kubeadm has all of its images from; `kubeadm config images list` names them"


def read_known(findings: Findings, document: MappingNode) -> None:
    """What a resource of a known tool names, before its fields are read by their names."""
    api = document.text("apiVersion")
    for prefix, read in _READERS.items():
        if api.startswith(prefix):
            read(findings, document)


def _read_kubeadm(findings: Findings, document: MappingNode) -> None:
    if (of_all := document.scalar("imageRepository")) and document.text("kind") == "ClusterConfiguration":
        findings.leave(of_all.piece, _FIELD, _KUBEADM_LISTS)
    for key, last in _OF_KUBEADM.items():
        place = document.mapping(key)
        place = (place.mapping("local") or place) if place else None
        repository = place.scalar("imageRepository") if place else None
        tag = place.scalar("imageTag") if place else None
        if repository and tag:
            name = f"{repository.value.strip().rstrip('/')}/{last}:{tag.value.strip()}"
            parts: list[tuple[PartKind, Piece]] = [("registry", repository.piece), ("tag", tag.piece)]
            findings.join(parts, name, _FIELD)
        elif repository:
            findings.pass_over(repository.piece)


def _read_skaffold(findings: Findings, document: MappingNode) -> None:
    """An artifact's image is what is built; what it is built by is pulled."""
    build = document.mapping("build")
    for artifact in build.list("artifacts") if build else ():
        if not isinstance(artifact, MappingNode):
            continue
        if image := artifact.scalar("image"):
            findings.pass_over(image.piece)
        packs = artifact.mapping("buildpacks")
        if packs and (builder := packs.scalar("builder")):
            findings.name(builder.piece, "skaffold builder")


def _read_flux(findings: Findings, document: MappingNode) -> None:
    spec = document.mapping("spec")
    for entry in spec.list("images") if spec else ():
        if isinstance(entry, MappingNode):
            read_entry(findings, entry)


def _read_application(findings: Findings, document: MappingNode) -> None:
    """Argo CD's applications: parameters of Helm, and charts that a registry has."""

    def visit(mapping: MappingNode) -> None:
        for item in mapping.list("parameters"):
            value = item.scalar("value") if isinstance(item, MappingNode) else None
            if value and isinstance(item, MappingNode):
                findings.guess(value.piece, "helm parameter", item.text("name"))

    if document.text("kind") in ("Application", "ApplicationSet"):
        each_mapping(document, visit)
        read_argo_source(findings, document)


def _read_package(findings: Findings, document: MappingNode) -> None:
    """Crossplane's packages, which are images."""
    spec = document.mapping("spec")
    package = spec.scalar("package") if spec else None
    if package and is_surely_image(package.value.strip()):
        findings.name(package.piece, "package")


def _read_image_set(findings: Findings, document: MappingNode) -> None:
    """oc-mirror's configuration: catalogs of operators are images, too."""

    def visit(mapping: MappingNode) -> None:
        if catalog := mapping.scalar("catalog"):
            findings.name(catalog.piece, "catalog")

    each_mapping(document, visit)


def _read_bundles(findings: Findings, document: MappingNode) -> None:
    """Tekton's bundles: artifacts with tasks and pipelines in them."""

    def visit(mapping: MappingNode) -> None:
        for item in mapping.list("params") if mapping.text("resolver") == "bundles" else ():
            value = item.scalar("value") if isinstance(item, MappingNode) else None
            if value and isinstance(item, MappingNode) and item.text("name") == "bundle":
                findings.name(value.piece, "bundle")
        for key in ("taskRef", "pipelineRef"):
            reference = mapping.mapping(key)
            if reference and (bundle := reference.scalar("bundle")):
                findings.name(bundle.piece, "bundle")

    each_mapping(document, visit)


def _read_openshift(findings: Findings, document: MappingNode) -> None:
    """What OpenShift's image streams and builds begin from; what a build pushes stands under `to`."""

    def visit(mapping: MappingNode) -> None:
        source = mapping.mapping("from")
        if source and source.text("kind") == "DockerImage" and (name := source.scalar("name")):
            findings.name(name.piece, "DockerImage")

    each_mapping(document, visit)


def read_machine_images(findings: Findings, document: Node) -> None:
    """CircleCI's images of machines, which no registry has."""

    def visit(mapping: MappingNode) -> None:
        machine = mapping.mapping("machine")
        if machine and (image := machine.scalar("image")):
            findings.pass_over(image.piece)

    each_mapping(document, visit)


def pass_over_built(findings: Findings, document: Node) -> None:
    """The images that a devfile's components build."""
    if not isinstance(document, MappingNode) or not document.scalar("schemaVersion"):
        return
    for component in document.list("components"):
        image = component.mapping("image") if isinstance(component, MappingNode) else None
        if image and (name := image.scalar("imageName")):
            findings.pass_over(name.piece)


def read_job_containers(findings: Findings, document: MappingNode) -> None:
    """Azure's `container:` of jobs, where it is no name of a container among the resources."""
    named: set[str] = set()
    found: list[Scalar] = []

    def visit(mapping: MappingNode) -> None:
        if isinstance(value := mapping.own("container"), Scalar):
            (named.add(value.value) if mapping.own("image") else found.append(value))

    each_mapping(document, visit)
    for each in found:
        if each.value not in named and not each.is_null:
            findings.name(each.piece, "job container")


def is_azure_pipeline(document: Node) -> bool:
    """Whether a document is a pipeline of Azure: a pool of machines, and what they do."""
    if not isinstance(document, MappingNode) or document.own("kind"):
        return False
    pool = isinstance(document.own("pool"), MappingNode | Scalar) and not document.own("image")
    return pool and any(isinstance(document.own(key), ListNode) for key in ("jobs", "stages", "steps"))


_READERS: dict[str, Callable[[Findings, MappingNode], None]] = {
    "kubeadm.k8s.io/": _read_kubeadm,
    "skaffold/": _read_skaffold,
    "kustomize.toolkit.fluxcd.io/": _read_flux,
    "source.toolkit.fluxcd.io/": read_flux_source,
    "helm.cattle.io/": read_k3s_chart,
    "tekton.dev/": _read_bundles,
    "image.openshift.io/": _read_openshift,
    "build.openshift.io/": _read_openshift,
    "template.openshift.io/": _read_openshift,
    "argoproj.io/": _read_application,
    "pkg.crossplane.io/": _read_package,
    "mirror.openshift.io/": _read_image_set,
}
