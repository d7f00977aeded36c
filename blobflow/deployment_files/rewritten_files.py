"""Deployment files with the images of a mirror in them. What was made is read again, and has to name what it
should, before anybody gets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import msgspec

from blobflow.bounded_file import read_beginning, read_bounded
from blobflow.deployment_files.contract import FoundImages, NamedImage
from blobflow.deployment_files.find import MAX_ENV, find_images
from blobflow.deployment_files.find import STDIN as STDIN_NAME
from blobflow.deployment_files.rewrite import check_rewritten, rewrite_text, rewritten_bytes
from blobflow.deployment_files.source_text import decode
from blobflow.errors import InvalidConfig, UsageError
from blobflow.oci import Reference

# What an image is to become; None where it stays as it is. Raises UsageError where it has to stay, with why.
PlaceOf = Callable[[NamedImage], Reference | None]
# Components of a path that tell what kind of file it is: `.github/workflows/ci.yml`.
_TELLING = 3
STDIN = "-"


class RewrittenFile(msgspec.Struct, frozen=True):
    """A file as it was read and as it is to be. `replaced`: how many of its images are others now. `left`:
    those that should be, and can't, each with why: the end of a sentence about it. `matched`: those that stay
    because Kustomize replaces them, each with the kustomization that does."""

    path: str
    before: bytes
    content: bytes
    replaced: int = 0
    left: tuple[tuple[NamedImage, str], ...] = ()
    matched: tuple[tuple[NamedImage, str], ...] = ()

    @property
    def changed(self) -> bool:
        return self.content != self.before


def rewrite_files(
    found: FoundImages, place_of: PlaceOf, *, stdin: bytes | None = None, custom_resources: bool = False
) -> list[RewrittenFile]:
    """The files that were read, in their order, with the images replaced for which `place_of` has a place.

    `stdin`: what was read there, where that is one of the files. Nothing is written. A file that would not
    name what it should, since it changed meanwhile or is written in a way that is not known here, stays as it
    is, and all of its images are left. Raises InvalidConfig for a file that can't be read any more.
    """
    images: dict[str, list[NamedImage]] = {file: [] for file in found.files}
    for image in _all_names(found):
        images[image.path].append(image)
    open_names = dict(found.open_names)

    def place_of_any(image: NamedImage) -> Reference | None:
        return place_of(image) if image not in open_names else _open_place(image, open_names[image], place_of)

    def read(path: str) -> bytes:
        return stdin if stdin is not None and path == STDIN_NAME else _read(path)

    matched = dict(found.matched)
    goals: dict[str, dict[int, Reference]] = {}
    made: list[RewrittenFile] = []
    for path, named in images.items():
        file, goals[path] = _rewrite(path, read(path), named, place_of_any, matched)
        made.append(file)
    wrong = _read_again([each for each in made if each.changed], images, goals, custom_resources)
    return [
        _left_alone(each, [images[each.path][number] for number in goals[each.path]], wrong[each.path])
        if each.path in wrong
        else each
        for each in made
    ]


def _all_names(found: FoundImages) -> Sequence[NamedImage]:
    """The names in files that may be replaced, file by file in the same order whenever it is read."""
    return (*found.named, *(name for name, _ in found.open_names))


def _open_place(name: NamedImage, finals: Sequence[Reference], place_of: PlaceOf) -> Reference | None:
    """What a new name becomes whose tag stands in resources: the name of the places of all images that come
    of it. None where these are not known: it is one that can't be told."""
    places = [place_of(msgspec.structs.replace(name, reference=each)) or each for each in finals]
    names = {(place.host, place.repository) for place in places}
    if len(names) > 1:
        raise UsageError("stands for images whose places have several names")
    if any(place.digest != final.digest for place, final in zip(places, finals, strict=True)):
        raise UsageError("has its tag in a resource, and no place for a digest")
    if any(place.tag != final.tag for place, final in zip(places, finals, strict=True)):
        raise UsageError("has its tag in a resource, and another one in the mirror")
    if not places:
        return None
    return msgspec.structs.replace(name.reference, host=places[0].host, repository=places[0].repository)


def _read(path: str) -> bytes:
    try:
        return read_bounded(Path(path))
    except OSError as error:
        raise InvalidConfig(f"can't read {path}: {error.strerror or error}") from None


def _rewrite(
    path: str,
    raw: bytes,
    named: Sequence[NamedImage],
    place_of: PlaceOf,
    matched: Mapping[NamedImage, str],
) -> tuple[RewrittenFile, dict[int, Reference]]:
    """A file with its images replaced, and what they are to be now, by their number."""
    goals: dict[int, Reference] = {}
    left: dict[int, str] = {}
    for number, image in enumerate(named):
        if image in matched:
            continue
        try:
            goal = place_of(image)
        except UsageError as error:
            left[number] = error.message
            continue
        if goal is not None and goal != image.reference:
            goals[number] = goal
    made = rewrite_text(decode(raw, path), named, goals) if goals else None
    if made is not None:
        left |= made.left
    goals = {number: goal for number, goal in goals.items() if number not in left}
    stays = tuple((named[number], why) for number, why in sorted(left.items()))
    content = rewritten_bytes(raw, made.text) if made is not None and goals else raw
    kept = tuple((image, matched[image]) for image in named if image in matched)
    return RewrittenFile(path, raw, content, len(goals), stays, kept), goals


def _read_again(
    made: Sequence[RewrittenFile],
    before: Mapping[str, Sequence[NamedImage]],
    goals: Mapping[str, Mapping[int, Reference]],
    custom_resources: bool,
) -> dict[str, str]:
    """What is wrong with the files that were made, by their paths: read under names like their own."""
    wrong: dict[str, str] = {}
    with TemporaryDirectory(prefix="blobflow-") as folder:
        for number, file in enumerate(made):
            parts = [part for part in PurePath(file.path).parts if part not in ("/", "..", ".")][-_TELLING:]
            copy = Path(folder, str(number), *parts)
            try:
                if file.path == STDIN_NAME:
                    found = find_images([STDIN], stdin=file.content, custom_resources=custom_resources)
                else:
                    copy.parent.mkdir(parents=True)
                    copy.write_bytes(file.content)
                    _copy_environment(Path(file.path), copy)
                    found = find_images([str(copy)], custom_resources=custom_resources)
                check_rewritten(before[file.path], _all_names(found), goals[file.path])
            except UsageError as error:
                wrong[file.path] = error.message.replace(str(copy), file.path)
    return wrong


def _copy_environment(file: Path, copy: Path) -> None:
    """Put an `.env` that stands beside a file beside its copy, too: what a Compose file names depends on it.
    One that can't be read is passed over there as here."""
    beside = file.with_name(".env")
    if beside.is_file():
        with suppress(OSError):
            copy.with_name(".env").write_bytes(read_beginning(beside, MAX_ENV))


def _left_alone(file: RewrittenFile, named: Sequence[NamedImage], wrong: str) -> RewrittenFile:
    """The file as it was, with the images that should have been replaced as left."""
    left = tuple((image, f"stays, since the file would not be right: {wrong}") for image in named)
    return RewrittenFile(file.path, file.before, file.before, 0, (*file.left, *left), file.matched)
