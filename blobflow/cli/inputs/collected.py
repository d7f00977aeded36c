"""Images that deployment files and lock files name, as requests: `--images-from`, and `collect` in a spec.

What a file names by a digest is asked for by that digest, and so is what a lock file pins. A place whose
image can't be told is warned about, and nothing is guessed.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from blobflow.bounded_file import read_beginning, read_bounded, read_stream
from blobflow.cli.inputs.image_list import requests_of
from blobflow.cli.inputs.lock_file import parse_lock
from blobflow.cli.inputs.platforms import parse_platforms
from blobflow.cli.inputs.requests import CollectedPath, ImageRequest, MirrorRequest, RegistryPrefix
from blobflow.cli.options.command_line import without_secrets
from blobflow.cli.output.units import count_text
from blobflow.deployment_files.contract import FoundImages, NamedImage, UntoldImage
from blobflow.deployment_files.lock_mark import LOOKED_AT, is_lock
from blobflow.errors import InvalidConfig, UsageError
from blobflow.file_errors import errors_located_at
from blobflow.oci import Reference
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.printable import first_of, one_line

STDIN = "-"
# What stdin is called as a file, and how it is said of one that it may have more.
STDIN_NAME = "stdin"
_HINT = "has custom resources"
# What the place of an image is called that a lock file names.
LOCKED = "lock"


class Collected(msgspec.Struct, frozen=True):
    """What files name. `locked`: what lock files pin, name with digest, by the platforms that were chosen of
    it there; those of the names that had a digest before are not among them. `passed_over`: files with
    which something may be amiss, a sentence each."""

    found: FoundImages
    locked: dict[Reference, tuple[str, ...]] = {}
    passed_over: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may lack: a sentence for each such file, and for each place whose image can't be told."""
        return (*self.passed_over, *map(untold_sentence, self.found.untold))

    @property
    def files(self) -> tuple[str, ...]:
        """The deployment files that name images, told or not, and kustomizations, which say what names mean:
        no lock files, and nothing from a stream."""
        from blobflow.deployment_files.kustomize_builds import is_built

        named = [image.path for image in self.found.images if image.field != LOCKED]
        named += [untold.path for untold in self.found.untold]
        named += filter(is_built, self.found.files)
        return tuple(path for path in dict.fromkeys(named) if Path(path).is_file())


def untold_sentence(untold: UntoldImage) -> str:
    """What is known of a place whose image can't be told."""
    likely = f"; that would be {untold.likely}" if untold.likely else ""
    (written,) = without_secrets((untold.written,))
    return (
        f"{untold.path} line {untold.line}: {one_line(written)!r} ({untold.field}) can't be told: it"
        f" {untold.reason}{likely}"
    )


def collect(
    paths: Sequence[str], *, custom_resources: bool = False, named: Sequence[str] | None = None
) -> Collected:
    """What deployment files, folders of them, lists and lock files name; `-` is stdin.

    `named`: those of the paths that somebody named themselves, and wants to know of if they name no image;
    None for all.

    Raises UsageError or InvalidConfig for what can't be read, in one sentence with its path.
    """
    parts: list[Collected] = []
    plain: list[str] = []
    for path in paths:
        read = _lock_or_stream(path, custom_resources=custom_resources)
        if read is None:
            plain.append(path)
            continue
        parts.append(read)
    if plain:
        parts.insert(0, _find(plain, named, custom_resources=custom_resources))
    return _joined(parts)


def _find(
    paths: Sequence[str],
    named: Sequence[str] | None = None,
    *,
    stdin: bytes | None = None,
    custom_resources: bool,
) -> Collected:
    from blobflow.deployment_files.find import find_images  # readers of many formats, not for a lock file

    found = find_images(paths, stdin=stdin, custom_resources=custom_resources)
    return Collected(found, passed_over=tuple(passed_over(found, paths if named is None else named)))


def passed_over(found: FoundImages, paths: Sequence[str]) -> Iterator[str]:
    """A sentence for each file that was named, or may name images, and that none were found in."""
    for file, why in found.passed_over:
        if file not in found.files or why.startswith(_HINT) or file in paths or file == STDIN_NAME:
            more = "; --custom-resources reads them" if why.startswith(_HINT) else ""
            yield f"{file} {why}{more}"


def _lock_or_stream(path: str, *, custom_resources: bool) -> Collected | None:
    """What a lock file, or a stream, which can be read once, names; None for other files, and folders."""
    if path == STDIN:
        raw, name = read_stream(sys.stdin.buffer, "stdin"), "stdin"
    elif is_pipe(path):
        raw, name = read_bounded(Path(path)), path
    elif Path(path).is_file():
        try:
            beginning = read_beginning(Path(path), LOOKED_AT)
        except OSError as error:
            raise InvalidConfig(f"can't read {path}: {error.strerror or error}") from None
        if not is_lock(beginning.decode("utf-8-sig", "replace")):
            return None
        raw, name = read_bounded(Path(path)), path
    else:
        return None
    if is_lock(raw[:LOOKED_AT].decode("utf-8-sig", "replace")):
        return _locked(raw, name)
    return _find([STDIN], stdin=raw, custom_resources=custom_resources)


def is_pipe(path: str) -> bool:
    """Whether a path is a pipe, as `<(command)` makes it, which can be read once."""
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def _locked(raw: bytes, name: str) -> Collected:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{name} is not UTF-8 text (byte {error.start})") from None
    lock, lines = parse_lock(text, name)
    named = tuple(
        NamedImage(name, line, each.image, each.pinned, LOCKED)
        for each, line in zip(lock.images, lines, strict=True)
    )
    pinned = {each.pinned: lock.platforms for each in lock.images if not each.name.digest}
    return Collected(FoundImages(named, (), (name,)), pinned)


def _joined(parts: Sequence[Collected]) -> Collected:
    locked: dict[Reference, tuple[str, ...]] = {}
    for part in parts:
        for name, platforms in part.locked.items():
            # Two lock files, of which one wants all platforms, want all.
            before = locked.get(name, platforms)
            locked[name] = tuple(dict.fromkeys((*before, *platforms))) if before and platforms else ()
    found = [part.found for part in parts]
    return Collected(
        FoundImages(
            tuple(image for each in found for image in each.images),
            tuple(untold for each in found for untold in each.untold),
            tuple(dict.fromkeys(file for each in found for file in each.files)),
            tuple(dict.fromkeys(file for each in found for file in each.passed_over)),
        ),
        locked,
        tuple(dict.fromkeys(sentence for part in parts for sentence in part.passed_over)),
    )


def images_of(
    collected: Collected,
    source: RegistryPrefix | None = None,
    *,
    any_host: bool = False,
    like: ImageRequest | None = None,
) -> list[ImageRequest]:
    """What is collected, each image once, as requests with what `like` has besides a name.

    `source`, `any_host`, and what is raised: as of `parse_image_list`. What is locked is pinned wherever it
    is named. Where a tag is named with several digests, or with and without one, those with a digest are
    brought by that alone.
    """
    pins = {_tagged(name): name for name in collected.locked}
    places: dict[Reference, NamedImage] = {}
    for image in collected.found.images:
        places.setdefault(pins.get(image.reference, image.reference), image)
    digests: dict[Reference, set[str]] = {}
    for name in places:
        digests.setdefault(_tagged(name), set()).add(name.digest)
    named: dict[Reference, tuple[Reference, NamedImage]] = {}
    for name, image in places.items():
        rival = name.tag and name.digest and len(digests[_tagged(name)]) > 1
        named.setdefault(msgspec.structs.replace(name, tag="") if rival else name, (name, image))
    requests = requests_of(
        [(f"{image.path} line {image.line}", str(name)) for name, (_, image) in named.items()],
        source,
        any_host=any_host,
    )
    own = {field: getattr(like, field) for field in _LIKE} if like is not None else {}
    return [
        _locked_request(msgspec.structs.replace(request, chosen=True, **own), collected.locked.get(name))
        for request, (name, _) in zip(requests, named.values(), strict=True)
    ]


# What an entry of a spec, or the defaults, say beside the name.
_LIKE = ("choice", "referrers", "missing_platform", "schedule", "backup", "signature_policy")


def _tagged(name: Reference) -> Reference:
    return msgspec.structs.replace(name, digest="")


def _locked_request(request: ImageRequest, platforms: tuple[str, ...] | None) -> ImageRequest:
    if platforms is None:
        return request
    if not platforms:
        return msgspec.structs.replace(request, locked=True)
    choice = PlatformChoice(parse_platforms(platforms), request.choice.index, request.choice.format)
    return msgspec.structs.replace(request, locked=True, choice=choice)


def add_collected(
    request: MirrorRequest,
    paths: Sequence[str],
    source: RegistryPrefix | None = None,
    *,
    any_host: bool = False,
    custom_resources: bool = False,
) -> MirrorRequest:
    """The request with what files name as well. Raises as `collect`, and UsageError where they name none."""
    collected = collect(paths, custom_resources=custom_resources)
    more = images_of(collected, source, any_host=any_host, like=request.like)
    if not more and not request.images:
        raise UsageError(_no_image(paths, collected))
    return _with(request, more, collected, custom_resources=custom_resources)


def _no_image(paths: Iterable[str], collected: Collected) -> str:
    named = ", ".join("stdin" if path == STDIN else path for path in paths)
    untold = len(collected.found.untold)
    why = f"; what {untold} places name can't be told, `blobflow images` lists them" if untold else ""
    return f"{one_line(named)}: no image is named there{why}"


_Name = tuple[RegistryPrefix, str, str]


def _name(image: ImageRequest) -> _Name:
    """The image as it is named without a digest."""
    return image.source, image.named, image.tag


def _with(
    request: MirrorRequest, more: Sequence[ImageRequest], collected: Collected, *, custom_resources: bool
) -> MirrorRequest:
    """The request with further images, but for those that are named at a target already, as in files that
    were rewritten. Its own keep their names at the targets; a tag that it names is pinned where that is
    locked, and else a digest of it comes beside the tag, not under it. Raises UsageError where none is left.
    """
    is_there = [any(target.holds(each.origin) for target in request.targets) for each in more]
    there = [each for each, found in zip(more, is_there, strict=True) if found]
    more = [each for each, found in zip(more, is_there, strict=True) if not found]
    warnings = [*collected.warnings, *([_there_already(there, request.targets)] if there else [])]
    if there and not more and not request.images:
        raise UsageError(warnings[-1])
    locked = {_name(image): image for image in more if image.locked}
    images = [
        msgspec.structs.replace(image, digest=locked[_name(image)].digest, locked=True)
        if not image.digest and image.search is None and _name(image) in locked
        else image
        for image in request.images
    ]
    known = {(_name(image), image.digest) for image in images if image.search is None}
    tags = {_name(image) for image in images if image.tag}
    for image in more:
        if (_name(image), image.digest) in known:
            continue
        aside = image.digest and image.tag and _name(image) in tags
        images.append(msgspec.structs.replace(image, tag="") if aside else image)
    return msgspec.structs.replace(
        request,
        images=tuple(images),
        warnings=(*request.warnings, *warnings),
        collected=tuple(dict.fromkeys((*request.collected, *collected.files))),
        custom_resources=request.custom_resources or custom_resources,
    )


def _there_already(images: Sequence[ImageRequest], targets: Sequence[RegistryPrefix]) -> str:
    names = first_of([str(each.origin) for each in images], 3)
    what = f"{count_text(len(images), 'image')} named in files: {names}"
    return f"nothing is brought to {first_of([*map(str, targets)], 3)} that is there by its name: {what}"


def with_collected(request: MirrorRequest, folder: Path) -> MirrorRequest:
    """The request of a spec in that folder with the images of what it collects. Raises as `collect`, with
    file and line of the spec."""
    parts: list[Collected] = []
    for each in request.collect:
        with errors_located_at(each.where):
            paths = _matching(folder, each)
            literal = () if glob.has_magic(each.path) else paths
            parts.append(collect(paths, custom_resources=each.custom_resources, named=literal))
    collected = _joined(parts)
    custom = any(each.custom_resources for each in request.collect)
    request = _with(request, images_of(collected, like=request.like), collected, custom_resources=custom)
    if not request.images:
        raise UsageError(f"{request.collect[0].where}: no image is named in what is collected")
    return msgspec.structs.replace(request, collect=())


def _matching(folder: Path, collected: CollectedPath) -> list[str]:
    """The files and folders that a path or pattern of a spec names, sorted; none that is below another."""
    path = str(folder / collected.path) if collected.path else ""
    if not path or "\0" in path:
        raise UsageError("`collect` names a file, a folder or a pattern of files")
    if os.path.lexists(path) or not glob.has_magic(collected.path):
        return [path]
    whole = os.path.join(glob.escape(str(folder)), collected.path)  # noqa: PTH118  keeps a `/` at the end
    # Path.glob takes `**` for folders alone, up to Python 3.12.
    matches = sorted({os.path.normpath(each) for each in glob.iglob(whole, recursive=True)})  # noqa: PTH207
    if not matches:
        raise UsageError(f"nothing matches {one_line(collected.path)!r}")
    found: list[str] = []
    for each in matches:
        if not any(Path(each).is_relative_to(above) for above in found[-1:]):
            found.append(each)
    return found
