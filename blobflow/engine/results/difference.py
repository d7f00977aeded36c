"""The difference between two reports: what became of the images of one run and of another. Pure."""

from __future__ import annotations

import msgspec

from blobflow.engine.results.report import ImageRecord, Report, Totals


class ImageChange(msgspec.Struct, frozen=True):
    """An image that both reports have. `before` and `after`: what its tag at the target named."""

    source: str
    target: str
    before: str
    after: str


class FailedImage(msgspec.Struct, frozen=True):
    """An image that is not as requested; `why` is the error of the later report, or of the earlier one where
    it is as requested by now."""

    source: str
    target: str
    why: str


class ReportDifference(msgspec.Struct, frozen=True):
    """What differs between an earlier report and a later one, in the order of the later one.

    Images are the same if source and target are. `failing`: they were as requested (done, present, or
    skipped for a reason), or were not asked for, and are not now; `mended`: the other way round;
    `still_failing`: neither time. `changed`: both times well, and the target names another digest. `added`
    and `gone`: asked for in one of the reports only. `before` and `after` are the totals.
    """

    added: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[ImageChange, ...]
    failing: tuple[FailedImage, ...]
    mended: tuple[FailedImage, ...]
    still_failing: tuple[FailedImage, ...]
    before: Totals
    after: Totals

    @property
    def differs(self) -> bool:
        """Whether the images differ, or what became of them. Bytes, requests and seconds always do."""
        return bool(self.added or self.gone or self.changed or self.failing or self.mended)


def compare_reports(before: Report, after: Report) -> ReportDifference:
    """What changed from one run to the next. Reports over different sets can be compared as well."""
    old = {(image.source, image.target): image for image in before.images}
    new = {(image.source, image.target): image for image in after.images}
    both = [(old[key], image) for key, image in new.items() if key in old]
    added = [image for key, image in new.items() if key not in old]
    return ReportDifference(
        added=tuple(map(_name, added)),
        gone=tuple(_name(image) for key, image in old.items() if key not in new),
        changed=tuple(
            ImageChange(later.source, later.target, earlier.digest, later.digest)
            for earlier, later in both
            if earlier.ok and later.ok and earlier.digest != later.digest
        ),
        failing=tuple(_failed(image) for image in new.values() if not image.ok and _was_well(old, image)),
        mended=tuple(_failed(earlier) for earlier, later in both if later.ok and not earlier.ok),
        still_failing=tuple(_failed(later) for earlier, later in both if not later.ok and not earlier.ok),
        before=before.totals,
        after=after.totals,
    )


def _name(image: ImageRecord) -> str:
    return f"{image.source} -> {image.target}"


def _failed(image: ImageRecord) -> FailedImage:
    return FailedImage(image.source, image.target, image.error or image.reason)


def _was_well(old: dict[tuple[str, str], ImageRecord], image: ImageRecord) -> bool:
    earlier = old.get((image.source, image.target))
    return earlier is None or earlier.ok
