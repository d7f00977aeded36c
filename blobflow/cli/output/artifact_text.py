"""Artifacts that were pushed or pulled, as lines and for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from blobflow.cli.output.units import count_text, one_line, size_text
from blobflow.oci.artifact import TITLE

if TYPE_CHECKING:
    from blobflow.oci import Descriptor, Manifest
    from blobflow.operations.artifacts.pull import PulledArtifact, PulledFile
    from blobflow.operations.artifacts.push import PushedArtifact


def pushed_lines(pushed: PushedArtifact, name: str) -> list[str]:
    """What was put: its files, what it is called, and its digest last."""
    manifest = pushed.manifest
    titles = [layer for layer in manifest.layers if layer.annotations]
    lines = [
        one_line(f"{(layer.annotations or {})[TITLE]}  {size_text(layer.size)}  {layer.media_type}")
        for layer in titles
    ]
    if pushed.subject is None:
        return [*lines, one_line(f"pushed {name}"), f"digest {manifest.descriptor.digest}"]
    where = f"{pushed.reference.host}/{pushed.reference.repository}".rstrip("/")
    return [
        *lines,
        one_line(f"attached to {where}@{pushed.subject.digest}"),
        f"digest {manifest.descriptor.digest}",
    ]


def pushed_document(pushed: PushedArtifact) -> dict[str, Any]:
    """As `push --json` and `attach --json` print it; `subject`: what it is attached to."""
    document = _document(str(pushed.reference), pushed.manifest)
    document["files"] = [_file(layer) for layer in pushed.manifest.layers if layer.annotations]
    if pushed.subject is not None:
        document["subject"] = msgspec.to_builtins(pushed.subject)
    return document


def pulled_lines(pulled: PulledArtifact) -> list[str]:
    """The files that are there, and how much came."""
    return written_lines(pulled.files, str(pulled.reference))


def written_lines(files: Sequence[PulledFile], source: str) -> list[str]:
    """The files of a source that are in a folder now, and how much came."""
    lines = [
        one_line(
            f"{each.path}  {size_text(each.file.blob.size)}"
            + ("  is there already" if each.status == "present" else "")
        )
        for each in files
    ]
    written = [each for each in files if each.status == "written"]
    size = size_text(sum(each.file.blob.size for each in written))
    return [*lines, f"{count_text(len(written), 'file')} written, {size}, of {one_line(source)}"]


def left_line(pulled: PulledArtifact) -> str:
    """The layers that are no file by name, as one sentence; "" if there is none."""
    if not pulled.left:
        return ""
    return (
        f"{count_text(len(pulled.left), 'layer')} without a file name left out: "
        f"`blobflow copy {pulled.reference} oci:DIR` keeps them"
    )


def pulled_document(pulled: PulledArtifact) -> dict[str, Any]:
    """As `pull --json` prints it. Of each file its `path` here and whether it was written or present; `left`:
    the layers that don't say which file they are."""
    document = _document(str(pulled.reference), pulled.manifest)
    document["files"] = [
        {**_file(each.file.blob), "path": str(each.path), "status": each.status} for each in pulled.files
    ]
    document["left"] = [msgspec.to_builtins(each) for each in pulled.left]
    return document


def _document(reference: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "version": 1,
        "reference": reference,
        **msgspec.to_builtins(manifest.descriptor),
        "artifactType": manifest.artifact_type,
        "annotations": manifest.annotations,
    }


def _file(layer: Descriptor) -> dict[str, Any]:
    return {"title": (layer.annotations or {}).get(TITLE, ""), **msgspec.to_builtins(layer)}
