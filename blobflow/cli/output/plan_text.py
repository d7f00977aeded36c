"""What a plan would do and cost, as text. Pure: values → lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobflow.cli.output.units import count_text, one_line, size_text, table

if TYPE_CHECKING:
    from blobflow.content import Allowance
    from blobflow.engine.plan.cost import TargetCost
    from blobflow.engine.plan.planned import Planned
    from blobflow.engine.plan.preview import ImagePreview
    from blobflow.signatures.contract import Verdict


def dry_run_lines(planned: Planned) -> list[str]:
    """`SOURCE -> TARGET: what will happen`, in the order of the images, for people and for grep."""
    from blobflow.engine.plan.preview import preview_images

    return [
        one_line(f"{each.pair.source} -> {each.pair.target}: {_preview_text(each)}")
        for each in preview_images(planned)
    ]


def _preview_text(preview: ImagePreview) -> str:
    if preview.error is not None:
        return f"failed: {preview.error}"
    if preview.status == "skipped":
        return f"skipped: {preview.reason}"
    form = _form_text(preview)
    if preview.status == "current":
        return f"present{form}"
    counts = (
        (preview.copies, f"copy {count_text(preview.copies, 'blob')}"),
        (preview.mounts, f"mount {preview.mounts}"),
        (preview.manifests, f"put {count_text(preview.manifests, 'manifest')}"),
        (preview.attached, f"attach {count_text(preview.attached, 'referrer')}"),
    )
    steps = ", ".join(text for count, text in counts if count)
    kept = f", {preview.pair.target.tag} kept as {preview.backup}" if preview.backup else ""
    return f"{steps or 'brought with an image above'}, {size_text(preview.bytes_to_write)}{form}{kept}"


def _form_text(preview: ImagePreview) -> str:
    """What of the image will be there, where that is not all of it as it is."""
    choice = preview.pair.choice
    if choice.index == "only":
        return ", index only"
    if preview.bare:
        return ", as it is: it has no platform" + (f"; as {choice.format}" if choice.format else "")
    platforms = ", ".join(preview.platforms)
    if choice.format:
        return f", as {choice.format}" + (f" of {platforms}" if choice.platforms else "")
    if preview.made:
        return f", pruned to {platforms}"
    return f", {platforms} only" if preview.sparse else ""


def verdict_lines(planned: Planned) -> list[str]:
    """`SOURCE: accepted by SCOPE, …`, a line for each manifest that a signature policy was asked of."""
    found = {
        (pair.source, verdict): None
        for pair, desired in planned.desired_images.items()
        if pair not in planned.failures
        for verdict in desired.verdicts
    }
    return [
        one_line(f"{source}: {verdict.digest} accepted by {verdict.scope}: {_acceptances_text(verdict)}")
        for source, verdict in found
    ]


def left_referrer_lines(planned: Planned) -> list[str]:
    """`left: REFERRER of TARGET: why`, as the summary of a run has it."""
    return [
        one_line(f"left: {each.referrer.manifest.digest} of {pair.target}: {each.because}")
        for pair, desired in planned.desired_images.items()
        if pair not in planned.failures
        for each in desired.left
    ]


def _acceptances_text(verdict: Verdict) -> str:
    return ", ".join(
        f"signed by {each.by} ({each.signature})" if each.by else each.requirement
        for each in verdict.acceptances
    )


def plan_lines(planned: Planned) -> list[str]:
    """A plan's cost."""
    cost = planned.cost
    if_refused = sum(target.bytes_if_mounts_fail for target in cost.targets.values())
    failed = f"; {len(planned.failures)} failed" if planned.failures else ""
    skipped = f"; {len(planned.skipped)} skipped" if planned.skipped else ""
    figures = [
        ("images", f"{cost.images}, of which {cost.images_current} current{failed}{skipped}"),
        (
            "blobs",
            f"{cost.blobs_unique} unique, {cost.blobs_shared} shared, {cost.blobs_present} present",
        ),
        ("to read", _at_most_text(cost.bytes_to_read, cost.bytes_to_read_if_mounts_fail)),
        ("to write", _at_most_text(cost.bytes_to_write, if_refused)),
        ("mounts", str(cost.mounts)),
        *_referrer_figures(planned),
        ("manifests", str(cost.manifests)),
        *(
            ("target", _target_price_text(host, target))
            for host, target in cost.targets.items()
            if len(cost.targets) > 1
        ),
        *(("requests", f"{count} to {one_line(host)}") for host, count in cost.requests.items()),
        *(
            ("allowance", _allowance_text(host, allowance, planned.reads[host]))
            for host, allowance in planned.allowances.items()
        ),
    ]
    return table(figures)


def _referrer_figures(planned: Planned) -> list[tuple[str, str]]:
    attached = planned.referrers_along
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
