"""Dockerfiles: FROM, COPY --from, RUN --mount=from=, and the frontend of the syntax directive. Pure.

The language is BuildKit's (its reference, "Parser directives", "FROM", "Here-Documents"). ARGs before the
first FROM give defaults to FROM; no other variable has a value before a build.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, takewhile

import msgspec

from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.heredocs import HeredocEnds
from blobflow.deployment_files.interpolation import expand
from blobflow.deployment_files.source_text import Piece, SourceText

_DIRECTIVE = re.compile(r"[ \t]*#[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t]*=(.*)\Z")
_HEREDOC = re.compile(r"(?<!<)<<(-?)([\"']?)([A-Za-z_][\w.-]*)\2")
_INSTRUCTION = re.compile(r"[ \t]*([A-Za-z]+)(?=[ \t\r\n]|\Z)")
_ARG = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:=(.*))?\Z", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_FLAG = re.compile(r"--[a-z-]+(?:=|\Z)")
_FROM_OF_MOUNT = re.compile(r"(?:\A|,)from=([^,]+)")
_AS = re.compile(r"[aA][sS]\Z")
# Of an instruction: what stands behind them is a command, or paths.
_MOST_WORDS = 100
# Instructions that may have here-documents.
_WITH_HEREDOCS = frozenset(("RUN", "COPY", "ADD"))
_CHOSEN = "is a stage of this file, which a variable chooses"


class _Instruction(msgspec.Struct, frozen=True):
    """One instruction: its word in capitals, and its arguments as words."""

    word: str
    arguments: tuple[Piece, ...]


class _Args(msgspec.Struct):
    """The ARGs before the first FROM: what they are, and where their defaults stand."""

    values: dict[str, str | None] = msgspec.field(default_factory=dict)
    defaults: dict[str, Piece] = msgspec.field(default_factory=dict)


class _Stage(msgspec.Struct):
    """What `FROM` and `--from` of a file can name."""

    names: set[str] = msgspec.field(default_factory=set)
    count: int = 0


def read_dockerfile(findings: Findings, source: SourceText, field: str = "") -> None:
    """Every image that a build pulls. `field` before the name of each field, for a file inside another."""
    escape, frontend = _directives(source)
    if frontend:
        findings.name(frontend, f"{field}syntax directive")
    instructions = list(_instructions(source, escape))
    args = _Args()
    earlier, all_stages = _Stage(), _stages(instructions)

    for instruction in instructions:
        if instruction.word == "ARG" and not earlier.count:
            _read_args(instruction, args, escape)
        elif instruction.word == "FROM":
            _read_from(findings, instruction, args, earlier, all_stages, escape, field)
        else:
            _read_others(findings, instruction, all_stages, field)


def is_dockerfile(text: str) -> bool:
    """Whether a text without a telling name is one: its first instruction is FROM, or ARG before a FROM."""
    for instruction in _instructions(SourceText("", text), "\\"):
        if instruction.word == "FROM":
            return bool(instruction.arguments)
        if instruction.word != "ARG":
            return False
    return False


def _directives(source: SourceText) -> tuple[str, Piece | None]:
    """The escape character, and the image of the frontend. Directives end at the first line that is none."""
    escape, frontend = "\\", None
    for line in source.whole().lines():
        found = _DIRECTIVE.match(line.text)
        if not found:
            if line.text.startswith("#!") and line.start == 0:
                continue
            break
        name, value = found.group(1).lower(), found.group(2).strip()
        if name == "escape" and value in ("\\", "`"):
            escape = value
        elif name == "syntax" and value:
            frontend = line.cut(*found.span(2)).strip()
    return escape, frontend


def _instructions(source: SourceText, escape: str) -> Iterator[_Instruction]:
    lines = list(source.whole().lines())
    ends = HeredocEnds(lines)
    index = 0
    while index < len(lines):
        text = lines[index].text
        if not text.strip() or text.lstrip().startswith("#"):
            index += 1
            continue
        found = _INSTRUCTION.match(text)
        word = found.group(1).upper() if found else ""
        words: list[Piece] = []
        heredocs: list[tuple[str, bool]] = []
        rest = lines[index].cut(found.end() if found else 0)
        while True:
            stripped = rest.text.rstrip(" \t")
            goes_on = stripped.endswith(escape)
            content = rest.cut(0, len(stripped) - (1 if goes_on else 0))
            words += islice(content.words(), _MOST_WORDS - len(words))
            if word in _WITH_HEREDOCS:
                heredocs += [(each[2], bool(each[0])) for each in _HEREDOC.findall(content.text)]
            index += 1
            while goes_on and index < len(lines) and _is_between(lines[index].text):
                index += 1
            if not goes_on or index >= len(lines):
                break
            rest = lines[index]
        for end, tabs in heredocs:
            last = ends.find(end, index, tabs=tabs)
            index = index if last is None else last + 1
        if word == "ONBUILD" and words:
            word, words = words[0].text.upper(), words[1:]
        yield _Instruction(word, tuple(words))


def _is_between(text: str) -> bool:
    """Whether a line between two of an instruction is left out: a comment, or an empty one."""
    return not text.strip() or text.lstrip().startswith("#")


def _stages(instructions: list[_Instruction]) -> _Stage:
    stages = _Stage()
    for instruction in instructions:
        if instruction.word == "FROM":
            _count(stages, instruction)
    return stages


def _count(stages: _Stage, instruction: _Instruction) -> None:
    stages.count += 1
    words = _without_flags(instruction)
    if len(words) >= 3 and _AS.match(words[1].text):
        stages.names.add(words[2].text.lower())


def _without_flags(instruction: _Instruction) -> list[Piece]:
    words = list(instruction.arguments)
    while words and _FLAG.match(words[0].text):
        del words[0]
    return words


def _read_args(instruction: _Instruction, args: _Args, escape: str) -> None:
    """The defaults of one ARG instruction. Quotes around a value are no part of it."""
    for piece in instruction.arguments:
        found = _ARG.match(piece.text)
        if not found:
            continue
        name, value = found.group(1), found.group(2)
        if value is None:
            args.values[name] = None
            continue
        args.values[name] = expand(_unquoted(value), args.values.get, escape=escape).text
        args.defaults[name] = piece.cut(*found.span(2)).strip("\"'")


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text


def _read_from(
    findings: Findings,
    instruction: _Instruction,
    args: _Args,
    earlier: _Stage,
    all_stages: _Stage,
    escape: str,
    field: str,
) -> None:
    words = _without_flags(instruction)
    if words:
        # A template of another tool may have blanks in it.
        named = list(takewhile(lambda each: not _AS.match(each.text), words))
        last = named[-1] if named and "{{" in words[0].text else words[0]
        piece = Piece(words[0].source, words[0].start, last.end).strip("\"'")
        text = piece.text
        made = expand(text, args.values.get, escape=escape).text
        if "$" not in text and escape not in text:
            if text.lower() not in ("scratch", *earlier.names):
                findings.name(piece, f"{field}FROM")
        elif made is not None and made.lower() in earlier.names:
            findings.leave(piece, f"{field}FROM", f"{_CHOSEN}; by its defaults it is {made[:60]}")
        elif made is None and _may_be_stage(text, earlier):
            findings.leave(piece, f"{field}FROM", _CHOSEN)
        elif made != "scratch":
            why = "has an ARG without a default" if made is None else ""
            variable = _VARIABLE.fullmatch(text)
            default = args.defaults.get(variable[1] or variable[2]) if variable else None
            findings.expand(piece, made, f"{field}FROM", why, default=default)
    _count(earlier, instruction)


def _may_be_stage(text: str, stages: _Stage) -> bool:
    """Whether the name of a stage begins as a text does before its first variable."""
    prefix = text.partition("$")[0].lower()
    return bool(prefix) and any(name.startswith(prefix) for name in stages.names)


def _read_others(findings: Findings, instruction: _Instruction, stages: _Stage, field: str) -> None:
    for piece in instruction.arguments:
        text = piece.text
        if not text.startswith("--"):
            return
        if instruction.word in ("COPY", "ADD") and text.startswith("--from="):
            _name_source(findings, piece.cut(len("--from=")), stages, f"{field}COPY --from")
        elif instruction.word == "RUN" and text.startswith("--mount="):
            mount = piece.cut(len("--mount="))
            if found := _FROM_OF_MOUNT.search(mount.text):
                _name_source(findings, mount.cut(*found.span(1)), stages, f"{field}RUN --mount")


def _name_source(findings: Findings, piece: Piece, stages: _Stage, field: str) -> None:
    piece = piece.strip("\"'")
    name = piece.text.lower()
    is_stage = name in stages.names or (name.isdecimal() and int(name[:9]) < max(stages.count, 1))
    if not is_stage and name != "scratch":
        findings.name(
            piece, field, reason="has a variable, which is not replaced here" if "$" in name else ""
        )
