"""Mutated deployment files, for the readers of all formats that `blobflow images` knows.

    python -m tools.fuzz_files --seconds 600 --seed 1

As `tools.fuzz`: a file is read, or refused in one sentence; anything else is a finding. Moreover, each piece
that a rewrite would replace has to be the image's name. The seeds are the small files of the tests.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from blobflow.deployment_files.formats import Reading
from blobflow.deployment_files.source_text import SourceText, decode
from blobflow.oci import parse_reference
from tools.fuzz import Finding, Parser, fuzz

SPECIMENS = Path(__file__).parents[1] / "tests" / "unit" / "deployment_files" / "files"


def read_file(name: str, given: bytes) -> None:
    """Read a file of this name, and look at what was found. Raises InvalidConfig; AssertionError."""
    text = decode(given, name)
    reading = Reading(
        SourceText(name, text), custom_resources=True, env=lambda: {"KNOWN": "a.example.com/b:1"}
    )
    reading.read()
    images, untold = reading.findings.in_order()
    for image in images:
        assert image.reference.host and image.reference.repository and image.line > 0
        for part in image.parts:
            assert 0 <= part.start < part.end <= len(text)
        if [part.kind for part in image.parts] == ["reference"]:
            assert parse_reference(text[image.parts[0].start : image.parts[0].end]) == image.reference
    assert all(place.reason and place.line > 0 and len(place.written) < 1000 for place in untold)


def _reader(name: str) -> Callable[[bytes], None]:
    return lambda given: read_file(name, given)


def file_parsers() -> tuple[Parser, ...]:
    """One for each of the small files, which is its seed."""
    files = sorted(file for file in SPECIMENS.rglob("*") if file.is_file() and file.suffix != ".tsv")
    return tuple(
        Parser(name, _reader(name), (file.read_bytes(),))
        for file in files
        for name in [str(file.relative_to(SPECIMENS))]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = argparse.ArgumentParser(
        prog="python -m tools.fuzz_files", description=(__doc__ or "").splitlines()[0]
    )
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args(arguments)
    try:
        outcomes = fuzz(file_parsers(), chosen.seed, seconds=chosen.seconds)
    except Finding as finding:
        print(finding, file=sys.stderr)
        return 1
    for name, counts in outcomes.items():
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        print(f"{name:40} {sum(counts.values()):8} inputs: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
