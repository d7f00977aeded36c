"""The options of verbs that make artifacts: what they are, and what is said of them."""

from __future__ import annotations

import click
import msgspec

from blobflow.cli.options.option_group import option_group
from blobflow.errors import UsageError


class ArtifactOptions(msgspec.Struct, frozen=True):
    """What an artifact is; `annotations` as they were given, KEY=VALUE."""

    artifact_type: str = ""
    annotations: tuple[str, ...] = ()

    def notes(self) -> dict[str, str]:
        """The annotations by their keys. Raises UsageError."""
        notes: dict[str, str] = {}
        for text in self.annotations:
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise UsageError(f"--annotation {text[:200]!r} is not KEY=VALUE")
            if notes.setdefault(key, value) != value:
                raise UsageError(f"--annotation {key[:200]} is given twice, with two values")
        return notes


artifact_options = option_group(
    "artifact",
    ArtifactOptions,
    click.option(
        "--artifact-type",
        default="",
        metavar="TYPE",
        help="What it is, as application/spdx+json: what `referrers` groups by.",
    ),
    click.option(
        "-a",
        "--annotation",
        "annotations",
        multiple=True,
        metavar="KEY=VALUE",
        help="Said of the artifact in its manifest. Repeatable.",
    ),
    title="",
)
