"""Texts of deployment files with other images in them: the names are replaced where they stand, and nothing
else changes. Pure.

A name may stand in one piece, or in parts (registry, repository, tag, digest), each of which is replaced by
its own; a part that several names share is replaced where all of them want the same there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec
import yaml

from blobflow.deployment_files.contract import NamedImage, NamePart, PartKind
from blobflow.errors import InvalidReference, UsageError
from blobflow.oci import Reference, parse_reference

_YAML = (".yaml", ".yml")
_Span = tuple[int, int]
_Texts = dict[PartKind, list[str]]


class RewrittenText(msgspec.Struct, frozen=True):
    """A text with its images replaced. `left`: those that could not be, by their number, each with why: the
    end of a sentence about it."""

    text: str
    left: dict[int, str]


class _CanNotHold(Exception):
    """Why the pieces of a text can't hold a name."""


def rewrite_text(
    text: str,
    images: Sequence[NamedImage],
    wanted: Mapping[int, Reference],
    kept: Iterable[NamePart] = (),
) -> RewrittenText:
    """The text, of which these are all images, with those replaced for which something else is `wanted`, by
    their number in `images`. `kept`: further pieces that have to stay, as parts of names that can't be
    told."""
    left: dict[int, str] = {}
    stays = {part: text[part.start : part.end] for part in kept}
    pieces: dict[int, dict[NamePart, str]] = {}
    for number, image in enumerate(images):
        goal = wanted.get(number)
        try:
            pieces[number] = _kept(image, text) if goal is None else _pieces(image, goal, text)
        except _CanNotHold as error:
            left[number] = str(error)
            pieces[number] = _kept(image, text)
    while clash := _clashing({-1: stays, **pieces}, wanted.keys() - left.keys()):
        # What stays may share a piece with a further image, which then has to stay, too.
        for number in clash:
            left[number] = "shares a part with another image, which is to be something else"
            pieces[number] = _kept(images[number], text)
    changes = {(part.start, part.end): new for found in pieces.values() for part, new in found.items()}
    for (start, end), new in sorted(changes.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return RewrittenText(text, dict(sorted(left.items())))


def _kept(image: NamedImage, text: str) -> dict[NamePart, str]:
    return {part: text[part.start : part.end] for part in image.parts}


def _clashing(pieces: Mapping[int, Mapping[NamePart, str]], changed: Iterable[int]) -> set[int]:
    """Those of the images to be changed of which a piece is to be another text for another image, or reaches
    into another piece."""
    said: dict[_Span, set[str]] = {}
    for found in pieces.values():
        for part, new in found.items():
            said.setdefault((part.start, part.end), set()).add(new)
    wrong = {span for span, texts in said.items() if len(texts) > 1}
    spans = sorted(said)
    for before, after in pairwise(spans):
        if after[0] < before[1]:
            wrong |= {before, after}
    return {number for number in changed if any((part.start, part.end) in wrong for part in pieces[number])}


def _pieces(image: NamedImage, goal: Reference, text: str) -> dict[NamePart, str]:
    """What each piece of an image's name becomes. Raises _CanNotHold."""
    if not image.parts:
        raise _CanNotHold(_why_no_piece(image))
    old = _kept(image, text)
    kinds: dict[PartKind, list[NamePart]] = {
        part.kind: [each for each in image.parts if each.kind == part.kind] for part in image.parts
    }
    told: _Texts = {kind: [old[part] for part in parts] for kind, parts in kinds.items()}
    if "reference" in told:
        new: _Texts = {"reference": [_whole(each, image.reference, goal) for each in told["reference"]]}
    else:
        new = {**_names(told, image.reference, goal), **_ends(told, image.reference, goal)}
    return {
        part: _quoted(said, image.path, part, text)
        for kind, texts in {**told, **new}.items()
        for part, said in zip(kinds[kind], texts, strict=True)
    }


def _why_no_piece(image: NamedImage) -> str:
    if image.field.startswith("kustomize name"):
        return "is only matched by its name there; give the entry a newName"
    if "$" in image.written:
        return "is put together from variables"
    return "is written there in a way that can't be replaced"


def _whole(old: str, named: Reference, goal: Reference) -> str:
    """A name in one piece. A tag that goes without saying, `latest`, does so afterwards, too."""
    before = old.partition("@")[0]
    says_tag = ":" in before.rpartition("/")[2]
    tag = f":{goal.tag}" if goal.tag and (says_tag or goal.tag != named.tag) else ""
    return f"{_name(goal)}{tag}{'@' if goal.digest else ''}{goal.digest}"


def _name(image: Reference) -> str:
    return f"{image.host}/{image.repository}"


def _names(told: Mapping[PartKind, list[str]], named: Reference, goal: Reference) -> _Texts:
    """What the parts become in which registry and repository stand."""
    old, new = _name(named), _name(goal)
    if "name" in told:
        return {"name": [new for _ in told["name"]]}
    registry, repositories = told.get("registry", []), told.get("repository", [])
    if len(repositories) > 1:  # the path above, and the last component
        above, _, last = (goal.repository if registry else new).rpartition("/")
        if not above or len(repositories) > 2:
            raise _CanNotHold(f"has no place for {new} there")
        return {"repository": [above, last], **({"registry": [goal.host]} if registry else {})}
    if registry and repositories:
        return {"registry": [goal.host], "repository": [goal.repository]}
    if registry:
        # What follows the registry stays, so the mirror has to have it under the same name.
        behind = old.removeprefix(f"{registry[0].strip('/')}/")
        if behind == old or not new.endswith(f"/{behind}"):
            raise _CanNotHold(f"has a place for its registry alone there, not for {goal.repository}")
        return {"registry": [new.removesuffix(f"/{behind}")]}
    if repositories:
        if _is_whole(repositories[0], named):
            return {"repository": [new]}
        if goal.host != named.host:
            raise _CanNotHold(f"has its registry, {named.host}, from elsewhere")
        return {"repository": [goal.repository]}
    if new != old:
        raise _CanNotHold("has its repository from elsewhere")
    return {}


def _ends(told: Mapping[PartKind, list[str]], named: Reference, goal: Reference) -> _Texts:
    """What the parts become in which tag and digest stand; a digest may stand behind a tag."""
    tags, digests = told.get("tag", []), told.get("digest", [])
    texts: _Texts = {}
    if digests and goal.digest:
        texts["digest"] = [_digest_like(each, goal.digest) for each in digests]
    elif goal.digest != named.digest and not tags:
        raise _CanNotHold("has no place for a digest there")
    if tags:
        beside = not digests and (goal.digest != named.digest or any("@" in each for each in tags))
        texts["tag"] = [f"{goal.tag}@{goal.digest}" if beside and goal.digest else goal.tag for _ in tags]
    elif goal.tag != named.tag:
        raise _CanNotHold(f"has no place for the tag {goal.tag} there")
    return texts


def _digest_like(old: str, digest: str) -> str:
    """The digest in the form in which one stands there: with `@` before it, or without its algorithm."""
    if ":" not in old and digest.startswith("sha256:"):
        return digest.removeprefix("sha256:")
    return f"@{digest}" if old.startswith("@") else digest


def _is_whole(repository: str, named: Reference) -> bool:
    """Whether a repository in a file has its registry in it, or stands for the default one."""
    try:
        read = parse_reference(repository)
    except InvalidReference:
        return False
    return _name(read) == _name(named)


def _quoted(new: str, path: str, part: NamePart, text: str) -> str:
    """The text of a piece, in quotes where plain YAML would take it for something else: a number, a list."""
    if part.quote or not path.endswith(_YAML) or new == text[part.start : part.end]:
        return new
    begins = text[part.start - 1 : part.start].isspace()
    ends = part.end == len(text) or text[part.end].isspace()
    return f'"{new}"' if begins and ends and not _reads_as_text(new) else new


def _reads_as_text(text: str) -> bool:
    try:
        return isinstance(yaml.safe_load(text), str)
    except (yaml.YAMLError, ValueError):  # ValueError: what looks like a date and is none
        return False


def rewritten_bytes(raw: bytes, text: str) -> bytes:
    """A changed text in the encoding of the bytes that it was read from, byte order mark and all."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if raw.startswith(mark):
            return text.encode(encoding)
    return text.encode()


def is_as_wanted(found: Reference, wanted: Reference) -> bool:
    """Whether a name that was read back is the one that was to be written; with a digest its tag may lack."""
    same = _name(found) == _name(wanted) and found.digest == wanted.digest
    return same and (found.tag == wanted.tag or (bool(found.digest) and not found.tag))


def check_rewritten(
    before: Sequence[NamedImage],
    after: Sequence[NamedImage],
    wanted: Mapping[int, Reference],
    wished: Mapping[int, Reference],
) -> set[int]:
    """Which of the images that were left, each of which has a place it is `wished` at, got there with a
    variable that they share with others; by their numbers. Raises UsageError unless each image of a file that
    was read again is that, or the `wanted` one, or what it was."""
    followed: set[int] = set()
    path = before[0].path if before else after[0].path if after else ""
    if len(before) != len(after):
        raise UsageError(f"{path} would name {len(after)} images, and names {len(before)}; it is left alone")
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        goal = wanted.get(number, old.reference)
        if number not in wanted and number in wished and is_as_wanted(new.reference, wished[number]):
            followed.add(number)
        elif not is_as_wanted(new.reference, goal):
            raise UsageError(
                f"{path} line {old.line}: {old.written} would become {new.reference}, not {goal}; the file is"
                " left alone"
            )
    return followed
