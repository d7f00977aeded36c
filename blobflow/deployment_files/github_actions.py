"""GitHub Actions: containers and services of jobs, `docker://` actions, and commands in scripts. Pure."""

from __future__ import annotations

import re

from blobflow.deployment_files.findings import Findings, likely_text
from blobflow.deployment_files.shell_script import read_script
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_tree import MappingNode, Node, Scalar

_DOCKER = "docker://"
_MATRIX = re.compile(r"\$\{\{\s*matrix\.([\w-]+)(?:\.([\w-]+))?\s*\}\}\Z")
_EXPRESSION = re.compile(r"\$\{\{\s*env\.(\w+)\s*\}\}")


def is_workflow(document: Node) -> bool:
    """Whether a document is a workflow, or an action that others use."""
    if not isinstance(document, MappingNode) or document.own("kind") or document.own("apiVersion"):
        return False
    jobs = document.mapping("jobs")
    if jobs and any(
        isinstance(job, MappingNode) and (job.get("runs-on") or job.get("uses")) for _, job in jobs.items()
    ):
        return True
    runs = document.mapping("runs")
    return bool(runs and runs.scalar("using"))


def read_workflow(findings: Findings, document: MappingNode) -> None:
    """What the jobs of a workflow, or the steps of an action, pull."""
    env = _env(document)
    jobs = document.mapping("jobs")
    for _, job in jobs.items() if jobs else ():
        if not isinstance(job, MappingNode):
            continue
        own = {**env, **_env(job)}
        strategy = job.mapping("strategy")
        matrix = strategy.mapping("matrix") if strategy else None
        _name(findings, job.get("container"), "workflow container", own, matrix)
        services = job.mapping("services")
        for _, service in services.items() if services else ():
            _name(findings, service, "workflow services", own, matrix)
        _read_steps(findings, job.list("steps"), own)
    if runs := document.mapping("runs"):
        image = runs.scalar("image")
        if image and image.value.startswith(_DOCKER):
            _name(findings, image, "action image", env)
        _read_steps(findings, runs.list("steps"), env)


def _read_steps(findings: Findings, steps: list[Node], env: dict[str, str]) -> None:
    for step in steps:
        if not isinstance(step, MappingNode):
            continue
        own = {**env, **_env(step)}
        uses = step.scalar("uses")
        if uses and uses.value.startswith(_DOCKER):
            _name(findings, uses, "workflow uses: docker://", own)
        if script := step.scalar("run"):
            read_script(findings, script.piece, own)


def _name(
    findings: Findings,
    node: Node | None,
    field: str,
    env: dict[str, str],
    matrix: MappingNode | None = None,
) -> None:
    """A name, or a mapping with `image`. Where the matrix gives it as a whole, what it has are images."""
    if isinstance(node, MappingNode):
        node = node.get("image")
    if isinstance(node, Scalar) and not node.is_null:
        findings.name(node.piece, field, likely=_likely(node.piece, env))
        if matrix and (found := _MATRIX.match(node.value.strip())):
            _read_matrix(findings, matrix, found[1], found[2] or "")


def _read_matrix(findings: Findings, matrix: MappingNode, key: str, inner: str) -> None:
    """All values of a key, or of a key below it, and those that `include` adds."""
    values = [*matrix.list(key)]
    values += [value for each in matrix.list("include") if (value := _below(each, key)) is not None]
    for value in values:
        image = _below(value, inner) if inner else value
        if isinstance(image, Scalar) and not image.is_null:
            findings.name(image.piece, "workflow matrix")


def _below(node: Node, key: str) -> Node | None:
    return node.get(key) if isinstance(node, MappingNode) else None


def _likely(piece: Piece, env: dict[str, str]) -> str:
    if "${{" not in piece.text:
        return ""
    made = _EXPRESSION.sub(lambda found: env.get(found.group(1), found.group()), piece.text)
    return likely_text(made.strip().removeprefix(_DOCKER))


def _env(node: MappingNode) -> dict[str, str]:
    env = node.mapping("env")
    return {key.value: value.value for key, value in env.items() if isinstance(value, Scalar)} if env else {}
