"""```console blocks: their commands run, and their output is what stands there.

    python -m tools.documentation.consoles [--write] [FILE...]

The commands of a page run one after another in a folder of their own, in which the page's blocks with a
title are files, against registries of this process (`WORLD`). What people see of a command is what stands
under it: stdout, and of stderr what is no progress. Times and rates may differ, and a line `...` stands for
any lines. Without files those of the documentation are compared; --write puts in what is printed now.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, chdir
from pathlib import Path
from unittest.mock import patch

from click.testing import CliRunner

from blobflow.cli import cli
from tools.checkout import TOP
from tools.documentation.commands import PROMPT, commands_in, shell_lines
from tools.documentation.documents import Block, blocks_of, documents, name_of
from tools.documentation.world import World, serving_world

ANY_LINES = "..."
_PROGRESS = re.compile(r"Progress: ")
_STATUS = re.compile(r"; echo \$\?$")
_EXPORT = re.compile(r"export (\w+)=(\S*)")
# What differs from run to run: times, rates, and ports that are free by chance.
_CHANGING = re.compile(
    r"\b\d+(?:\.\d+)? ?(?:ms|s|min)\b|\b\d+(?:\.\d+)? [kMG]?B/s|(?<=127\.0\.0\.1:)\d{5}"
    r"|\d{4}-\d\d-\d\d[T ][\d:.]+(?:Z|\+\S+)?"
)
_GREY = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class CommandFailed(Exception):
    """A command of the documentation that should have ended well."""


def consoles_of(document: Path) -> list[Block]:
    """The page's blocks of commands with their output."""
    return [block for block in blocks_of(document) if block.language == "console"]


def run_page(document: Path) -> Iterator[tuple[Block, str]]:
    """Each console block of a page, with what it comes to now.

    Raises CommandFailed where a command fails that is not followed by `; echo $?`.
    """
    with tempfile.TemporaryDirectory() as folder, serving_world(Path(folder)) as world, ExitStack() as stack:
        stack.enter_context(chdir(world.home))
        stack.enter_context(patch.dict(os.environ, world.environment))
        for block in blocks_of(document):
            if block.title:
                file = Path(block.title)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(world.real(block.text))
            elif block.language == "console":
                yield block, "".join(_run_block(block, world, stack))


def _run_block(block: Block, world: World, stack: ExitStack) -> Iterator[str]:
    """The block's text as it would be now: each command as it stands, and its output."""
    outputs = [world.shown(_run(line, world, stack)) for _, line in shell_lines(block)]
    lines = iter(block.text.splitlines(keepends=True))
    line = next(lines, "")
    for output in outputs:
        while not line.startswith(PROMPT):
            line = next(lines)
        while line.rstrip().endswith("\\"):
            yield line
            line = next(lines)
        yield line
        yield output
        line = next(lines, "")


def _run(line: str, world: World, stack: ExitStack) -> str:
    """What a line prints. Raises CommandFailed."""
    wants_status = _STATUS.search(line)
    text = _STATUS.sub("", line)
    code, printed = _result(world.real(text), world, stack)
    if wants_status:
        return f"{printed}{code}\n"
    if code:
        raise CommandFailed(f"`{text}` ended with {code}:\n{printed}")
    return printed if printed.endswith("\n") or not printed else f"{printed}\n"


def _result(text: str, world: World, stack: ExitStack) -> tuple[int, str]:
    if exported := _EXPORT.fullmatch(text):
        os.environ[exported[1]] = exported[2]
        return 0, ""
    if text.endswith(" &"):
        (arguments,) = commands_in(text)
        return 0, stack.enter_context(world.background(arguments))
    found = list(commands_in(text))
    if len(found) == 1 and not re.search(r"[|<>;]", text):
        result = CliRunner().invoke(cli, found[0], prog_name="blobflow")
        kept = [each for each in result.stderr.splitlines(keepends=True) if not _PROGRESS.match(each)]
        return result.exit_code, result.stdout + "".join(kept)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f'blobflow() {{ {shlex.quote(sys.executable)} -m blobflow "$@"; }}; {text}'],
        env=os.environ | {"PYTHONPATH": str(TOP), "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def agrees(written: str, now: str) -> bool:
    """Whether the text of a block is what it comes to now, but for times."""
    wanted = [_normal(line) for line in written.splitlines()]
    found = [_normal(line) for line in now.splitlines()]
    pattern = "\n".join(r"(?s:.*)" if line == ANY_LINES else re.escape(line) for line in wanted)
    return re.fullmatch(pattern, "\n".join(found)) is not None


def _normal(line: str) -> str:
    return _CHANGING.sub("…", _GREY.sub("", line)).rstrip()


def _replaced(document: Path) -> tuple[str, list[str]]:
    """The document with its consoles as they are now, and what has to be mended by hand: where lines are left
    out, only people know which. Consoles that agree stay."""
    lines = document.read_text().splitlines(keepends=True)
    by_hand = []
    for block, now in reversed(list(run_page(document))):
        if agrees(block.text, now):
            continue
        if ANY_LINES in block.text.splitlines():
            by_hand.append(f"{block.place} has lines left out; mend it by hand. Now it is\n{now}")
        else:
            first = block.line - 1
            lines[first : first + len(block.text.splitlines())] = [now]
    return "".join(lines), by_hand


def main(arguments: Sequence[str]) -> int:
    """Compare, or write; returns the exit code."""
    write = "--write" in arguments
    named = [Path(each).resolve() for each in arguments if each != "--write"]
    failed = False
    for document in named or documents():
        if not consoles_of(document):
            continue
        new, by_hand = _replaced(document)
        failed |= bool(by_hand)
        for sentence in by_hand:
            print(sentence)
        if new != document.read_text():
            failed |= not write
            print(f"{name_of(document)}: {'written anew' if write else 'prints something else'}")
            if write:
                document.write_text(new)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
