"""What a plan would do, a line an image. Pure: values → lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobflow.cli.output.units import count_text, one_line, size_text

if TYPE_CHECKING:
    from blobflow.engine.plan.planned import Planned
    from blobflow.engine.plan.preview import ImagePreview


def dry_run_lines(planned: Planned) -> list[str]:
    """`SOURCE -> TARGET: what will happen`, in the order of the images, for people and for grep."""
    from blobflow.engine.plan.preview import preview_images

    return [
        one_line(f"{each.pair.source} -> {each.pair.target}: {_outlook_text(each)}")
        for each in preview_images(planned)
    ]


def _outlook_text(outlook: ImagePreview) -> str:
    if outlook.error is not None:
        return f"failed: {outlook.error}"
    if outlook.status == "skipped":
        return f"skipped: {outlook.reason}"
    form = _form_text(outlook)
    if outlook.status == "current":
        return f"present{form}"
    counts = (
        (outlook.copies, f"copy {count_text(outlook.copies, 'blob')}"),
        (outlook.mounts, f"mount {outlook.mounts}"),
        (outlook.manifests, f"put {count_text(outlook.manifests, 'manifest')}"),
        (outlook.attached, f"attach {count_text(outlook.attached, 'referrer')}"),
    )
    steps = ", ".join(text for count, text in counts if count)
    return f"{steps or 'brought with an image above'}, {size_text(outlook.bytes_to_write)}{form}"


def _form_text(outlook: ImagePreview) -> str:
    """What of the image will be there, where that is not all of it as it is."""
    choice = outlook.pair.choice
    if choice.index == "only":
        return ", index only"
    if outlook.bare:
        return ", as it is: it has no platform" + (f"; as {choice.format}" if choice.format else "")
    platforms = ", ".join(outlook.platforms)
    if choice.format:
        return f", as {choice.format}" + (f" of {platforms}" if choice.platforms else "")
    if outlook.made:
        return f", pruned to {platforms}"
    return f", {platforms} only" if outlook.sparse else ""
