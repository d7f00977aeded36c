"""Archives in parts: `bundle.tar` as `bundle.001.tar`, `bundle.002.tar` and so on."""

from __future__ import annotations

import re
from pathlib import Path


def part_path(path: Path, number: int) -> Path:
    """The n-th part of an archive, from 1."""
    return path.with_name(f"{path.stem}.{number:03}{path.suffix}")


def numbered_parts(path: Path) -> list[Path]:
    """The parts of an archive that there are, in order."""
    form = re.compile(rf"{re.escape(path.stem)}\.(\d{{3,}}){re.escape(path.suffix)}")
    if not path.parent.is_dir():
        return []
    found = [(int(match[1]), each) for each in path.parent.iterdir() if (match := form.fullmatch(each.name))]
    return [each for _, each in sorted(found)]
