"""GitLab CI: images and services of jobs, defaults and templates. Pure.

Variables have the values that the file gives them: the job's own, else the pipeline's. One that jobs of the
file set differently can't be told for a place that several of them take in; GitLab's own (`CI_…`) never can.
"""

from __future__ import annotations

import re

from blobflow.deployment_files.findings import Findings, likely_text
from blobflow.deployment_files.interpolation import expand
from blobflow.deployment_files.shell_script import read_script
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, Scalar

# Keys of the top that are no jobs.
_GLOBAL = frozenset(("stages", "variables", "include", "workflow", "cache", "spec"))
# Templates that extend each other in a row; GitLab takes eleven.
_MOST_EXTENDS = 3
_JOB_KEYS = frozenset(("script", "extends", "trigger", "before_script", "stage", "image", "services"))
_SCRIPTS = ("before_script", "script", "after_script")
# Characters of a name, with what its variables are called.
_LONGEST = 2000
_INPUT = re.compile(r"\$\[\[\s*inputs\.([\w-]+)[^\]]*\]\]")


def is_pipeline(document: Node) -> bool:
    """Whether a document without a telling name is a pipeline: it has jobs with a script."""
    if not isinstance(document, MappingNode) or document.own("kind") or document.own("apiVersion"):
        return False
    if document.own("jobs") or (
        document.own("services") and not isinstance(document.own("services"), ListNode)
    ):
        return False
    jobs = [value for key, value in document.items() if key.value not in _GLOBAL]
    scripts = sum(1 for job in jobs if isinstance(job, MappingNode) and _is_job(job))
    return scripts > 0 and (bool(document.own("stages")) or 2 * scripts >= len(jobs) or scripts > 2)


def _is_job(job: MappingNode) -> bool:
    has_script = isinstance(job.get("script"), Scalar | ListNode)
    return (has_script or bool(job.get("extends"))) and len([k for k in _JOB_KEYS if job.get(k)]) > 1


def read_pipeline(findings: Findings, documents: list[Node]) -> None:
    """What a pipeline's jobs run in. A first document may have inputs (`spec:`)."""
    inputs: dict[str, str] = {}
    for document in documents:
        if not isinstance(document, MappingNode):
            continue
        spec = document.mapping("spec")
        if spec and (told := spec.mapping("inputs")):
            for name, value in told.items():
                if isinstance(value, MappingNode) and (default := value.scalar("default")):
                    inputs[name.value] = default.value
        _Pipeline(findings, document, inputs).read()


class _Pipeline:
    def __init__(self, findings: Findings, document: MappingNode, inputs: dict[str, str]) -> None:
        self._findings = findings
        self._document = document
        self._inputs = inputs
        self._common = _variables(document)
        self._known: dict[tuple[int, int], dict[str, str]] = {}
        self._jobs = [
            (value, self._inherited(value, 0))
            for key, value in document.items()
            if key.value not in _GLOBAL and isinstance(value, MappingNode)
        ]
        # What jobs set, but for what all of them and the pipeline set the same.
        self._differing: set[str] = set()
        values = dict(self._common)
        for _, own in self._jobs:
            for name, text in own.items():
                if values.setdefault(name, text) != text or name not in self._common:
                    self._differing.add(name)

    def _inherited(self, job: MappingNode, depth: int) -> dict[str, str]:
        """The variables of a job, with those of the templates that it extends."""
        if (known := self._known.get((id(job), depth))) is not None:
            return known
        extends = job.get("extends")
        names = extends.items if isinstance(extends, ListNode) else [extends]
        found: dict[str, str] = {}
        for name in names[:10] if depth < _MOST_EXTENDS else ():
            template = self._document.mapping(name.value) if isinstance(name, Scalar) else None
            if template:
                found |= self._inherited(template, depth + 1)
        found |= _variables(job)
        self._known[id(job), depth] = found
        return found

    def read(self) -> None:
        self._read_job(self._document, {})
        for job, own in self._jobs:
            self._read_job(job, own)

    def _read_job(self, job: MappingNode, own: dict[str, str]) -> None:
        image = job.get("image")
        self._read_image(image, own, "GitLab CI image")
        services = job.get("services")
        for service in services.items if isinstance(services, ListNode) and not services.tag else ():
            self._read_image(service, own, "GitLab CI services")
        for key in _SCRIPTS:
            script = job.get(key)
            if not isinstance(script, Scalar | ListNode):
                continue
            for line in script.items if isinstance(script, ListNode) else [script]:
                if isinstance(line, Scalar):
                    read_script(self._findings, line.piece, {**self._common, **own})

    def _read_image(self, image: Node | None, own: dict[str, str], field: str) -> None:
        if isinstance(image, MappingNode):
            image = image.get("name")
        if isinstance(image, Scalar) and not image.is_null and not image.tag.startswith("!reference"):
            self._name(image.piece, own, field)

    def _name(self, piece: Piece, own: dict[str, str], field: str) -> None:
        piece = piece.strip()
        if len(piece.text) > _LONGEST:
            self._findings.name(piece, field)
            return
        text = _INPUT.sub(lambda found: self._inputs.get(found.group(1), found.group()), piece.text)
        if "$[[" in text:
            self._findings.name(piece, field)
            return
        if "$" not in text:
            self._findings.expand(piece, text, field) if text != piece.text else self._findings.name(
                piece, field
            )
            return
        values = {**self._common, **own}
        made = expand(text, values.get)
        sure = {name: value for name, value in self._common.items() if name not in self._differing} | own
        certain = expand(text, sure.get)
        if made.text is None:
            names = ", ".join(made.missing[:5])
            self._findings.expand(piece, None, field, f"has variables without a value here ({names})")
        elif certain.text is None:
            why = "has variables that jobs of this file set differently"
            self._findings.leave(piece, field, why, likely_text(made.text))
        else:
            self._findings.expand(piece, certain.text, field)


def _variables(node: MappingNode) -> dict[str, str]:
    """The variables that a job or the pipeline sets, with GitLab's long form for those that people choose."""
    found: dict[str, str] = {}
    variables = node.mapping("variables")
    for name, value in variables.items() if variables else ():
        if isinstance(value, MappingNode):
            value = value.get("value") or value
        if isinstance(value, Scalar):
            found[name.value] = value.value
    return found
