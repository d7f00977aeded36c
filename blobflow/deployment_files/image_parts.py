"""Images whose registry, repository, tag and digest stand apart, as in values of Helm charts. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from blobflow.deployment_files.contract import NamePart, PartKind
from blobflow.deployment_files.findings import Findings, is_filled_in, words_of
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_numbers import read_as_another
from blobflow.deployment_files.yaml_tree import MappingNode, Scalar
from blobflow.oci.reference import looks_like_host

_REPOSITORY = ("repository", "repo", "imageRepository")
_TAGS = ("tag", "imageTag", "image_tag", "image_version")
_DIGESTS = ("digest", "sha", "sha256", "imageDigest")
_HEX = re.compile(r"[0-9a-f]{64}\Z")
# What stands beside a repository when it is an image's.
_COMPANIONS = (*_TAGS, *_DIGESTS, "registry", "pullPolicy", "imagePullPolicy", "image")
LONE_TAG = "is a tag without a name: the chart has the rest, or another file of values"
NO_TAG = "has no tag: the chart puts one in, mostly the appVersion of its Chart.yaml"

Parts = list[tuple[PartKind, Piece]]


def read_parts(findings: Findings, mapping: MappingNode, key: str, field: str, registry: str = "") -> bool:
    """An image in parts: `registry`, `repository` (or `repo`, or `name` under a key that says image) and
    `tag`, `digest` or `sha`. Whether the mapping is one, told or not.

    `key`: under which it stands. `registry`: what the file says is put in the place of every registry.
    """
    name = _name_of(mapping, key)
    if not name:
        return False
    parts: Parts = []
    host = mapping.scalar("registry", "imageRegistry")
    if host and not _has_host(name[0].value):
        parts.append(("registry", host.piece))
    parts += [("repository" if parts or len(name) > 1 else "name", each.piece) for each in name]
    text = "/".join(piece.strip().text.strip("/") for _, piece in parts)
    at = name[0].piece
    tags = (*_TAGS, "version") if len(name) > 1 else _TAGS
    ends: list[tuple[PartKind, Scalar | None]] = [
        ("tag", mapping.scalar(*tags)),
        ("digest", mapping.scalar(*_DIGESTS)),
    ]
    return _join(findings, (parts, text), ends, field, at, registry)


def read_lone_tag(findings: Findings, mapping: MappingNode, key: str, field: str) -> None:
    """A tag or digest under a key that says image, without a name: values of a chart that has the rest."""
    found = mapping.scalar("tag", "digest")
    named = any(mapping.get(each) for each in ("registry", "repository", "repo", "name", "image"))
    if found and found.value.strip() and not found.is_null and not named and key == "image":
        findings.leave(found.piece, field, LONE_TAG)


def _join(
    findings: Findings,
    named: tuple[Parts, str],
    ends: Sequence[tuple[PartKind, Scalar | None]],
    field: str,
    at: Piece,
    registry: str,
) -> bool:
    parts, text = named
    for kind, scalar in ends:
        if scalar is None:
            continue
        value = scalar.value.strip()
        if kind == "tag" and (reason := read_as_another(scalar)):
            known = _pieces_of(parts)
            findings.leave(at, field, reason, written=f"{text} + {value}", parts=known)
            return True
        parts.append((kind, scalar.piece))
        if kind == "digest" and _HEX.match(value):
            value = f"sha256:{value}"
        text += f":{value}" if kind == "tag" else f"@{value}"
    written = " + ".join(piece.strip().text for _, piece in parts)
    alone = parts[0][1] if len(parts) == 1 else None
    if alone and (":" in text.rpartition("/")[2] or "@" in text):
        findings.name(alone, field)
    elif not any(scalar for _, scalar in ends) and not is_filled_in(text):
        findings.leave(at, field, NO_TAG, parts=_pieces_of(parts))
    elif registry and not is_filled_in(text):
        likely = f"{registry}/{text.partition('/')[2] if _has_host(text) else text}"
        reason = f"charts that read global.imageRegistry take it from {registry}"
        findings.leave(at, field, reason, likely, written=written, parts=_pieces_of(parts))
    else:
        findings.join(parts, text, field, at=at)
    return True


def _pieces_of(parts: Parts) -> list[NamePart]:
    return [part for kind, piece in parts for part in piece.strip().part(kind)]


def _name_of(mapping: MappingNode, key: str) -> list[Scalar]:
    """The scalars that make the repository: one, or the path above it and its last component."""
    image = mapping.scalar("image")
    if repository := mapping.scalar(*_REPOSITORY):
        if "://" in repository.value:
            return []
        if image and "/" not in image.value and ":" not in image.value:
            return [repository, image]
        known = _says_image(key) or any(mapping.get(each) for each in _COMPANIONS)
        known = known or mapping.get("imageRepository") is not None
        return [repository] if known else []
    name = image or (mapping.scalar("name") if _says_image(key) else None)
    if name is None and mapping.get("imageTag"):
        name = mapping.scalar("imageName")
    has_more = any(mapping.get(each) for each in _TAGS)
    has_more = has_more or any(mapping.scalar(each) for each in ("registry", *_DIGESTS))
    return [name] if name and has_more else []


def _says_image(key: str) -> bool:
    words = words_of(key)
    return bool(words) and words[-1] in ("image", "img")


def _has_host(name: str) -> bool:
    first, slash, _ = name.partition("/")
    return bool(slash) and looks_like_host(first)
