"""Writes the JSON schemas of reports, events, referrers, specs and the configuration to docs/schemas, where
editors and readers find them.

python -m tools.schemas            # write them
python -m tools.schemas --check    # exit 1 if they are not what the code says
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from blobflow.cli.inputs.spec_keys import spec_schema
from blobflow.cli.output.json_schemas import events_schema, referrers_schema, report_schema
from blobflow.config_file import config_schema
from tools.checkout import TOP

FOLDER = TOP / "docs" / "schemas"


def schemas() -> Mapping[Path, str]:
    """The files, and what belongs into each."""
    made = {
        "report.json": report_schema(),
        "events.json": events_schema(),
        "referrers.json": referrers_schema(),
        "spec.json": spec_schema(),
        "config.json": config_schema(),
    }
    return {FOLDER / name: json.dumps(schema, indent=2) + "\n" for name, schema in made.items()}


def stale() -> list[Path]:
    """The files that are not what the code says."""
    return [file for file, text in schemas().items() if not file.exists() or file.read_text() != text]


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        wrong = stale()
        for file in wrong:
            print(f"{file.relative_to(TOP)} is stale: run python -m tools.schemas")
        return 1 if wrong else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, text in schemas().items():
        file.write_text(text)
        print(file.relative_to(TOP))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
