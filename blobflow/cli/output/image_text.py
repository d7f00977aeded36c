"""An image's parts as text. Pure: values → lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.output.units import one_line, size_text, table

if TYPE_CHECKING:
    from blobflow.oci import Digest, Manifest
    from blobflow.operations.inspection import Inspection


def image_lines(found: Inspection) -> list[str]:
    """An image as a person reads it: the root, then each platform with its layers."""
    root = found.root
    lines = table(
        [
            ("name", one_line(str(found.reference))),
            ("digest", root.descriptor.digest),
            ("media type", one_line(root.descriptor.media_type)),
            ("size", size_text(root.descriptor.size)),
            *_annotations(root),
        ]
    )
    if not root.is_index:
        return lines + _content_lines(root, indent="")
    below = {manifest.descriptor.digest: manifest for manifest in found.manifests}
    absent = found.absent
    for child in root.manifests:
        platform = str(child.platform) if child.platform else "no platform"
        lines += ["", one_line(platform)]
        lines += table(
            [
                ("digest", child.digest),
                ("media type", one_line(child.media_type)),
                ("size", size_text(child.size)),
                *([("absent", "not there: the index is sparse")] if child.digest in absent else []),
            ],
            indent="  ",
        )
        if child.digest in below:
            lines += _content_lines(below[child.digest], indent="  ", absent=absent)
    if root.layers:
        lines += ["", *_content_lines(msgspec.structs.replace(root, manifests=()), indent="")]
    return lines


def _annotations(manifest: Manifest) -> list[tuple[str, ...]]:
    return [("annotation", one_line(f"{key}={value}")) for key, value in manifest.annotations.items()]


def _content_lines(manifest: Manifest, *, indent: str, absent: frozenset[Digest] = frozenset()) -> list[str]:
    """Config and layers of an image, or what an index lists inside an index: manifests, or blobs."""
    parts = [("absent" if child.digest in absent else "manifest", child) for child in manifest.manifests]
    if manifest.config is not None:
        parts.append(("config", manifest.config))
    parts += [("blob" if manifest.is_index else "layer", layer) for layer in manifest.layers]
    rows: list[tuple[str, ...]] = [
        (kind, part.digest, size_text(part.size), one_line(part.media_type or "no media type"))
        for kind, part in parts
    ]
    if manifest.blobs:
        rows.append(("in all", "", size_text(sum(blob.size for blob in manifest.blobs)), ""))
    return table(rows, indent=indent) if rows else []
