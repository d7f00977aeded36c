"""Results in words: the summary of a report, the prices of a plan, an image's parts. Pure: values → lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from blobflow.cli.output.units import count_text, one_line, seconds_text, size_text, table

if TYPE_CHECKING:
    from blobflow.content import Allowance
    from blobflow.engine.plan.cost import TargetCost
    from blobflow.engine.plan.planned import Planned
    from blobflow.engine.plan.preview import ImagePreview
    from blobflow.engine.results.report import Report, TagRecord, TargetRecord
    from blobflow.oci import Descriptor, Digest, Manifest
    from blobflow.operations.inspection import Inspection


def summary_lines(report: Report) -> list[str]:
    """What a run did, in figures."""
    totals = report.totals
    told = _statuses_text(Counter[str](image.status for image in report.images))
    moved = len({image.source for image in report.images if image.moved})
    resent = f" ({size_text(totals.bytes_resent)} of it again)" if totals.bytes_resent else ""
    lines = [
        f"{count_text(totals.images, 'image')}: {told}",
        f"{count_text(totals.blobs_copied, 'blob')} copied, {totals.blobs_mounted} mounted, "
        f"{totals.blobs_present} present; {count_text(totals.manifests_put, 'manifest')} put",
        f"{size_text(totals.bytes_read)} read, {size_text(totals.bytes_written)} written{resent}, "
        f"{count_text(totals.requests, 'request')}, {seconds_text(totals.seconds)}",
    ]
    if totals.audited or totals.incomplete:
        lines.append(
            f"{count_text(totals.audited, 'root')} of earlier runs audited, "
            f"{count_text(totals.incomplete, 'image')} incomplete"
        )
    lines += _referrer_lines(report)
    if len(report.targets) > 1:
        lines += table([_target_row(target) for target in report.targets])
    lines += tag_lines(report.tags)
    lines += [
        one_line(f"skipped: {image.source} -> {image.target}: {image.reason}")
        for image in report.images
        if image.reason
    ]
    lines += [one_line(f"note: {note}") for note in report.notes]
    if moved:
        lines.append(f"{count_text(moved, 'tag')} moved at the source meanwhile: run again to take that up")
    return lines


def _referrer_lines(report: Report) -> list[str]:
    """How many signatures, SBOMs and attestations went along; what was left, and why."""
    found = [(image, each) for image in report.images for each in image.referrers]
    left = [(image, each) for image, each in found if each.left]
    if not found:
        return []
    less = f", {len(left)} of them left" if left else ""
    return [
        f"{count_text(len(found), 'referrer')}{less}",
        *(one_line(f"left: {each.digest} of {image.target}: {each.left}") for image, each in left),
    ]


def _statuses_text(counts: Mapping[str, int]) -> str:
    """`2 done, 1 failed`, without what there is none of."""
    statuses = ("done", "present", "failed", "skipped")
    return ", ".join(f"{counts[status]} {status}" for status in statuses if counts[status])


def _target_row(target: TargetRecord) -> tuple[str, ...]:
    counts = msgspec.structs.asdict(target)
    return one_line(target.target), _statuses_text(counts), f"{size_text(target.bytes_written)} written"


def digest_lines(report: Report) -> list[str]:
    """A line for each image that has another digest at its target than at its source: what was pruned."""
    return [
        one_line(
            f"{image.source}@{image.source_digest} -> {image.target}@{image.digest}: "
            + ", ".join(image.platforms)
        )
        for image in report.images
        if image.status in ("done", "present") and image.digest != image.source_digest
    ]


def tag_lines(tags: Iterable[TagRecord]) -> list[str]:
    """A line for each tag that was too many, and what became of it."""
    words = {
        "removed": "removed: {0}",
        "surplus": "would remove: {0}",
        "left": "left: {0}: {1}",
        "failed": "failed: {0}: {1}",
    }
    return [one_line(words[tag.status].format(tag.target, tag.why)) for tag in tags]


def failure_lines(report: Report) -> list[str]:
    """One sentence for each image that failed."""
    return [
        one_line(f"failed: {image.source} -> {image.target}: {image.error}")
        for image in report.images
        if image.status == "failed"
    ]


def plan_lines(planned: Planned) -> list[str]:
    """A plan's price."""
    price = planned.price
    if_refused = sum(target.bytes_if_mounts_fail for target in price.targets.values())
    skipped = f"; {len(planned.skipped)} skipped" if planned.skipped else ""
    figures = [
        ("images", f"{price.images}, of which {price.images_current} current{skipped}"),
        (
            "blobs",
            f"{price.blobs_unique} unique, {price.blobs_shared} shared, {price.blobs_present} present",
        ),
        ("to read", size_text(price.bytes_to_read)),
        ("to write", _at_most_text(price.bytes_to_write, if_refused)),
        ("mounts", str(price.mounts)),
        *_referrer_figures(planned),
        ("manifests", str(price.manifests)),
        *(
            ("target", _target_price_text(host, target))
            for host, target in price.targets.items()
            if len(price.targets) > 1
        ),
        *(("requests", f"{count} to {one_line(host)}") for host, count in price.requests.items()),
        *(
            ("allowance", _allowance_text(host, allowance, planned.reads[host]))
            for host, allowance in planned.allowances.items()
        ),
    ]
    return table(figures)


def _referrer_figures(planned: Planned) -> list[tuple[str, str]]:
    attached = sum(len(desired.attached) for desired in planned.desired_images.values())
    left = sum(len(desired.left) for desired in planned.desired_images.values())
    return [("referrers", f"{attached} to go along, {left} left")] if attached or left else []


def _allowance_text(host: str, allowance: Allowance, reads: int) -> str:
    """What is left of a source's allowance, against what a run of the plan needs of it."""
    whom = f" by {one_line(allowance.source)}" if allowance.source else ""
    left = f"{count_text(allowance.remaining, 'manifest')} left to be read{whom} of {allowance.rate}"
    enough = "" if reads <= allowance.remaining else ": too few, it would stop, or with --wait wait"
    return f"{one_line(host)} has {left}; a run reads {reads}{enough}"


def _at_most_text(size: int, more: int) -> str:
    return size_text(size) + (f" (at most {size_text(size + more)})" if more else "")


def _target_price_text(host: str, target: TargetCost) -> str:
    size = _at_most_text(target.bytes_to_write, target.bytes_if_mounts_fail)
    blobs, manifests = count_text(target.copies, "blob"), count_text(target.manifests, "manifest")
    return f"{size} to {one_line(host)}: {blobs}, {target.mounts} mounted, {manifests}"


def plan_document(planned: Planned, notes: Iterable[str] = ()) -> dict[str, Any]:
    """A plan for programs: `price`, and `images` with status mirror, current, failed (`error` says why) or
    skipped (`reason` does).

    Of each image: `copies`, `mounts`, `manifests` and `bytes_to_write` as in the price, what several images
    share with the first of them; `platforms` that will be there, where that was looked at.
    `manifests_read`: how many a run reads, by host; `allowances`: of how many those hosts said last that they
    let them be read. `notes`: what it took to find out what is wanted.
    """
    from blobflow.engine.plan.preview import preview_images

    return {
        "version": 1,
        "price": msgspec.to_builtins(planned.price),
        "manifests_read": planned.reads,
        "allowances": msgspec.to_builtins(planned.allowances),
        "images": [_planned_image(planned, each) for each in preview_images(planned)],
        "notes": list(notes),
    }


def _planned_image(planned: Planned, outlook: ImagePreview) -> dict[str, Any]:
    from blobflow.engine.results.collector import referrer_records

    desired = planned.desired_images.get(outlook.pair) if outlook.error is None else None
    return {
        "source": str(outlook.pair.source),
        "target": str(outlook.pair.target),
        "digest": outlook.digest,
        "status": outlook.status,
        "error": "" if outlook.error is None else str(outlook.error),
        "reason": outlook.reason,
        "platforms": list(outlook.platforms),
        "copies": outlook.copies,
        "mounts": outlook.mounts,
        "manifests": outlook.manifests,
        "bytes_to_write": outlook.bytes_to_write,
        "referrers": msgspec.to_builtins(referrer_records(desired)) if desired else [],
    }


def image_lines(found: Inspection) -> list[str]:
    """An image as a person reads it: the root, then each platform with its layers."""
    root = found.root
    lines = table(
        [
            ("name", one_line(str(found.reference))),
            ("digest", root.descriptor.digest),
            ("media type", one_line(root.descriptor.media_type)),
            ("size", size_text(root.descriptor.size)),
            *_annotations(root),
        ]
    )
    if not root.is_index:
        return lines + _content_lines(root, indent="")
    below = {manifest.descriptor.digest: manifest for manifest in found.manifests}
    absent = found.absent
    for child in root.manifests:
        platform = str(child.platform) if child.platform else "no platform"
        lines += ["", one_line(platform)]
        lines += table(
            [
                ("digest", child.digest),
                ("media type", one_line(child.media_type)),
                ("size", size_text(child.size)),
                *([("absent", "not there: the index is sparse")] if child.digest in absent else []),
            ],
            indent="  ",
        )
        if child.digest in below:
            lines += _content_lines(below[child.digest], indent="  ", absent=absent)
    if root.layers:
        lines += ["", *_content_lines(msgspec.structs.replace(root, manifests=()), indent="")]
    return lines


def _annotations(manifest: Manifest) -> list[tuple[str, ...]]:
    return [("annotation", one_line(f"{key}={value}")) for key, value in manifest.annotations.items()]


def _content_lines(manifest: Manifest, *, indent: str, absent: frozenset[Digest] = frozenset()) -> list[str]:
    """Config and layers of an image, or what an index lists inside an index: manifests, or blobs."""
    parts = [("absent" if child.digest in absent else "manifest", child) for child in manifest.manifests]
    if manifest.config is not None:
        parts.append(("config", manifest.config))
    parts += [("blob" if manifest.is_index else "layer", layer) for layer in manifest.layers]
    rows: list[tuple[str, ...]] = [
        (kind, part.digest, size_text(part.size), one_line(part.media_type or "no media type"))
        for kind, part in parts
    ]
    if manifest.blobs:
        rows.append(("in all", "", size_text(sum(blob.size for blob in manifest.blobs)), ""))
    return table(rows, indent=indent) if rows else []


def image_document(found: Inspection) -> dict[str, Any]:
    """An image for programs: the root's descriptor and content, children inside `manifests`; those of a
    sparse index that are not there have `absent`. What an index lists that is no manifest comes last."""
    below = {manifest.descriptor.digest: manifest for manifest in found.manifests}
    return {"name": str(found.reference), **_described(found.root.descriptor, found.root, below)}


def _described(mention: Descriptor, manifest: Manifest, below: dict[Any, Manifest]) -> dict[str, Any]:
    """A descriptor as its parent has it, with what the manifest it names holds."""
    described: dict[str, Any] = msgspec.to_builtins(mention)
    if manifest.annotations:
        described["annotations"] = {**manifest.annotations, **described.get("annotations", {})}
    if manifest.is_index:
        described["manifests"] = [
            _described(child, below[child.digest], below)
            if child.digest in below
            else msgspec.to_builtins(child) | {"absent": True}
            for child in manifest.manifests
        ] + [msgspec.to_builtins(blob) for blob in manifest.layers]
    else:
        described["config"] = msgspec.to_builtins(manifest.config)
        described["layers"] = msgspec.to_builtins(manifest.layers)
    return described
