"""Spec files in any format: ours, skopeo's, regsync's. The top-level keys decide which one it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import yaml

from blobflow.cli.inputs.regsync import parse_regsync
from blobflow.cli.inputs.requests import MirrorRequest, RegistryPrefix
from blobflow.cli.inputs.skopeo import IMAGE_LISTS, parse_skopeo
from blobflow.cli.inputs.spec import parse_spec
from blobflow.cli.inputs.yaml_nodes import child, compose, is_null
from blobflow.cli.options.images import SpecFormat
from blobflow.deployment_files.lock_mark import is_lock
from blobflow.errors import UsageError
from blobflow.validation_messages import closest

_OURS = {"version", "defaults", "images", "collect"}
_SAVED_PLAN = re.compile(r'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"sum"\s*:')  # as `planfile` has it


def read_spec(
    text: str,
    name: str,
    targets: Sequence[RegistryPrefix] = (),
    form: SpecFormat = "auto",
    *,
    scoped: bool = False,
    needs_targets: bool = True,
    environ: Mapping[str, str] | None = None,
) -> MirrorRequest:
    """The request of a file. `targets` and `scoped` are for a skopeo file, which does not say where to;
    `environ` is for the templates of a regsync file. `needs_targets`: see `parse_spec`.

    Raises InvalidConfig, InvalidReference or UsageError with file, line and what to write instead.
    """
    form = detect_format(text, name) if form == "auto" else form
    # What is wrong with the file comes first: it may be why it is not taken for what it is.
    if form == "skopeo":
        request = parse_skopeo(text, name, targets, scoped=scoped)
        if not targets:
            raise UsageError(f"{name} is skopeo's YAML, which names sources alone; say where to with --to")
        return request
    if form == "regsync":
        request = parse_regsync(text, name, environ or {})
    else:
        request = parse_spec(text, name, needs_targets=needs_targets and not targets)
    if targets:
        raise UsageError(f"{name} says itself where its images go; leave --to out")
    if scoped:
        raise UsageError("--scoped is about skopeo's YAML; elsewhere a prefix or `rename` says the same")
    return request


def detect_format(text: str, name: str) -> SpecFormat:
    """The format of a file. Ours if in doubt, so that errors are in its words.

    Raises UsageError for a saved plan and a lock file, of which YAML would only tell what is no key of a
    spec.
    """
    if _SAVED_PLAN.match(text):
        raise UsageError(f"{name} is a saved plan, not a spec; `blobflow apply {name}` carries it out")
    if is_lock(text):
        raise UsageError(f"{name} is a lock file, not a spec; --images-from {name} takes its images")
    node = compose(text, name)
    lists = [str(key.value) for key, value in node.value if isinstance(value, yaml.SequenceNode)]
    if child(node, "images") is None and any(closest(key, ("sync", "images")) == "sync" for key in lists):
        return "regsync"
    pairs = [pair for pair in node.value if not (is_null(pair[1]) or str(pair[0].value).startswith("x-"))]
    keys = {str(key.value) for key, _ in pairs}
    if not keys & _OURS and any(_names_sources(*pair) for pair in pairs):
        return "skopeo"
    return "blobflow"


def _names_sources(key: yaml.Node, value: yaml.Node) -> bool:
    """Whether the entry is a registry with its images, or meant to be."""
    return bool(re.search(r"[.:]|^localhost$", str(key.value))) or any(
        child(value, each) for each in IMAGE_LISTS
    )
