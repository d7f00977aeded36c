"""Kubernetes objects: pod templates at any depth, volumes of images, ConfigMaps, and on request what custom
resources name by common fields. Pure."""

from __future__ import annotations

from blobflow.deployment_files.config_maps import read_config_map
from blobflow.deployment_files.containers import CONTAINER_LISTS, read_container
from blobflow.deployment_files.custom_resources import read_custom_resource
from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, each_mapping

# The API groups of Kubernetes itself; "" is the oldest.
_OWN_GROUPS = frozenset(
    (
        "",
        "apps",
        "autoscaling",
        "batch",
        "extensions",
        "policy",
        *(
            f"{group}.k8s.io"
            for group in (
                "admissionregistration",
                "apiextensions",
                "apiregistration",
                "authentication",
                "authorization",
                "certificates",
                "coordination",
                "discovery",
                "events",
                "flowcontrol.apiserver",
                "internal.apiserver",
                "networking",
                "node",
                "rbac.authorization",
                "resource",
                "scheduling",
                "storage",
                "storagemigration",
            )
        ),
    )
)
# Objects whose fields describe fields, or hold secrets.
_PASSED_OVER = frozenset(("CustomResourceDefinition", "Secret"))


class ObjectReader:
    """Reads objects. `custom_resources`: also their common fields; `left`: kinds that have such and were not
    read for it."""

    def __init__(self, findings: Findings, *, custom_resources: bool) -> None:
        self.left: set[str] = set()
        self._findings = findings
        self._custom_resources = custom_resources
        self._nested = 0

    def read(self, document: Node) -> None:
        """An object, or a list of them."""
        if isinstance(document, ListNode):
            for item in document.items:
                self.read(item)
        if not isinstance(document, MappingNode):
            return
        kind = document.text("kind")
        if kind.endswith("List") and isinstance(document.own("items"), ListNode):
            for item in document.list("items"):
                self.read(item)
            return
        if kind in _PASSED_OVER:
            return
        if kind == "ConfigMap":
            read_config_map(self._findings, document, self._read_nested)
            return
        walk_pods(self._findings, document)
        if kind and is_custom(document.text("apiVersion")):
            self._read_custom(document, kind)

    def _read_custom(self, document: MappingNode, kind: str) -> None:
        if self._custom_resources:
            read_custom_resource(self._findings, document, self._read_nested)
            return
        others = Findings(self._findings.path)
        walk_pods(others, document)
        known = len(others.images) + len(others.untold)
        nested = ObjectReader(others, custom_resources=True)
        read_custom_resource(others, document, nested._read_nested)
        if len(others.images) + len(others.untold) > known:
            self.left.add(kind)

    def _read_nested(self, document: Node) -> None:
        """An object inside the text of another one."""
        if self._nested < 3:
            self._nested += 1
            self.read(document)
            self._nested -= 1


def is_object(node: Node) -> bool:
    """Whether a document is an object of Kubernetes, or a patch of one, or a list of such."""
    if isinstance(node, ListNode):
        return bool(node.items) and all(is_object(item) for item in node.items[:100])
    if not isinstance(node, MappingNode):
        return False
    return bool(node.scalar("kind") and (node.scalar("apiVersion") or _has_spec(node)))


def _has_spec(node: MappingNode) -> bool:
    return any(node.mapping(key) for key in ("metadata", "spec", "data"))


def is_custom(api_version: str) -> bool:
    """Whether an `apiVersion` is not one of Kubernetes itself; files of some tools have a kind and none."""
    group, slash, _ = api_version.partition("/")
    return not api_version or (bool(slash) and group not in _OWN_GROUPS)


def walk_pods(findings: Findings, node: Node) -> None:
    """Every container of every pod template in a node, at any depth, and every volume that is an image."""

    def visit(mapping: MappingNode) -> None:
        for key, value in mapping.pairs:
            items = value.items if isinstance(value, ListNode) else ()
            if field := CONTAINER_LISTS.get(key.value):
                for item in items:
                    if isinstance(item, MappingNode):
                        read_container(findings, item, field)
            elif key.value == "volumes":
                for item in items:
                    image = item.mapping("image") if isinstance(item, MappingNode) else None
                    if image and (reference := image.scalar("reference")):
                        findings.name(reference.piece, "image volume")

    each_mapping(node, visit)
