"""Every block of YAML, TOML, JSON and Python is what it is meant to be, by the parser of its kind."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from blobflow.cli.inputs.manifest_tool import parse_manifest_tool
from blobflow.cli.inputs.regsync import parse_regsync
from blobflow.cli.inputs.requests import parse_registry_prefix
from blobflow.cli.inputs.skopeo import parse_skopeo
from blobflow.cli.inputs.spec import parse_spec
from blobflow.cli.inputs.spec_formats import detect_format
from blobflow.config_file import parse_config
from blobflow.deployment_files.find import find_images
from blobflow.engine.results.report import Report
from blobflow.server.auth.access_rules import parse_access
from blobflow.signatures.policy_file import parse_policy
from tools.documentation.commands import parse
from tools.documentation.documents import Block, blocks_of, documents, name_of

KNOWN = ("", "sh", "console", "text", "yaml", "toml", "json", "python", "ini", "dockerfile")
PLACES = (parse_registry_prefix("registry.example.com"),)


def spec(text: str) -> None:
    """A spec of ours, skopeo's, regsync's or manifest-tool's."""
    document = yaml.safe_load(text)
    if "manifests" in document:
        parse_manifest_tool(text, "block")
        return
    match detect_format(text, "block"):
        case "skopeo":
            parse_skopeo(text, "block", PLACES)
        case "regsync":
            parse_regsync(text, "block", {"REGISTRY_PASSWORD": "secret"})
        case _:
            parse_spec(text, "block")


def kubernetes(document: dict[str, Any]) -> None:
    """An object of Kubernetes: the arguments of its containers are our command, unless they say which."""
    for container in _containers(document):
        if "blobflow" in container["image"] and "command" not in container:
            assert parse([str(each) for each in container["args"]]).verb


def _containers(value: object) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.get("containers", ())
        for each in value.values():
            yield from _containers(each)


def alerts(document: dict[str, Any]) -> None:
    """Rules of Prometheus."""
    for group in document["groups"]:
        assert all("blobflow_" in rule["expr"] for rule in group["rules"])


# A format that is another tool's alone: a page shows it to say what becomes of it here.
OTHERS = "hauler.cattle.io"


def check_yaml(text: str) -> None:
    for document in yaml.safe_load_all(text):
        if "groups" in document:
            alerts(document)
        elif "apiVersion" in document:
            if OTHERS not in document["apiVersion"]:
                kubernetes(document)
        elif "services" in document:  # Compose's, whose images are found
            assert find_images(["-"], stdin=text.encode()).images
        else:
            spec(text)


def check_toml(text: str) -> None:
    document = tomllib.loads(text)
    if document.keys() & {"registry", "signatures", "engine"}:
        parse_config(text, "block", Path("/"))
    elif "host" in document:  # containerd's, of a mirror
        assert all("pull" in host["capabilities"] for host in document["host"].values())
    else:
        parse_access(text, "block")


def check_json(text: str) -> None:
    document = json.loads(text)
    if "totals" in document:
        msgspec.convert(document, Report)
        assert unknown(document, msgspec.to_builtins(msgspec.convert(document, Report))) == []
    elif "default" in document:
        parse_policy(text.encode(), "block")
    else:
        known = {"auths", "credHelpers", "credsStore", "registry-mirrors"}  # docker's files
        assert document.keys() & known, "a JSON block of no known kind"


def unknown(document: Any, known: Any) -> list[str]:
    """The keys that the parser passed over."""
    if isinstance(document, dict) and isinstance(known, dict):
        lost = [key for key in document if key not in known]
        return lost + [
            each for key in document if key in known for each in unknown(document[key], known[key])
        ]
    if isinstance(document, list):
        return [each for pair in zip(document, known, strict=True) for each in unknown(*pair)]
    return []


def check_python(text: str) -> None:
    """It compiles, and what it imports is there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            module = import_module(node.module or "")
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []
        elif isinstance(node, ast.Import):
            for name in node.names:
                import_module(name.name)


CHECKS = {"yaml": check_yaml, "toml": check_toml, "json": check_json, "python": check_python}
BLOCKS = [block for document in documents() for block in blocks_of(document)]


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in CHECKS], ids=lambda block: block.place)
def test_a_block_is_taken_by_the_parser_of_its_kind(block: Block) -> None:
    CHECKS[block.language](block.text)


def test_every_block_says_what_it_is() -> None:
    assert {block.place: block.language for block in BLOCKS if block.language not in KNOWN} == {}
    kinds = {block.language for block in BLOCKS}
    assert CHECKS.keys() <= kinds, "no block of a kind is a kind that is not looked at"


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("yaml", "version: 1\nimagez: [alpine:3]\n"),
        ("yaml", "apiVersion: batch/v1\nspec: {containers: [{image: x/blobflow, args: [sink, x]}]}\n"),
        ("toml", '[registry."a.example"]\nconections = 3\n'),
        ("toml", '[[allow]]\nwho = "x"\n'),
        ("json", '{"totals": {"imagez": 1}, "images": []}'),
        ("json", '{"some": "thing"}'),
        ("json", '{"default": [{"type": "accept"}]}'),
        ("python", "from blobflow import Clint"),
        ("python", "async def"),
    ],
)
def test_a_block_with_a_mistake_is_refused(language: str, text: str) -> None:
    with pytest.raises((Exception,)):
        CHECKS[language](text)


def test_names_are_told_of_documents() -> None:
    assert name_of(BLOCKS[0].document).endswith(".md")
