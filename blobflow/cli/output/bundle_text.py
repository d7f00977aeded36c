"""What is in bundles, as text and as JSON. Pure: values → lines."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from blobflow.cli.output.units import count_text, one_line, size_text, table
from blobflow.errors import BlobflowError, IntegrityError, NotFound, StorageError
from blobflow.oci.index_grouping import parse_image_name
from blobflow.transports.archive.parts import part_number, run_text
from blobflow.transports.layout.image_names import full_name

if TYPE_CHECKING:
    from blobflow.oci import Digest
    from blobflow.operations.airgap.bundle import BundleContent, BundledImage, BundleFile
    from blobflow.transports.archive import BundleFiles

_UNNAMED = "(no name)"


def content_lines(files: Sequence[BundleFiles], found: BundleContent) -> list[str]:
    """A line for each name of an image, and the sum."""
    rows = [
        (
            one_line(name),
            image.root.digest if image.root else "-",
            one_line(_contents_text(image)),
            one_line(_state_text(image, name)),
        )
        for image in found.images
        for name in _names(image)
    ]
    return [*(table(rows) if rows else ()), *total_lines(files, found)]


def total_lines(files: Sequence[BundleFiles], found: BundleContent) -> list[str]:
    """What all of it comes to."""
    count = sum(len(bundle.there) for bundle in files)
    parts = any(bundle.numbered for bundle in files)
    total = (
        f"{_counts_text(found.images)}: "
        f"{count_text(len(found.content), 'blob')} and manifests, "
        f"{size_text(sum(found.content.values()))}, in {count_text(count, 'part' if parts else 'file')}"
    )
    return [total]


def _counts_text(found: Sequence[BundledImage]) -> str:
    """How many images there are, and, if there are any, charts, files and other artifacts."""
    images = [each for each in found if each.kind == "image"]
    names = sum(len(_names(image)) for image in images)
    said = [count_text(len(images), "image") + (f" under {names} names" if names > len(images) else "")]
    for kind, word in (("chart", "chart"), ("artifact", "artifact"), ("files", "file")):
        of_kind = [each for each in found if each.kind == kind]
        count = sum(len(each.files) for each in of_kind) if kind == "files" else len(of_kind)
        said += [count_text(count, word)] if count else []
    return ", ".join(said[1:] if len(said) > 1 and not images else said)


def verdict_lines(
    found: BundleContent, damaged: Mapping[Digest, BlobflowError], *, quiet: bool, incomplete: bool
) -> Iterator[str]:
    """A line for each name of an image, as `verify` has it; `quiet`: of those that are wrong. Then what
    belongs to none.

    `incomplete`: parts are missing, so that a platform that is not there need not have been left out.
    """
    used: set[Digest] = set()
    for image in found.images:
        used |= image.content.keys()
        wrong = [damaged[digest] for digest in image.content if digest in damaged]
        fault = ""
        if image.error is not None:
            fault = image.error.message
        elif wrong:
            fault = f"{wrong[0]}{_more(wrong)}"
        elif image.missing:
            fault = f"{next(iter(image.missing))} is missing{_more(image.missing)}"
        elif incomplete and image.left_out:
            fault = f"{', '.join(image.left_out)} is not there"
        for name in map(one_line, _names(image)):
            if fault:
                yield f"wrong: {name}: {fault}"
            elif not quiet:
                yield f"right: {name}"
    for digest in damaged.keys() - used:
        yield f"wrong: {damaged[digest]}; it belongs to no image"


def _more(found: Collection[object]) -> str:
    return f", and {len(found) - 1} more" if len(found) > 1 else ""


def damage_text(found: BundleContent, damaged: Mapping[Digest, BlobflowError]) -> str:
    """How much is damaged; "" if nothing is."""
    if damaged:
        return f"damaged: {len(damaged)} of {count_text(len(found.content), 'blob')} and manifests"
    unread = [image for image in found.images if isinstance(image.error, IntegrityError | StorageError)]
    return f"damaged: {one_line(_names(unread[0])[0])}: {_said(unread[0])}{_more(unread)}" if unread else ""


def missing_text(found: BundleContent) -> str:
    """What images lack; "" if nothing."""
    unread = [image for image in found.images if isinstance(image.error, NotFound)]
    if unread:
        return f"{one_line(_names(unread[0])[0])}: {_said(unread[0])}{_more(unread)}"
    missing = found.missing
    if not missing:
        return ""
    images = sum(bool(image.missing) for image in found.images)
    return (
        f"{count_text(len(missing), 'blob')} of {size_text(sum(missing.values()))} for "
        f"{count_text(images, 'image')} {'is' if len(missing) == 1 else 'are'} not there; with a bundle that "
        "was saved --since another give that one, too"
    )


def content_document(files: Sequence[BundleFiles], found: BundleContent) -> dict[str, Any]:
    """What `bundle ls --json` prints."""
    return {
        "version": 1,
        "files": [str(path) for bundle in files for path in bundle.there],
        "images": [_image_document(image) for image in found.images],
        "contents": len(found.content),
        "bytes": sum(found.content.values()),
        "missing": [{"digest": digest, "size": size} for digest, size in found.missing.items()],
    }


def _image_document(image: BundledImage) -> dict[str, Any]:
    return {
        "names": list(image.names),
        "digest": image.root.digest if image.root else "",
        "media_type": image.root.media_type if image.root else "",
        "platforms": list(image.platforms),
        "platforms_left_out": list(image.left_out),
        "bytes": image.size,
        "missing": len(image.missing),
        "referrers": list(image.referrers),
        "kind": image.kind,
        "artifact_type": image.artifact_type,
        "files": list(image.files),
        "from": dict(image.origins),
        "error": _said(image),
    }


def parts_lines(bundles: Sequence[BundleFiles], found: Sequence[BundleFile]) -> list[str]:
    """A line a file in order, those that are missing among them."""
    rows: list[tuple[str, ...]] = []
    for bundle, files in _by_bundle(bundles, found):
        there = [(file.path, (str(file.path), size_text(file.size), _file_text(file))) for file in files]
        missing = [(last, (run_text(first, last), "", "missing")) for first, last in bundle.missing]
        in_order = sorted((*there, *missing), key=lambda row: part_number(row[0]))
        rows += [tuple(map(one_line, row)) for _, row in in_order]
        if _lacks_last(bundle, files):
            rows.append((one_line(str(bundle.following)), "", "missing, and what comes after it"))
    return table(rows)


def parts_document(bundles: Sequence[BundleFiles], found: Sequence[BundleFile]) -> dict[str, Any]:
    """What `bundle parts --json` prints."""
    return {
        "version": 1,
        "bundles": [
            {
                "path": str(bundle.path),
                "files": [
                    {
                        "path": str(file.path),
                        "bytes": file.size,
                        "images": file.images,
                        "error": "" if file.error is None else str(file.error),
                    }
                    for file in files
                ],
                "missing": [{"first": str(first), "last": str(last)} for first, last in bundle.missing],
                "last_is_missing": _lacks_last(bundle, files),
            }
            for bundle, files in _by_bundle(bundles, found)
        ],
    }


def _by_bundle(
    bundles: Sequence[BundleFiles], found: Sequence[BundleFile]
) -> Iterator[tuple[BundleFiles, Sequence[BundleFile]]]:
    at = 0
    for bundle in bundles:
        yield bundle, found[at : at + len(bundle.there)]
        at += len(bundle.there)


def _lacks_last(bundle: BundleFiles, files: Sequence[BundleFile]) -> bool:
    """Whether the last part is missing: images are named in that one."""
    return bundle.numbered and files[-1].error is None and not files[-1].images


def _file_text(file: BundleFile) -> str:
    if file.error is not None:
        return str(file.error)
    return f"names {count_text(file.images, 'image')}" if file.images else "there"


def _names(image: BundledImage) -> list[str]:
    """What people ask for, so all of them are shown: images that are equal are one image in a bundle."""
    return _distinct(image.names) or [_UNNAMED]


def _distinct(names: Sequence[str]) -> list[str]:
    """The names without those that say the same: archives have a short and a whole one."""
    found: dict[object, str] = {}
    for name in names:
        found.setdefault(parse_image_name(name) or name, name)
    return [*found.values()]


def _said(image: BundledImage) -> str:
    """Why an image can't be read; which side of a run it is on says nothing here."""
    return image.error.message if image.error else ""


def _platforms_text(image: BundledImage) -> str:
    there = ", ".join(image.platforms) or "-"
    return f"{there} (not {', '.join(image.left_out)})" if image.left_out else there


def _contents_text(image: BundledImage) -> str:
    """The platforms of an image; of what is none, what it is instead."""
    if image.kind == "files" and image.files:
        one = len(image.files) == 1
        return f"file {image.files[0]}" if one else count_text(len(image.files), "file")
    if image.kind == "artifact":
        return f"artifact {image.artifact_type}"
    return image.kind if image.kind != "image" else _platforms_text(image)


def _state_text(image: BundledImage, name: str) -> str:
    if isinstance(image.error, NotFound):
        return "its manifest is missing"
    if image.error is not None:
        return "damaged" if isinstance(image.error, IntegrityError | StorageError) else one_line(_said(image))
    text = size_text(image.size)
    if image.missing:
        text += f", {size_text(sum(image.missing.values()))} of it missing"
    if image.referrers:
        text += f", with {count_text(len(image.referrers), 'referrer')}"
    origin = image.origins.get(name, "")
    tagged = (
        full_name(origin.partition("@")[0]) if ":" in origin.partition("@")[0].rpartition("/")[2] else origin
    )
    if origin and tagged != full_name(name):
        text += f", from {origin}"
    return text
