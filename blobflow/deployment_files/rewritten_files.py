"""Deployment files with the images of a mirror in them. What was made is read again, and has to name what it
should, before anybody gets it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory

import msgspec

from blobflow.bounded_file import read_beginning, read_bounded
from blobflow.deployment_files.contract import FoundImages, NamedImage, NamePart
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
    kept: dict[str, list[NamePart]] = {}
    for untold in found.untold:
        kept.setdefault(untold.path, []).extend(untold.parts)
    works = {
        path: _Work(path, read(path), named, matched, kept.get(path, ())) for path, named in images.items()
    }
    for work in works.values():
        work.rewrite(place_of_any)
    wrong = _read_again(works.values(), custom_resources)
    # What others share stays, where the rest can do without.
    again = [works[path] for path in wrong if works[path].leave_shared()]
    for work in again:
        work.rewrite(place_of_any)
        del wrong[work.path]
    wrong |= _read_again(again, custom_resources)
    return [work.left_alone(wrong[path]) if path in wrong else work.file() for path, work in works.items()]


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


class _Work:
    """A file while its images are replaced. `named`: all of its images; `matched`: those that Kustomize
    replaces; `kept`: further pieces that have to stay."""

    def __init__(
        self,
        path: str,
        raw: bytes,
        named: Sequence[NamedImage],
        matched: Mapping[NamedImage, str],
        kept: Sequence[NamePart],
    ) -> None:
        self.path, self.raw, self.named = path, raw, named
        self.content = raw
        self.matched = tuple((image, matched[image]) for image in named if image in matched)
        self._kept = kept
        # Of images by their number: where each is wished, where each of the replaced ones is, and why not.
        self.wished: dict[int, Reference] = {}
        self.goals: dict[int, Reference] = {}
        self._left: dict[int, str] = {}
        self._shared: dict[int, str] = {}

    def rewrite(self, place_of: PlaceOf) -> None:
        """Replace what can be, but for what is shared."""
        self.wished, self._left = {}, {}
        matched = {image for image, _ in self.matched}
        for number, image in enumerate(self.named):
            if image in matched:
                continue
            try:
                goal = place_of(image)
            except UsageError as error:
                self._left[number] = error.message
                continue
            if goal is not None and goal != image.reference:
                self.wished[number] = goal
        self._left |= {number: why for number, why in self._shared.items() if number in self.wished}
        goals = {number: goal for number, goal in self.wished.items() if number not in self._left}
        made = rewrite_text(decode(self.raw, self.path), self.named, goals, self._kept) if goals else None
        if made is not None:
            self._left |= made.left
        self.goals = {number: goal for number, goal in goals.items() if number not in self._left}
        self.content = rewritten_bytes(self.raw, made.text) if made is not None and self.goals else self.raw

    def leave_shared(self) -> bool:
        """From now on leave the images that are replaced in another line than their own, as where the default
        of a variable stands: what else has the variable may be another image then. Whether there are any."""
        text = decode(self.raw, self.path)
        for number in self.goals:
            image = self.named[number]
            if any(
                part.kind == "reference" and text.count("\n", 0, part.start) + 1 < image.line
                for part in image.parts
            ):
                self._shared[number] = "has its name from a variable that makes others, too"
        return bool(self._shared)

    def follow(self, numbers: Iterable[int]) -> None:
        """These were left, and are where they were wished all the same."""
        for number in numbers:
            self._left.pop(number, None)
            self.goals[number] = self.wished[number]

    def file(self) -> RewrittenFile:
        stays = tuple((self.named[number], why) for number, why in sorted(self._left.items()))
        return RewrittenFile(self.path, self.raw, self.content, len(self.goals), stays, self.matched)

    def left_alone(self, wrong: str) -> RewrittenFile:
        """The file as it was, with the images that should have been replaced as left."""
        why = f"stays, since the file would not be right: {wrong}"
        left = {**dict.fromkeys(self.goals, why), **self._left}
        stays = tuple((self.named[number], reason) for number, reason in sorted(left.items()))
        return RewrittenFile(self.path, self.raw, self.raw, 0, stays, self.matched)


def _read_again(works: Iterable[_Work], custom_resources: bool) -> dict[str, str]:
    """What is wrong with the files that were made, by their paths: read under names like their own."""
    wrong: dict[str, str] = {}
    with TemporaryDirectory(prefix="blobflow-") as folder:
        for number, work in enumerate(works):
            if work.content == work.raw:
                continue
            parts = [part for part in PurePath(work.path).parts if part not in ("/", "..", ".")][-_TELLING:]
            copy = Path(folder, str(number), *parts)
            try:
                if work.path == STDIN_NAME:
                    found = find_images([STDIN], stdin=work.content, custom_resources=custom_resources)
                else:
                    copy.parent.mkdir(parents=True)
                    copy.write_bytes(work.content)
                    _copy_environment(Path(work.path), copy)
                    found = find_images([str(copy)], custom_resources=custom_resources)
                work.follow(check_rewritten(work.named, _all_names(found), work.goals, work.wished))
            except UsageError as error:
                wrong[work.path] = error.message.replace(str(copy), work.path)
    return wrong


def _copy_environment(file: Path, copy: Path) -> None:
    """Put an `.env` that stands beside a file beside its copy, too: what a Compose file names depends on it.
    One that can't be read is passed over there as here."""
    beside = file.with_name(".env")
    if beside.is_file():
        with suppress(OSError):
            copy.with_name(".env").write_bytes(read_beginning(beside, MAX_ENV))
