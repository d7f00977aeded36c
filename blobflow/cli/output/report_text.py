"""A run's report as text: a summary, and a line for each image that needs one. Pure: values → lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from blobflow.cli.output.event_text import registry_of
from blobflow.cli.output.units import count_text, one_line, seconds_text, size_text, table
from blobflow.oci.local_reference import ARCHIVES, transport_of

if TYPE_CHECKING:
    from blobflow.engine.results.report import ImageRecord, Report, TagRecord, TargetRecord


# Referrers that were left, or reasons for that, which get a line each.
_LEFT_SHOWN = 12


def run_lines(report: Report) -> list[str]:
    """When the run was, what was typed, by which version, and what ended it; of a report that tells that."""
    from blobflow.cli.options.command_line import command_text

    run = report.run
    if run.started is None or run.ended is None:
        return []
    lines = [
        f"{run.started:%Y-%m-%d %H:%M:%S} to {run.ended:%Y-%m-%d %H:%M:%S} UTC, by blobflow {run.blobflow}"
    ]
    lines += [command_text(run.command)] if run.command else []
    lines += [f"it ended early: {run.error}"] if run.error else []
    return list(map(one_line, lines))


def summary_lines(report: Report) -> list[str]:
    """What a run did, in figures."""
    totals = report.totals
    statuses = _statuses_text(Counter(map(_status_of, report.images)))
    moved = len({image.source for image in report.images if image.moved})
    resent = f" ({size_text(totals.bytes_resent)} of it again)" if totals.bytes_resent else ""
    lines = [
        f"{count_text(totals.images, 'image')}: {statuses}",
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
    if workers := [each for each in report.run.workers if each.copies]:
        brought = sum(each.copies for each in workers)
        lines.append(f"{count_text(brought, 'blob')} brought by {count_text(len(workers), 'worker')}")
    lines += _range_lines(report)
    lines += _referrer_lines(report)
    if len(report.targets) > 1:
        left = Counter(registry_of(image.target) for image in report.images if _is_left(image))
        lines += table([_target_row(target, left[target.target]) for target in report.targets])
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


def _range_lines(report: Report) -> list[str]:
    """What was read by ranges, and how often that was given up, and why."""
    ranges, lines = report.ranges, []
    if ranges.blobs:
        came = f"{size_text(ranges.bytes)} by {count_text(ranges.requests, 'range')}"
        lines.append(f"{count_text(ranges.blobs, 'large blob')} read by several ranges at once: {came}")
    for reason, times in ranges.fallbacks.items():
        lines.append(f"{count_text(times, 'blob')} read by one stream after all: a range had {reason}")
    return lines


def _referrer_lines(report: Report) -> list[str]:
    """How many signatures, SBOMs and attestations went along; what was left, and why."""
    found = [(image, each) for image in report.images for each in image.referrers]
    left = [(image, each) for image, each in found if each.left]
    if not found:
        return []
    less = f", {len(left)} of them left" if left else ""
    lines = [f"{count_text(len(found), 'referrer')}{less}"]
    if len(left) <= _LEFT_SHOWN:
        return lines + [
            one_line(f"left: {each.digest} of {image.target}: {each.left}") for image, each in left
        ]
    reasons = Counter(each.left for _, each in left).most_common()
    lines += [one_line(f"left: {count_text(n, 'referrer')}: {reason}") for reason, n in reasons[:_LEFT_SHOWN]]
    return [*lines, "each of them is in a --report"]


def _is_left(image: ImageRecord) -> bool:
    """Whether the run ended before the image was finished, or had failed."""
    return image.status == "skipped" and not image.reason


def _status_of(image: ImageRecord) -> str:
    return "left" if _is_left(image) else image.status


def left_lines(report: Report) -> list[str]:
    """What a run that was cut short has left, and how to go on; nothing if it has left nothing."""
    images = report.images
    left = [image for image in images if _is_left(image)]
    if not left:
        return []
    there = sum(image.status in ("done", "present") for image in images)
    verb = "is" if 1 in (there, len(images)) else "are"
    done = f"{there} of {count_text(len(images), 'image')} {verb} at the target"
    if all(transport_of(image.target) in ARCHIVES for image in left):
        going_on = "the same command begins the archive anew"
    else:
        going_on = "the same command goes on"
    return [f"{done}, {len(left)} left ({size_text(report.totals.bytes_written)} written); {going_on}"]


def _statuses_text(counts: Mapping[str, int]) -> str:
    """`2 done, 1 failed`, without what there is none of."""
    statuses = ("done", "present", "failed", "skipped", "left")
    return ", ".join(f"{counts[status]} {status}" for status in statuses if counts[status])


def _target_row(target: TargetRecord, left: int) -> tuple[str, ...]:
    counts = msgspec.structs.asdict(target)
    counts |= {"skipped": target.skipped - left, "left": left}
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
