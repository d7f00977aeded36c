"""Images whose registry, repository, tag and digest stand apart, as in values of Helm charts. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from blobflow.deployment_files.contract import NamePart, PartKind
from blobflow.deployment_files.findings import Findings, is_filled_in, is_likely_image, likely_text, words_of
from blobflow.deployment_files.source_text import Piece
from blobflow.deployment_files.yaml_numbers import read_as_another
from blobflow.deployment_files.yaml_tree import MappingNode, Scalar
from blobflow.oci.reference import looks_like_host

_REPOSITORY = ("repository", "repo", "imageRepository")
_TAGS = ("tag", "imageTag", "image_tag", "image_version")
_DIGESTS = ("digest", "sha", "sha256", "imageDigest")
# `serverImage`, `server_image` or `server-image`.
_KEY = re.compile(r"(.*?)([_-]?)([Ii]mage)")
_HEX = re.compile(r"[0-9a-f]{64}\Z")
# What stands beside a repository when it is an image's.
_COMPANIONS = (*_TAGS, *_DIGESTS, "registry", "pullPolicy", "imagePullPolicy", "image")
LONE_TAG = "is a tag without a name: the chart has the rest, or another file of values"
_SUFFIXED = "has a suffix, which the chart puts behind its name or its tag"
_SEVERAL = "stands for several images, whose names the chart makes"
_NO_PATH = "has no repository beside its name: the chart puts one in"
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
    unused = mapping.text("useDigest").strip().lower() == "false"
    ends: list[tuple[PartKind, Scalar | None]] = [
        ("tag", mapping.scalar(*tags)),
        ("digest", None if unused else mapping.scalar(*_DIGESTS)),
    ]
    if reason := _why_unclear(mapping, name):
        parts += [(kind, scalar.piece) for kind, scalar in ends if scalar]
        written = " + ".join(piece.strip().text for _, piece in parts)
        findings.leave(at, field, reason, written=written, parts=_pieces_of(parts))
        return True
    return _join(findings, (parts, text), ends, field, at, registry)


def _why_unclear(mapping: MappingNode, name: Sequence[Scalar]) -> str:
    """Why the parts of a mapping do not make a name by themselves; "" if they do."""
    if mapping.own("genericDigest") is not None:  # Cilium's operator, one image for each cloud
        return _SEVERAL
    if any(mapping.text(key).strip() for key in ("suffix", "tagSuffix", "tag_suffix")):
        return _SUFFIXED
    is_open = any(mapping.own(key) is not None for key in _REPOSITORY) and not mapping.scalar(*_REPOSITORY)
    return _NO_PATH if is_open and "/" not in name[0].value else ""


def read_key_with_tag(findings: Findings, mapping: MappingNode, key: str, value: Scalar, field: str) -> bool:
    """An image under a key that says so, whose tag has a key of its own, as `serverImage` beside
    `serverImageTag` or `serverTag`, and `image` beside `imageVersion`. Whether it is one, told or not."""
    named = _KEY.fullmatch(key)
    piece = value.piece.strip()
    text = piece.text
    if not named or words_of(key)[-1:] != ["image"] or not text or value.is_null:
        return False
    if " " in text or "@" in text or ":" in text.rpartition("/")[2] or is_filled_in(text):
        return False
    if not is_likely_image(text if "/" in text else f"library/{text}"):
        return False
    base, between = named[1], named[2]
    tag, version = ("Tag", "Version") if named[3] == "Image" else ("tag", "version")
    sure = [f"{key}{between}{tag}", f"{key}{between}{version}", f"{base}{between}{tag}"]
    if not base:
        sure = ["imageTag", "imageVersion"]
    for name in (*sure, f"{base}{between}{version}"):
        if isinstance(end := mapping.get(name), Scalar):
            _join_key(findings, piece, end, field, "" if name in sure else name)
            return True
    return False


def _join_key(findings: Findings, piece: Piece, end: Scalar, field: str, doubtful: str) -> None:
    """An image and what stands under the key of its tag. `doubtful`: that key, where it may be for more."""
    text, tag, parts = piece.text, end.value.strip(), piece.part("name")
    if end.is_null or not tag:
        findings.leave(piece, field, NO_TAG, parts=parts)
    elif doubtful:
        reason = f"has no tag; {doubtful} may be the one that it gets"
        findings.leave(piece, field, reason, likely_text(f"{text}:{tag}"), parts=parts)
    elif reason := read_as_another(end):
        findings.leave(piece, field, reason, written=f"{text} + {tag}", parts=parts)
    else:
        findings.join([("name", piece), ("tag", end.piece)], f"{text}:{tag}", field)


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
