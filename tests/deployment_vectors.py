"""Finds deployment files of public projects, each with a list made by hand of the images that it names.

They are not part of the project. They are looked for in the folder that $DEPLOYMENT_FILES names, else in
`shared/data/manifests` beside the checkout. `NAME.expected.tsv` stands beside each NAME, with two sections,
`# images` and `# cannot be told`, of rows `line reference normalised kind note`.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

_BESIDE = Path(__file__).parents[2] / "shared" / "data" / "manifests"
_ENDING = ".expected.tsv"


class Row(msgspec.Struct, frozen=True):
    """A place in a file. `normalised`: the whole name, or `-`."""

    line: int
    reference: str
    normalised: str
    kind: str


class Listed(msgspec.Struct, frozen=True):
    """What a file names, and what of it can't be told."""

    file: Path
    images: tuple[Row, ...]
    untold: tuple[Row, ...]


def deployment_vectors() -> list[Listed]:
    """All of them. Skips the test where they are not."""
    folder = Path(os.environ.get("DEPLOYMENT_FILES") or _BESIDE)
    lists = sorted(folder.rglob(f"*{_ENDING}"))
    if not lists:
        pytest.skip(
            f"deployment files of others are not here: none in {folder}; $DEPLOYMENT_FILES names theirs"
        )
    return [_listed(each) for each in lists]


def _listed(path: Path) -> Listed:
    sections: dict[str, list[Row]] = {"# images": [], "# cannot be told": []}
    rows: list[Row] = []
    for line in path.read_text().splitlines():
        if line in sections:
            rows = sections[line]
        elif line and not line.startswith("line\t"):
            number, reference, normalised, kind, *_ = line.split("\t")
            rows.append(Row(int(number), reference, normalised, kind))
    file = path.with_name(path.name.removesuffix(_ENDING))
    return Listed(file, tuple(sections["# images"]), tuple(sections["# cannot be told"]))
