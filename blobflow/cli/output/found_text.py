"""What deployment files name, as text and for programs. Pure.

As text it is a list that `--images` and `--images-from` read: an image a line, its places in a comment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from blobflow.cli.options.command_line import without_secrets
from blobflow.cli.output.units import count_text, table

if TYPE_CHECKING:
    from blobflow.deployment_files.contract import FoundImages, NamedImage
    from blobflow.oci import Reference
    from blobflow.operations.pins import Pin

# Places of an image that its line shows; the JSON has all.
_SHOWN = 3


def by_name(images: Iterable[NamedImage]) -> dict[Reference, list[NamedImage]]:
    """The places of each image, sorted by its name."""
    places: dict[Reference, list[NamedImage]] = {}
    for image in images:
        places.setdefault(image.reference, []).append(image)
    return dict(sorted(places.items()))


def place_text(image: NamedImage) -> str:
    """Where an image stands, as editors and compilers write it."""
    return f"{image.path}:{image.line}"


def found_lines(found: FoundImages) -> list[str]:
    """A line an image: its name, and in a comment where it stands and in what kind of field."""
    rows = [(str(name), f"# {_places_text(places)}") for name, places in by_name(found.images).items()]
    return table(rows) if rows else []


def _places_text(places: list[NamedImage]) -> str:
    shown = [f"{place_text(each)} {each.field}" for each in places[:_SHOWN]]
    more = len(places) - len(shown)
    return ", ".join(shown) + (f" and {count_text(more, 'more place')}" if more else "")


def found_document(found: FoundImages, pins: Mapping[Reference, Pin] | None = None) -> dict[str, Any]:
    """What was found, for programs: `images`, each with its places, and with `pins` what its name means now;
    `untold`, the places whose image can't be told; the `files` that were read and those `passed_over`."""
    images = []
    for name, places in by_name(found.images).items():
        if pins is None:
            pinned: dict[str, Any] = {}
        elif name in pins:
            pinned = {"pin": msgspec.to_builtins(pins[name])}
        else:
            continue
        images.append(
            {
                "image": str(name),
                "host": name.host,
                "repository": name.repository,
                "tag": name.tag,
                "digest": name.digest,
                **pinned,
                "places": [
                    {"file": each.path, "line": each.line, "field": each.field, "written": each.written}
                    for each in places
                ],
            }
        )
    return {
        "version": 1,
        "images": images,
        "untold": [
            {
                "file": each.path,
                "line": each.line,
                "field": each.field,
                "written": without_secrets((each.written,))[0],
                "reason": each.reason,
                "likely": each.likely,
            }
            for each in found.untold
        ],
        "files": list(found.files),
        "passed_over": [{"file": file, "reason": reason} for file, reason in found.passed_over],
    }
