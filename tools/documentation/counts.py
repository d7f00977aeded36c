"""How much there is to try in README and docs/, in a sentence."""

from __future__ import annotations

from collections import Counter

from tools.documentation.commands import commands_of, shell_lines
from tools.documentation.documents import blocks_of, documents


def counts_text() -> str:
    """The commands, blocks and pages of the documentation, counted."""
    pages = documents()
    commands = sum(command.is_typed for page in pages for command in commands_of(page))
    blocks = [block for page in pages for block in blocks_of(page)]
    kinds = Counter(block.language for block in blocks)
    run = sum(1 for block in blocks if block.language == "console" for _ in shell_lines(block))
    data = ", ".join(f"{kinds[kind]} {name}" for kind, name in _NAMES.items())
    return f"docs: {len(pages)} pages; {commands} commands parsed, {run} of them run; blocks: {data}"


_NAMES = {"yaml": "YAML", "toml": "TOML", "json": "JSON", "python": "Python"}
