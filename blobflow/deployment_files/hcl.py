"""Files in HCL: Nomad's jobs and Terraform's containers. Pure.

Of the language as much is read as it takes to find attributes that are a string, and their blocks.
Variables with a default in the same file have that; what else a string takes from elsewhere (`${…}`) can't
be told, nor can another attribute that is no string.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.source_text import Piece, SourceText

TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*|//[^\n]*|/\*(?:[^*]|\*(?!/))*+(?:\*/)?)
    |<<-?(?P<heredoc>[A-Za-z_]\w*)[^\n]*\n
    |(?P<string>"(?:[^"\\\n]|\\.)*+"?)
    |(?P<word>[A-Za-z_][\w.-]*)
    |(?P<sign>[{}=\n\[\](),])""",
    re.VERBOSE,
)
# Blocks of Terraform's providers whose `image` is a container's, and resources whose attribute is an image.
_CONTAINERS = frozenset(("container", "containers", "init_container"))
_VARIABLE = re.compile(r"var\.([\w-]+)\Z")
_INSIDE = re.compile(r"\$\{\s*var\.([\w-]+)\s*\}")
_RESOURCES = {"docker_image": "name", "docker_container": "image", "docker_registry_image": "name"}
_MOST_BLOCKS = 100
# Characters of a value, and of what stands behind it on its line.
_LONGEST = 2000
# Images that are those of other resources in the same files.
_OF_RESOURCE = re.compile(r"(?:data\.)?docker_(?:registry_)?image\.")
_REASON = "has an expression, known when it is applied"


class Attribute(NamedTuple):
    """`NAME = VALUE` in blocks, the outermost first: of each its words and labels. `value`: without quotes;
    `is_text`: it is a string, and nothing behind it."""

    blocks: tuple[tuple[str, ...], ...]
    name: str
    value: Piece
    is_text: bool


def is_hcl(name: str) -> bool:
    """Whether a file of this name is read here."""
    return name.endswith((".tf", ".nomad", ".nomad.hcl"))


def read_hcl(findings: Findings, source: SourceText, name: str) -> None:
    """What a file of this name has its containers run."""
    is_wanted = _of_terraform if name.endswith(".tf") else _of_nomad
    field = "terraform" if name.endswith(".tf") else "nomad"
    attributes = list(attributes_of(source))
    defaults = defaults_of(attributes)
    for attribute in attributes:
        if is_wanted(attribute) and not _OF_RESOURCE.match(attribute.value.text):
            text = attribute.value.text
            if attribute.is_text and "${" not in text and "%{" not in text:
                findings.name(attribute.value, f"{field} {attribute.name}")
            else:
                _expand(findings, attribute, f"{field} {attribute.name}", defaults)


def defaults_of(attributes: Iterable[Attribute]) -> dict[str, Piece]:
    """The variables of a file that have a text as their default, which holds nothing further."""
    return {
        each.blocks[0][1]: each.value
        for each in attributes
        if each.name == "default"
        and each.is_text
        and _is_variable(each.blocks)
        and "${" not in each.value.text
    }


def _is_variable(blocks: tuple[tuple[str, ...], ...]) -> bool:
    return len(blocks) == 1 and len(blocks[0]) == 2 and blocks[0][0] == "variable"


def _expand(findings: Findings, attribute: Attribute, field: str, defaults: Mapping[str, Piece]) -> None:
    """A value with variables, as their defaults make it."""
    text = attribute.value.text
    whole = _INSIDE.fullmatch(text) if attribute.is_text else _VARIABLE.match(text)
    if whole:
        default = defaults.get(whole[1])
        findings.expand(attribute.value, default.text if default else None, field, _REASON, default=default)
        return
    made = _INSIDE.sub(lambda found: defaults[found[1]].text if found[1] in defaults else found[0], text)
    known = attribute.is_text and "${" not in made and "%{" not in made
    findings.expand(attribute.value, made if known else None, field, _REASON)


def _of_nomad(attribute: Attribute) -> bool:
    blocks = [block[0] for block in attribute.blocks]
    return attribute.name == "image" and blocks[-1:] == ["config"] and "task" in blocks


def _of_terraform(attribute: Attribute) -> bool:
    if not attribute.blocks:
        return False
    first, last = attribute.blocks[0], attribute.blocks[-1]
    if first[:1] not in (("resource",), ("data",)) or len(first) < 2:
        return False
    if len(attribute.blocks) == 1:
        return _RESOURCES.get(first[1]) == attribute.name
    return attribute.name == "image" and last[0] in _CONTAINERS


def attributes_of(source: SourceText) -> Iterator[Attribute]:
    text, whole = source.text, source.whole()
    blocks: list[tuple[str, ...]] = []
    words: list[str] = []
    at = 0
    while token := TOKEN.search(text, at):
        at = token.end()
        kind, said = token.lastgroup, token.group()
        if kind == "heredoc":
            at = behind(text, token.group("heredoc"), at)
        elif kind == "word":
            words.append(said)
        elif kind == "string":
            words.append(said[1:-1])
        elif said == "{":
            if len(blocks) < _MOST_BLOCKS:
                blocks.append(tuple(words) or ("",))
            words = []
        elif said == "}":
            del blocks[-1:]
            words = []
        elif said == "=" and len(words) == 1:
            name, words = words[0], []
            value, is_text = _value(whole, at)
            if value is not None:
                yield Attribute(tuple(blocks), name, value, is_text)
                at = value.end + 1 if is_text else at
        elif said != "=":
            words = []


def _value(whole: Piece, at: int) -> tuple[Piece | None, bool]:
    """What stands behind `=` on its line, and whether it is one string."""
    text = whole.text
    end = text.find("\n", at)
    line = whole.cut(at, min(len(text) if end < 0 else end, at + _LONGEST)).strip()
    token = TOKEN.match(line.text)
    if token is None or token.lastgroup == "sign":
        return None, False
    rest = line.text[token.end() :].lstrip()
    if token.lastgroup == "string" and (not rest or rest[0] in "#/}"):
        return line.cut(1, token.end() - 1), True
    return line, False


def behind(text: str, word: str, at: int) -> int:
    """Behind the here-document that a word on a line of its own ends."""
    found = re.compile(rf"(?m)^[ \t]*{word}[ \t]*\r?$").search(text, at)
    return found.end() if found else len(text)
