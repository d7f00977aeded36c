"""Entries of `images:` in kustomizations, also Flux': an image by its name, and what replaces it. Pure."""

from __future__ import annotations

from blobflow.deployment_files.contract import PartKind
from blobflow.deployment_files.findings import Findings
from blobflow.deployment_files.kustomize_builds import ImageEntry
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_numbers import read_as_another
from blobflow.deployment_files.yaml_tree import MappingNode

_ELSEWHERE = "which is in the resources"


def read_entry(findings: Findings, entry: MappingNode) -> None:
    """An entry of `images:`: its name is only matched; a new name, tag or digest is what comes in."""
    name, new_name = entry.scalar("name"), entry.scalar("newName")
    tag, digest = entry.scalar("newTag"), entry.scalar("digest")
    at = _start_of(entry)
    repository = new_name or name
    if repository is None:
        return
    if tag is None and digest is None:
        if new_name and (":" in new_name.value.rpartition("/")[2] or "@" in new_name.value):
            findings.name(new_name.piece, "kustomize newName")
        elif new_name:
            findings.keep_open(new_name.piece, "kustomize newName")
            why = f"has no newTag: its tag is that of {name.value if name else 'the image'}, {_ELSEWHERE}"
            findings.leave(new_name.piece, "kustomize newName", why)
        else:
            why = f"is an entry that changes nothing: image and tag are those of a resource, {_ELSEWHERE}"
            findings.leave(repository.piece, "kustomize images", why)
        return
    text = repository.value.strip()
    pieces: list[tuple[PartKind, Piece]] = [("name", repository.piece)]
    field = "kustomize newName" if new_name else "kustomize name"
    if tag and (reason := read_as_another(tag)):
        findings.leave(at, f"{field} + newTag", reason, written=f"{text} + {tag.value.strip()}")
        return
    if tag:
        text += f":{tag.value.strip()}"
        pieces.append(("tag", tag.piece))
        field += " + newTag"
    if digest:
        text += f"@{digest.value.strip()}"
        pieces.append(("digest", digest.piece))
        field += " + digest"
    findings.join(pieces, text, field, at=at, replaceable=new_name is not None)


def image_entry(entry: MappingNode) -> ImageEntry:
    name, new_name, tag, digest = (
        entry.scalar("name"),
        entry.scalar("newName"),
        entry.scalar("newTag"),
        entry.scalar("digest"),
    )
    known = not (tag and read_as_another(tag))
    parts = [each for each in (new_name or name, tag, digest if known else None) if each]
    at = _start_of(entry) if tag or digest else (parts[0].piece if parts else _start_of(entry))
    return ImageEntry(
        entry.text("name").strip(),
        entry.text("newName").strip(),
        entry.text("newTag").strip(),
        entry.text("digest").strip(),
        entry.text("tagSuffix").strip(),
        at.line,
        " + ".join(each.value.strip() for each in parts),
        known,
    )


def _start_of(entry: MappingNode) -> Piece:
    """The first key of an entry."""
    return entry.pairs[0][0].piece
