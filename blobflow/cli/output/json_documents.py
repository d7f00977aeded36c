"""Plans and images for programs, as `--json` prints them. Pure: values → JSON types."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from blobflow.engine.plan.planned import Planned
    from blobflow.engine.plan.preview import ImagePreview
    from blobflow.engine.results.difference import ReportDifference
    from blobflow.engine.results.report import Report
    from blobflow.oci import Descriptor, Manifest
    from blobflow.operations.inspection import Inspection


def plan_document(planned: Planned, notes: Iterable[str] = ()) -> dict[str, Any]:
    """A plan for programs: `price`, and `images` with status mirror, current, failed (`error` says why) or
    skipped (`reason` does). `made`: when, by which version of blobflow, and of which command line, as in a
    report's `run`.

    Of each image: `copies`, `mounts`, `manifests` and `bytes_to_write` as in the price, what several images
    share with the first of them; `platforms` that will be there, where that was looked at.
    `backup`: the tag under which what the target's tag names is kept. `signatures`: as in a report.
    `manifests_read`: how many a run reads, by host; `allowances`: of how many those hosts said last that they
    let them be read. `notes`: what it took to find out what is wanted.
    """
    from blobflow.cli.options.command_line import command_line
    from blobflow.engine.plan.preview import preview_images
    from blobflow.engine.results.run_record import utc_now
    from blobflow.version import __version__

    return {
        "version": 1,
        "made": msgspec.to_builtins({"at": utc_now(), "blobflow": __version__, "command": command_line()}),
        "images": [_planned_image(planned, each) for each in preview_images(planned)],
        "price": msgspec.to_builtins(planned.cost),
        "manifests_read": planned.reads,
        "allowances": msgspec.to_builtins(planned.allowances),
        "notes": list(notes),
    }


def _planned_image(planned: Planned, preview: ImagePreview) -> dict[str, Any]:
    from blobflow.engine.results.collector import referrer_records

    desired = planned.desired_images.get(preview.pair) if preview.error is None else None
    return {
        "source": str(preview.pair.source),
        "target": str(preview.pair.target),
        "digest": preview.digest,
        "status": preview.status,
        "error": "" if preview.error is None else str(preview.error),
        "reason": preview.reason,
        "platforms": list(preview.platforms),
        "copies": preview.copies,
        "mounts": preview.mounts,
        "manifests": preview.manifests,
        "backup": preview.backup,
        "bytes_to_write": preview.bytes_to_write,
        "referrers": msgspec.to_builtins(referrer_records(desired)) if desired else [],
        "signatures": msgspec.to_builtins(desired.verdicts) if desired else [],
    }


def difference_document(difference: ReportDifference, before: Report, after: Report) -> dict[str, Any]:
    """The difference between two reports for programs; `runs`: which they were, the earlier one first."""
    return {
        "version": 1,
        "differs": difference.differs,
        "runs": [msgspec.to_builtins(before.run), msgspec.to_builtins(after.run)],
        **msgspec.to_builtins(difference),
    }


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
