"""Which format a file has, by its name and what stands in it, and the reader of each. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePath

from blobflow.deployment_files.ansible import (
    by_defaults,
    is_playbook,
    is_variables,
    read_playbook,
    read_variables,
)
from blobflow.deployment_files.bake_files import is_bake, is_bake_json, read_bake, read_bake_json
from blobflow.deployment_files.bazel_files import is_bazel, read_bazel
from blobflow.deployment_files.ci_files import is_drone, read_ci
from blobflow.deployment_files.compose_files import is_compose, read_compose
from blobflow.deployment_files.containers import read_image_key
from blobflow.deployment_files.devcontainer import is_devcontainer, read_devcontainer
from blobflow.deployment_files.dockerfile import is_dockerfile, read_dockerfile
from blobflow.deployment_files.findings import (
    Findings,
    is_filled_in,
    is_likely_image,
    names_an_image,
    words_of,
)
from blobflow.deployment_files.github_actions import is_workflow, read_workflow
from blobflow.deployment_files.gitlab_ci import is_pipeline, read_pipeline
from blobflow.deployment_files.hcl import is_hcl, read_hcl
from blobflow.deployment_files.helm_template import read_template
from blobflow.deployment_files.helm_values import read_chart, read_values
from blobflow.deployment_files.image_list import is_image_list, read_image_list
from blobflow.deployment_files.jinja_text import REASON, name_inside, without_statements
from blobflow.deployment_files.known_resources import (
    is_azure_pipeline,
    pass_over_built,
    read_job_containers,
    read_machine_images,
)
from blobflow.deployment_files.kubernetes import ObjectReader, is_object, walk_pods
from blobflow.deployment_files.kustomize import (
    is_operations,
    kustomization_of,
    read_kustomization,
    read_operations,
)
from blobflow.deployment_files.kustomize_builds import Kustomization, is_built
from blobflow.deployment_files.lock_mark import is_lock
from blobflow.deployment_files.shell_lists import read_shell_lists
from blobflow.deployment_files.skaffold_builds import SkaffoldArtifacts, artifacts_of
from blobflow.deployment_files.source_text import SourceText
from blobflow.deployment_files.unit_files import is_unit, read_unit
from blobflow.deployment_files.yaml_tree import (
    ListNode,
    MappingNode,
    Node,
    NotYaml,
    Scalar,
    compose,
    each_mapping,
)
from blobflow.errors import InvalidConfig

_DOCKERFILE = re.compile(r"(?i)(?:\A|[._-])(?:dockerfile|containerfile)(?:\Z|[._-])")
# Files about Dockerfiles, not such.
_NOT_DOCKERFILE = re.compile(
    r"(?i)\.(?:dockerignore|containerignore|ya?ml|json|md|go|py|js|ts|sh|txt|toml|rst)\Z"
)
_COMPOSE = re.compile(r"(?i)(?:\A|[._-])compose(?:[._-].*)?\.ya?ml\Z")
_GITLAB = re.compile(r"(?i)gitlab-ci")
_VALUES = re.compile(r"(?i)(?:\A|[._-])values(?:[._-].*)?\.ya?ml\Z")
_KUSTOMIZATION = re.compile(r"(?i)(?:\A|[._-])kustomization(?:\.ya?ml)?\Z")
_YAML = re.compile(r"(?i)\.(?:ya?ml|json)\Z")
_SHELL = re.compile(r"#!\s*\S*/(?:env\s+(?:-\S+\s+)*)?(?:ba|da|k|z|a)?sh\b")
_LIST = re.compile(r"(?i)images?\b|images?[._-]|\.(?:list|lst)\Z")
_VARIABLES = re.compile(r"(?:\A|/)(?:group_vars|host_vars|defaults|vars)/")
# Lines of YAML that is no YAML before it is rendered.
_BRACES = re.compile(r"(?m)^[ \t]*(?:- )?(?:[\w.\"'/-]+:[ \t]+)?\{\{")
# Lines of any file: each takes some memory while it is looked at.
MAX_LINES = 500_000


class Reading:
    """One file that is read. `env`: asks for the variables of an `.env` beside it. `left`: kinds of custom
    resources whose common fields name images, and were not read. `kustomizations` and `artifacts`: what the
    file is to Kustomize, and what skaffold builds by it."""

    def __init__(
        self, source: SourceText, *, custom_resources: bool, env: Callable[[], Mapping[str, str]]
    ) -> None:
        self.findings = Findings(source.path)
        self.kustomizations: list[Kustomization] = []
        self.artifacts: list[SkaffoldArtifacts] = []
        self._source = source
        self._env = env
        self._objects = ObjectReader(self.findings, custom_resources=custom_resources)

    @property
    def left(self) -> set[str]:
        return self._objects.left

    def read(self) -> str:
        """Find what the file names. Returns why it names none, as far as is known; "" if it has a format that
        is read. Raises InvalidConfig."""
        text, path = self._source.text, PurePath(self._source.path)
        if is_lock(text):
            return "is a lock file, which is read where it is named itself"
        if not text.strip():
            return "is empty"
        if text.count("\n") > MAX_LINES:
            raise InvalidConfig(f"{self._source.path} has over {MAX_LINES} lines")
        name = path.name
        if inside := name_inside(name):
            return self._read_jinja(inside)
        if reader := _reader_of(name):
            reader(self.findings, self._source)
        elif _DOCKERFILE.search(name) and not _NOT_DOCKERFILE.search(name):
            read_dockerfile(self.findings, self._source)
        elif _SHELL.match(text) or name.endswith((".sh", ".bash")):
            read_shell_lists(self.findings, self._source, self._objects)
        elif _YAML.search(name) or _KUSTOMIZATION.search(name):
            return self._read_yaml()
        elif name.endswith(".tpl"):
            read_template(self.findings, self._source)
        elif is_image_list(text, named=bool(_LIST.search(name))):
            read_image_list(self.findings, self._source)
        elif is_dockerfile(text):
            read_dockerfile(self.findings, self._source)
        else:
            return self._read_unknown()
        return ""

    def _read_jinja(self, name: str) -> str:
        """A template of Jinja, which makes a file of this name."""
        source = without_statements(self._source)
        if reader := _reader_of(name):
            reader(self.findings, source)
        elif _DOCKERFILE.search(name) and not _NOT_DOCKERFILE.search(name):
            read_dockerfile(self.findings, source)
        elif _SHELL.match(source.text) or name.endswith((".sh", ".bash")):
            read_shell_lists(self.findings, source, self._objects)
        elif _LIST.search(name) and not _YAML.search(name) and is_image_list(source.text, named=True):
            read_image_list(self.findings, source)
        else:
            read_template(self.findings, source, field="jinja template", reason=REASON, likely=by_defaults)
            found = self.findings.images or self.findings.untold
            return "" if found or is_worth_reading(name) else "is of no format that is read"
        return ""

    def _read_unknown(self) -> str:
        """A text whose name says nothing: YAML if it can be that."""
        try:
            return self._read_yaml()
        except NotYaml:
            return "is of no format that is read"

    def _read_yaml(self) -> str:
        source = self._source
        has_braces = "{{" in source.text
        try:
            documents = compose(source)
        except NotYaml:
            if not has_braces or not _BRACES.search(source.text):
                raise
            documents = []
        if has_braces and (not documents or _is_template(documents)):
            read_template(self.findings, source)
            return ""
        is_blank = not any(not isinstance(each, Scalar) or each.value for each in documents)
        if is_blank and (_YAML.search(source.path) or _LIST.search(PurePath(source.path).name)):
            return "has nothing but comments"
        if self._read_documents(documents):
            return ""
        is_text = all(isinstance(each, Scalar) for each in documents)
        return "is of no format that is read" if is_text else "is YAML of no format that is read"

    def _read_documents(self, documents: list[Node]) -> bool:
        path = PurePath(self._source.path)
        is_ci = bool(_GITLAB.search(str(path))) or any(is_pipeline(document) for document in documents)
        if is_ci and not any(_is_other(document) for document in documents):
            read_pipeline(self.findings, documents)
            return True
        known = False
        for document in documents:
            known = self._read_document(document, path) or known
        return known

    def _read_document(self, document: Node, path: PurePath) -> bool:
        findings, name = self.findings, path.name
        if isinstance(document, Scalar):
            return False
        if isinstance(document, MappingNode):
            if _KUSTOMIZATION.search(name) or _is_kustomization(document):
                read_kustomization(findings, document, self._objects)
                if is_built(self._source.path):
                    self.kustomizations.append(kustomization_of(self._source.path, document))
            elif is_workflow(document):
                read_workflow(findings, document)
            elif is_drone(document, str(path)):
                return self._read_any(document)
            elif is_compose(document, named=bool(_COMPOSE.search(name))):
                read_compose(findings, document, self._env())
            elif is_bake_json(name):
                read_bake_json(findings, document)
            elif name == "Chart.yaml":
                read_chart(findings, document)
            elif is_object(document):
                self._objects.read(document)
                if (built := artifacts_of(self._source.path, document)) is not None:
                    self.artifacts.append(built)
            elif _VALUES.search(name):
                read_values(findings, document)
            elif _VARIABLES.search(str(path)) or is_variables(document):
                read_variables(findings, document)
            else:
                return self._read_any(document)
        elif is_operations(document) and isinstance(document, ListNode):
            read_operations(findings, document)
        elif is_object(document):
            self._objects.read(document)
        elif is_playbook(document):
            read_playbook(findings, document, self._objects)
        else:
            return self._read_any(document)
        return True

    def _read_any(self, document: Node) -> bool:
        """YAML of an unknown kind: pods, patches of them, images in parts, and keys called image with a value
        that is surely one or has a tag."""
        before = len(self.findings.images) + len(self.findings.untold)
        read_machine_images(self.findings, document)
        pass_over_built(self.findings, document)
        read_ci(self.findings, document, self._source.path)
        if is_azure_pipeline(document) and isinstance(document, MappingNode):
            read_job_containers(self.findings, document)
        walk_pods(self.findings, document)
        if isinstance(document, ListNode) and document.items and all(map(_is_tagged, document.items)):
            for item in document.items:
                if isinstance(item, Scalar):
                    self.findings.name(item.piece, "image list")

        def visit(mapping: MappingNode) -> None:
            for key, value in mapping.pairs:
                if isinstance(value, MappingNode) and names_an_image(key.value):
                    value = value.get("name") or value
                if isinstance(value, Scalar) and (_is_tagged(value) or _is_filled_image(key, value)):
                    read_image_key(self.findings, key.value, value, "image")

        each_mapping(document, visit)
        if _has_parts(document):
            read_values(self.findings, document)
        return len(self.findings.images) + len(self.findings.untold) > before


def _reader_of(name: str) -> Callable[[Findings, SourceText], None] | None:
    """The reader of files that are known by their name alone, and are no YAML."""
    if is_hcl(name):
        return lambda findings, source: read_hcl(findings, source, name)
    found = {
        read_unit: is_unit,
        read_bazel: is_bazel,
        read_devcontainer: is_devcontainer,
        read_bake: is_bake,
    }
    return next((reader for reader, is_one in found.items() if is_one(name)), None)


def is_worth_reading(path: str) -> bool:
    """Whether a file in a folder has a name as deployment files have it, or is a template of one."""
    name = PurePath(path).name
    name = name_inside(name) or name
    if _reader_of(name):
        return True
    if _DOCKERFILE.search(name):
        return not _NOT_DOCKERFILE.search(name)
    if _YAML.search(name) or _KUSTOMIZATION.search(name) or name.endswith((".sh", ".bash")):
        return True
    return bool(_LIST.search(name)) and ("." not in name or name.endswith((".txt", ".list", ".lst")))


def _is_kustomization(document: MappingNode) -> bool:
    api = document.text("apiVersion").partition("/")[0]
    return api == "kustomize.config.k8s.io" and document.text("kind") in ("Kustomization", "Component")


def _is_other(document: Node) -> bool:
    """Whether a document with a pipeline's file name is certainly none."""
    return isinstance(document, MappingNode) and bool(document.own("apiVersion") and document.own("kind"))


def _is_template(documents: list[Node]) -> bool:
    found: list[bool] = []
    for document in documents:
        each_mapping(document, lambda mapping: found.append(mapping.braces))
    return any(found)


def _is_tagged(node: Node) -> bool:
    """Whether a value looks like an image with a tag or digest."""
    text = node.value.strip() if isinstance(node, Scalar) else ""
    return is_likely_image(text) and (":" in text or "@" in text)


def _is_filled_image(key: Scalar, value: Scalar) -> bool:
    """Whether a key called image has the name of one in which something is filled in later."""
    text = value.value.strip()
    return words_of(key.value)[-1:] == ["image"] and "/" in text and " " not in text and is_filled_in(text)


def _has_parts(document: Node) -> bool:
    found: list[bool] = []
    each_mapping(
        document, lambda each: found.append(bool(each.scalar("repository") and each.scalar("tag", "digest")))
    )
    return any(found)
