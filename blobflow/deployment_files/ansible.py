"""Ansible: tasks that run or pull images, and variables that name them. Pure.

What Jinja fills in can't be told.
"""

from __future__ import annotations

import re

from blobflow.deployment_files.compose_files import is_compose, read_compose
from blobflow.deployment_files.containers import read_image_key
from blobflow.deployment_files.contract import PartKind
from blobflow.deployment_files.findings import Findings, is_bare, is_likely_image, likely_text, words_of
from blobflow.deployment_files.kubernetes import ObjectReader, is_object
from blobflow.deployment_files.shell_script import read_script
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_numbers import read_as_another
from blobflow.deployment_files.yaml_tree import ListNode, MappingNode, Node, Scalar, each_mapping

# Modules whose `image` is what they run, and modules whose `name` is an image.
_RUNNING = frozenset(
    [
        "docker_container",
        "docker_swarm_service",
        "podman_container",
        "docker_container_exec",
        "podman_runlabel",
    ]
)
_PULLING = frozenset(
    ["docker_image", "docker_image_pull", "podman_image", "docker_image_info", "docker_image_export"]
)
_OBJECTS = frozenset(("k8s", "kubernetes"))
_COMMANDS = frozenset(("command", "shell"))
_COMPOSE = frozenset(("docker_compose", "docker_compose_v2"))
_PLAY_KEYS = frozenset(
    ["hosts", "tasks", "roles", "import_playbook", "import_tasks", "include_tasks", "block", "pre_tasks"]
)
_TASK_KEYS = frozenset(
    ["name", "when", "register", "become", "tags", "vars", "loop", "with_items", "notify", "delegate_to"]
)
_SETTING = ("vars", "set_fact", "ansible.builtin.set_fact")
_OLD_FORM = re.compile(r"(?:\A|\s)(image|name|tag|source|state)=(\"[^\"]*\"|'[^']*'|\S+)")
_DEFAULT = re.compile(r"\{\{[^{}]*\|\s*default\(\s*(['\"])([^'\"]+)\1[^{}]*\)\s*\}\}")
_VARIABLE = re.compile(r"\{\{-?\s*([A-Za-z_]\w*)\s*-?\}\}")
_REASON = "is filled in by Ansible"
_VERSIONED = "has no tag; the variable with its version may be the one that it gets"
# What a variable's name ends in when another one has the rest of the image's name.
_ENDS = (
    ("_repo", "_tag"),
    ("_repository", "_tag"),
    ("_image", "_tag"),
    ("_image", "_image_tag"),
    ("image", "image_version"),
    ("_name", "_tag"),
)


def is_playbook(document: Node) -> bool:
    """Whether a document is a list of plays or tasks."""
    if not isinstance(document, ListNode) or not document.items:
        return False
    tasks = [item for item in document.items[:200] if isinstance(item, MappingNode)]
    return len(tasks) == len(document.items[:200]) and any(_is_task(task) for task in tasks)


def _is_task(task: MappingNode) -> bool:
    keys = {key.value for key, _ in task.pairs}
    if keys & _PLAY_KEYS:
        return True
    modules = {key.rpartition(".")[2] for key in keys - _TASK_KEYS}
    return bool(modules & (_RUNNING | _PULLING | _OBJECTS | _COMPOSE)) or any(
        key.count(".") == 2 for key in keys
    )


def read_playbook(findings: Findings, document: Node, objects: ObjectReader) -> None:
    """What the tasks and variables of a playbook, or of a file of tasks, name."""
    variables: dict[str, str] = {}
    for each in _mappings(document):
        for word in _SETTING:
            if mapping := each.mapping(word):
                variables |= {
                    name.value: value.value for name, value in mapping.pairs if isinstance(value, Scalar)
                }
    for each in _mappings(document):
        for key, value in each.pairs:
            module = key.value.rpartition(".")[2]
            if key.value in _SETTING:
                if isinstance(value, MappingNode):
                    read_variables(findings, value)
            elif module in _RUNNING:
                _read_module(findings, value, ("image",), variables)
            elif module in _PULLING:
                _read_module(findings, value, ("name", "tag"), variables)
            elif module in _OBJECTS and isinstance(value, MappingNode):
                for name in ("definition", "resource_definition"):
                    if (definition := value.get(name)) and is_object(definition):
                        objects.read(definition)
            elif module in _COMMANDS:
                command = value.scalar("cmd") if isinstance(value, MappingNode) else value
                if isinstance(command, Scalar):
                    read_script(findings, command.piece)
            elif module in _COMPOSE and isinstance(value, MappingNode):
                definition = value.get("definition")
                if isinstance(definition, MappingNode) and is_compose(definition):
                    read_compose(findings, definition, {})


def _mappings(document: Node) -> list[MappingNode]:
    found: list[MappingNode] = []
    each_mapping(document, found.append)
    return found


def _read_module(findings: Findings, node: Node, keys: tuple[str, ...], variables: dict[str, str]) -> None:
    """A task's image: in a mapping, or in the old form `key=value key=value`."""
    values: dict[str, Piece] = {}
    if isinstance(node, MappingNode):
        values = {key.value: value.piece for key, value in node.items() if isinstance(value, Scalar)}
    elif isinstance(node, Scalar):
        for found in _OLD_FORM.finditer(node.value):
            values[found.group(1)] = node.piece.cut(*found.span(2)).strip("\"'")
    built = "source" in values and values["source"].text in ("build", "local", "load")
    if keys[0] not in values or built or ("state" in values and values["state"].text == "absent"):
        return
    name, tag = values[keys[0]], values.get(keys[1]) if len(keys) > 1 else None
    field = f"ansible {keys[0]}"
    number = node.scalar(keys[1]) if isinstance(node, MappingNode) and tag else None
    if tag and number and (reason := read_as_another(number)):
        findings.leave(name, f"{field} + tag", reason, written=f"{name.text} + {tag.text}")
        return
    if tag and tag.text and ":" not in name.text.rpartition("/")[2] and "{" not in name.text + tag.text:
        pieces: list[tuple[PartKind, Piece]] = [("name", name), ("tag", tag)]
        findings.join(pieces, f"{name.strip().text}:{tag.strip().text}", f"{field} + tag")
        return
    likely = _filled(name.text, variables)
    if tag and likely and ":" not in likely.rpartition("/")[2]:
        likely = f"{likely}:{_filled(tag.text, variables) or tag.text}"
    findings.name(name, field, reason=_REASON if "{" in name.text else "", likely=likely_text(likely))


def by_defaults(text: str) -> str:
    """The image that an expression of Jinja is by the defaults in it; "" if it is none."""
    return likely_text(_filled(text, {}))


def _filled(text: str, variables: dict[str, str]) -> str:
    """What a text is by the defaults in it and the variables of the file."""
    if "{{" not in text or len(text) > 1000:
        return ""
    made = _DEFAULT.sub(lambda found: found.group(2), text)
    for _ in range(5):
        made = _VARIABLE.sub(lambda found: variables.get(found.group(1), found.group()), made)
        if "{{" not in made or len(made) > 2000:
            break
    return made


def is_variables(document: Node) -> bool:
    """Whether a document looks like a file of variables that name images, `nginx_image: …`."""
    if not isinstance(document, MappingNode) or document.own("kind") or document.own("apiVersion"):
        return False
    return any("_" in key.value and "image" in words_of(key.value) for key, _ in document.pairs)


def read_variables(findings: Findings, mapping: MappingNode) -> None:
    """Variables that name images: in one, or one for the repository and one for the tag."""
    variables = {key.value: value for key, value in mapping.pairs if isinstance(value, Scalar)}
    texts = {name: value.value for name, value in variables.items()}
    done = set[str]()
    for name, value in variables.items():
        if value.is_null or "\n" in value.value or "image" not in words_of(name):
            continue
        ends = next(
            ((a, b) for a, b in _ENDS if name.endswith(a) and name.removesuffix(a) + b in variables), None
        )
        if ends:
            tag = variables[name.removesuffix(ends[0]) + ends[1]]
            _read_pair(findings, value, tag, texts)
            done.add(name)
        elif name not in done:
            version = variables.get(f"{name.removesuffix('_image')}_version")
            if name.endswith("_image") and version and _is_open(value.value.strip()):
                likely = likely_text(f"{value.value.strip()}:{version.value.strip()}")
                findings.leave(value.piece, "ansible variable", _VERSIONED, likely)
            elif "{{" in value.value and words_of(name)[-1] == "image":
                made = likely_text(_filled(value.value, texts))
                findings.name(value.piece, "ansible variable", reason=_REASON, likely=made)
            elif is_likely_image(value.value.strip()):
                read_image_key(findings, name, value, "ansible variable")
    for _, each in mapping.pairs:
        if isinstance(each, MappingNode | ListNode):
            for nested in _mappings(each):
                for key, inner in nested.pairs:
                    if isinstance(inner, Scalar) and not is_bare(inner.value):
                        read_image_key(findings, key.value, inner, "ansible variable")


def _is_open(text: str) -> bool:
    """Whether a text is an image without a tag or digest."""
    return (
        "{" not in text and "@" not in text and ":" not in text.rpartition("/")[2] and is_likely_image(text)
    )


def _read_pair(findings: Findings, name: Scalar, tag: Scalar, texts: dict[str, str]) -> None:
    if tag.is_null or not tag.value.strip():
        findings.leave(name.piece, "ansible variable", "has an empty tag: the role puts one in")
    elif reason := read_as_another(tag):
        written = f"{name.value} + {tag.value}"
        findings.leave(name.piece, "ansible variables", reason, written=written)
    elif "{{" in name.value + tag.value:
        filled = f"{_filled(name.value, texts) or name.value}:{_filled(tag.value, texts) or tag.value}"
        written = f"{name.value} + {tag.value}"
        findings.leave(name.piece, "ansible variable", _REASON, likely_text(filled), written=written)
    else:
        pieces: list[tuple[PartKind, Piece]] = [("name", name.piece), ("tag", tag.piece)]
        findings.join(pieces, f"{name.value.strip()}:{tag.value.strip()}", "ansible variables")
