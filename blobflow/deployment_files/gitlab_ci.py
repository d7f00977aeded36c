"""GitLab CI: images and services of jobs, defaults and templates. Pure.

Variables have the values that the file gives them: the job's own, else the pipeline's. One that jobs of the
file set differently can't be told for a place that several of them take in, by `extends` or an anchor, nor
one that rules or a matrix set; GitLab's own (`CI_…`) never can.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from blobflow.deployment_files.findings import Findings, likely_text
from blobflow.deployment_files.interpolation import expand
from blobflow.deployment_files.shell_script import read_script
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
        # The values with which each place is taken in: by its own job, and by those that extend that.
        self._uses: dict[int, list[_Use]] = {}
        # What jobs set, but for what all of them and the pipeline set the same.
        self._differing = _changing(document.mapping("workflow"))
        for job, _ in self._jobs:
            self._differing |= _changing(job)
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
        for uses in self._uses.values():
            self._name(uses)

    def _taken_in(self, job: MappingNode, key: str, depth: int = 0) -> Node | None:
        """What a job has under a key, if need be from the last of the templates that it extends."""
        if (found := job.get(key)) is not None or depth >= _MOST_EXTENDS:
            return found
        extends = job.get("extends")
        names = extends.items if isinstance(extends, ListNode) else [extends]
        for name in reversed(names[:10]):
            template = self._document.mapping(name.value) if isinstance(name, Scalar) else None
            if template and (found := self._taken_in(template, key, depth + 1)) is not None:
                return found
        return None

    def _read_job(self, job: MappingNode, own: dict[str, str]) -> None:
        changing = _changing(job)
        self._read_image(self._taken_in(job, "image"), own, changing, "GitLab CI image")
        services = self._taken_in(job, "services")
        for service in services.items if isinstance(services, ListNode) and not services.tag else ():
            self._read_image(service, own, changing, "GitLab CI services")
        for key in _SCRIPTS:
            script = job.get(key)
            if not isinstance(script, Scalar | ListNode):
                continue
            for line in script.items if isinstance(script, ListNode) else [script]:
                if isinstance(line, Scalar):
                    read_script(self._findings, line.piece, {**self._common, **own})

    def _read_image(self, image: Node | None, own: dict[str, str], changing: set[str], field: str) -> None:
        if isinstance(image, MappingNode):
            image = image.get("name")
        if isinstance(image, Scalar) and not image.is_null and not image.tag.startswith("!reference"):
            self._uses.setdefault(id(image), []).append(_Use(image, own, changing, field))

    def _name(self, uses: list[_Use]) -> None:
        """An image with all the values that it is taken in with."""
        piece, field = uses[0].image.piece.strip(), uses[0].field
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
        made = expand(text, {**self._common, **uses[0].own}.get)
        certain = {self._certain(text, use) for use in uses}
        if made.text is None:
            names = ", ".join(made.missing[:5])
            why = f"has variables without a value here ({names})" if names else "has more than variables"
            self._findings.expand(piece, None, field, why)
        elif len(certain) > 1 or None in certain:
            why = "has variables that jobs, rules or a matrix of this file set differently"
            self._findings.leave(piece, field, why, likely_text(made.text))
        else:
            self._findings.expand(piece, certain.pop(), field)

    def _certain(self, text: str, use: _Use) -> str | None:
        common = {name: value for name, value in self._common.items() if name not in self._differing}
        sure = {name: value for name, value in (common | use.own).items() if name not in use.changing}
        return expand(text, sure.get).text


class _Use(NamedTuple):
    """An image of a job: the variables that are `own` to it, and those that change as it runs."""

    image: Scalar
    own: dict[str, str]
    changing: set[str]
    field: str


def _changing(node: MappingNode | None) -> set[str]:
    """The variables that rules, or a matrix of jobs, set."""
    found = set[str]()
    rules = node.list("rules") if node else []
    found.update(name for rule in rules if isinstance(rule, MappingNode) for name in _variables(rule))
    parallel = node.mapping("parallel") if node else None
    for row in parallel.list("matrix") if parallel else ():
        if isinstance(row, MappingNode):
            found.update(key.value for key, _ in row.items())
    return found


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
