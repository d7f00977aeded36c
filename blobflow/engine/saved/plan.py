"""A saved plan: everything that a later run needs to carry it out, as one value.

It does not have the content that sources hold, only its digests and where to read it: an index of thousands
of images makes a plan of some megabytes, and each manifest is verified when it is read. Manifests that no
source holds (pruned indexes, converted manifests) are in it byte for byte.

A plan that is read from a file may come from anyone, so `check_saved_plan` checks every part: a plan that
passes names no site beyond those of its images, and can be carried out without further checks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import msgspec

from blobflow.content import Site
from blobflow.engine.backups import check_template, is_backup
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.cost import Cost
from blobflow.engine.plan.planned import Planned
from blobflow.engine.plan.steps import Attach, Backup, Copy, Goal, Mount, Need, NeedKind, Put, Step
from blobflow.engine.policy import Policy
from blobflow.engine.results.collector import referrer_records
from blobflow.engine.results.report import ReferrerRecord
from blobflow.engine.saved.signature_policies import SavedSignaturePolicy, signature_policies_of
from blobflow.errors import BlobflowError, UsageError
from blobflow.oci import (
    MAX_MANIFEST_BYTES,
    Descriptor,
    Digest,
    Manifest,
    Reference,
    digest_of,
    media,
    parse_digest,
    parse_manifest,
)
from blobflow.oci.digest import algorithm_of
from blobflow.oci.local_reference import check_local
from blobflow.oci.reference import check_host, check_repository, check_tag
from blobflow.oci.referrers import cosign_tags
from blobflow.signatures.contract import Verdict

_LARGEST = 2**53  # bytes of a blob; as in manifests


class MadeManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A manifest that no source holds."""

    media_type: str
    raw: bytes


class SavedImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A pair, what its source named (`source_root`) and its target should name (`root`), and the steps that
    complete it. `platforms` and `referrers` are for the report. `verdicts`: of which manifests a signature
    policy was asked, and what it said."""

    pair: Pair
    source_root: Descriptor
    root: Descriptor
    steps: tuple[int, ...]
    platforms: tuple[str, ...] = ()
    referrers: tuple[ReferrerRecord, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


class SavedSkip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pair that is skipped, what its source named, and why."""

    pair: Pair
    source_root: Descriptor
    reason: str


class SavedPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Steps as in `Plan`, the images that they complete, and the policy that the plan was made under.

    `made`: the manifests of steps that no source has. `sources`: the sites where each other manifest of a
    step can be read. `cost` is the cost when the plan was made, for people to read. `compress`: how bare
    layers of docker archives were compressed, which their digests depend on. `skipped`: for the report.
    `signature_policies`: by the names that the pairs have for them; whoever carries the plan out brings them.
    They are in a file only where there are some, so that who does not know of them refuses those alone.
    """

    policy: Policy
    images: tuple[SavedImage, ...]
    steps: tuple[Step, ...]
    needs: tuple[tuple[Need, ...], ...]
    made: dict[Digest, MadeManifest]
    sources: dict[Digest, tuple[Site, ...]]
    cost: Cost = msgspec.field(name="price")
    compress: str = "gzip"
    skipped: tuple[SavedSkip, ...] = ()
    signature_policies: dict[str, SavedSignaturePolicy] | msgspec.UnsetType = msgspec.UNSET

    @property
    def demanded(self) -> dict[str, SavedSignaturePolicy]:
        """Its signature policies by name; none where everything was accepted."""
        return {} if self.signature_policies is msgspec.UNSET else self.signature_policies

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs of the images that it completes."""
        return tuple(image.pair for image in self.images)

    @property
    def roots(self) -> dict[Reference, Descriptor]:
        """What each source named when the plan was made."""
        return {image.pair.source: image.source_root for image in self.images}

    def origins(self) -> dict[Digest, tuple[Site, ...]]:
        """Where the content of its steps can be read."""
        found = dict(self.sources)
        for step in self.steps:
            if isinstance(step, Copy | Mount):
                found[step.blob.digest] = (step.source,)
        return found

    def manifest_of(self, digest: Digest) -> Manifest:
        """The manifest with this digest, one of `made`."""
        made = self.made[digest]
        return parse_manifest(made.raw, made.media_type, digest=digest)


def to_saved_plan(
    planned: Planned,
    *,
    compress: str = "gzip",
    policy_files: Mapping[str, tuple[str, str]] = {},
) -> SavedPlan:
    """The saved form of a plan. Pairs that failed to plan are not in it, nor any site that only they had.

    `policy_files`: the files of signature policies and of their trusted roots, by name.

    Raises UsageError where some content can be read only at such a site.
    """
    plan, graph = planned.plan, planned.graph
    places = frozenset(site_of(goal.pair.source) for goal in plan.goals)

    def holders(digest: Digest) -> tuple[Site, ...]:
        found = tuple(site for site in graph.origins[digest] if site in places)
        if not found:
            raise UsageError(f"{digest} is only where an image could not be planned; plan again without that")
        return found

    def kept(step: Step) -> Step:
        match step:
            case Copy():
                return Copy(_lean(step.blob), min(holders(step.blob.digest)), step.target)
            case Mount():
                source = min(holders(step.blob.digest))
                return Mount(_lean(step.blob), step.origin, step.target, source, step.remembered)
            case Put() | Attach() | Backup():
                return step
            case _:
                assert_never(step)

    made = {digest: MadeManifest(m.descriptor.media_type, m.raw) for digest, m in plan.made.items()}
    puts = {step.manifest.digest for step in plan.steps if isinstance(step, Put)}
    order = {pair: number for number, pair in enumerate(planned.pairs)}
    return SavedPlan(
        policy=msgspec.structs.replace(planned.policy, signatures=None, named_signatures={}),
        images=tuple(_image(planned, goal) for goal in sorted(plan.goals, key=lambda each: order[each.pair])),
        steps=tuple(map(kept, plan.steps)),
        needs=plan.needs,
        made=made,
        sources={digest: holders(digest) for digest in sorted(puts - made.keys())},
        cost=planned.cost,
        compress=compress,
        skipped=tuple(
            SavedSkip(pair, _lean(graph.roots[pair.source]), planned.skipped[pair])
            for pair in planned.pairs
            if pair in planned.skipped
        ),
        signature_policies=signature_policies_of(planned, policy_files) or msgspec.UNSET,
    )


def _image(planned: Planned, goal: Goal) -> SavedImage:
    desired = planned.desired_images[goal.pair]
    return SavedImage(
        goal.pair,
        _lean(planned.graph.roots[goal.pair.source]),
        _lean(goal.root),
        goal.steps,
        desired.platforms,
        referrer_records(desired),
        desired.verdicts,
    )


def _lean(content: Descriptor) -> Descriptor:
    """The descriptor without what moving the content does not need. `urls` mark it as foreign."""
    return Descriptor(content.media_type, content.digest, content.size, urls=content.urls)


def check_saved_plan(saved: SavedPlan) -> None:
    """Raise ValueError, with a clause, for a plan that can't be carried out as it stands."""
    try:
        _check_images(saved)
        for digest, made in saved.made.items():
            _check_made(digest, made)
        if len(saved.needs) != len(saved.steps):
            raise ValueError(f"it has {len(saved.steps)} steps and needs of {len(saved.needs)}")
        checks = _Checks(saved)
        for number, step in enumerate(saved.steps):
            checks.step(number, step)
    except BlobflowError as error:
        raise ValueError(error.message) from None


def _check_images(saved: SavedPlan) -> None:
    aimed: dict[Reference, Digest] = {}
    named: dict[Reference, Digest] = {}
    for image in saved.images:
        pair = image.pair
        check_template(pair.backup)
        for reference in (pair.source, pair.target):
            _check_reference(reference)
        parse_digest(image.source_root.digest)  # its size need not be known
        parse_digest(image.root.digest)
        if pair.target.tag and aimed.setdefault(pair.target, image.root.digest) != image.root.digest:
            raise ValueError(f"two of its images aim at {pair.target}")
        if named.setdefault(pair.source, image.source_root.digest) != image.source_root.digest:
            raise ValueError(f"{pair.source} has two digests in it")
        if pair.signature_policy not in saved.demanded and (pair.signature_policy or image.verdicts):
            raise ValueError(f"{pair.source} was judged under a signature policy that it does not have")
        for verdict in image.verdicts:
            parse_digest(verdict.digest)
        for number in image.steps:
            if not 0 <= number < len(saved.steps):
                raise ValueError(f"{pair.target} wants step {number}, which there is not")
            if saved.steps[number].target != site_of(pair.target):
                raise ValueError(f"{pair.target} wants step {number}, which is for another target")
    for each in saved.skipped:
        for reference in (each.pair.source, each.pair.target):
            _check_reference(reference)
        parse_digest(each.source_root.digest)
    if len(set(saved.pairs)) != len(saved.images):
        raise ValueError("it has an image twice")


def _check_made(digest: Digest, made: MadeManifest) -> None:
    parse_digest(digest)
    actual = digest_of(made.raw, algorithm_of(digest))
    if actual != digest:
        raise ValueError(f"the manifest {digest} in it has digest {actual}")
    parse_manifest(made.raw, made.media_type, digest=digest)


class _Checks:
    """Checks the steps of a saved plan. `places` are the only sites that they may read from, `targets` the
    only ones they may write to; `tags` are those that they may write, each with the digests that it may
    name."""

    def __init__(self, saved: SavedPlan) -> None:
        self._saved = saved
        self._places = frozenset(site_of(pair.source) for pair in saved.pairs)
        self._targets = frozenset(site_of(pair.target) for pair in saved.pairs)
        self._tags: dict[tuple[Site, str], set[str]] = {}
        self._backups: dict[tuple[Site, str], set[str]] = {}  # the templates of what may be overwritten
        for image in saved.images:
            site = site_of(image.pair.target)
            self._tags.setdefault((site, image.pair.target.tag), set()).add(image.root.digest)
            self._backups.setdefault((site, image.pair.target.tag), set()).add(image.pair.backup)
            for each in image.referrers:
                for tag in cosign_tags(Digest(each.subject)) if each.how == "cosign" else ():
                    self._tags.setdefault((site, tag), set()).add(each.digest)

    def step(self, number: int, step: Step) -> None:
        if step.target not in self._targets:
            raise ValueError(f"step {number} is for {step.target}, where no image of it goes")
        match step:
            case Copy():
                _check_descriptor(step.blob)
                self._read_from(number, step.source)
            case Mount():
                _check_descriptor(step.blob)
                self._read_from(number, step.source)
                _check_site(step.origin)
                if step.origin.registry != step.target.registry:
                    raise ValueError(f"step {number} mounts from another registry")
            case Put():
                self._put(number, step)
            case Attach():
                parse_digest(step.subject)
                for referrer in step.referrers:
                    _check_descriptor(referrer)
            case Backup():
                self._backup(number, step)
            case _:
                assert_never(step)
        for need in self._saved.needs[number]:
            self._need(number, step, need)

    def _read_from(self, number: int, site: Site) -> None:
        if site not in self._places:
            raise ValueError(f"step {number} reads from {site}, where no image of it is")

    def _put(self, number: int, step: Put) -> None:
        _check_manifest(step.manifest)
        for tag in step.tags:
            _check_name(step.target.registry, tag)
            if step.manifest.digest not in self._tags.get((step.target, tag), ()):
                raise ValueError(
                    f"step {number} tags {step.manifest.digest} as {tag!r}, which no image of it says"
                )
        if step.fallback is not None:
            _check_manifest(step.fallback)
            self._is_made(number, step.fallback)
        digest = step.manifest.digest
        if digest in self._saved.made:
            self._is_made(number, step.manifest)
        elif not self._saved.sources.get(digest):
            raise ValueError(f"step {number} puts {digest}, and it does not say where that is")
        for site in self._saved.sources.get(digest, ()):
            self._read_from(number, site)

    def _backup(self, number: int, step: Backup) -> None:
        _check_manifest(step.manifest)
        parse_digest(step.replaced_by)
        templates = self._backups.get((step.target, step.tag), ())
        if not any(is_backup(step.kept, template, step.tag) for template in templates):
            raise ValueError(f"step {number} keeps {step.tag!r} as {step.kept!r}, which no image of it says")
        if (step.target, step.kept) in self._tags:
            raise ValueError(f"step {number} keeps {step.tag!r} as {step.kept!r}, which it mirrors itself")
        _check_name(step.target.registry, step.kept)

    def _is_made(self, number: int, manifest: Descriptor) -> None:
        made = self._saved.made.get(manifest.digest)
        if made is None or (made.media_type, len(made.raw)) != (manifest.media_type, manifest.size):
            raise ValueError(f"step {number} puts {manifest.digest}, which is not in it as it says")

    def _need(self, number: int, step: Step, need: Need) -> None:
        if not 0 <= need.step < number:
            raise ValueError(f"step {number} needs step {need.step}, which is not before it")
        needed = self._saved.steps[need.step]
        if isinstance(step, Mount) and need.kind == NeedKind.AFTER:
            right = isinstance(needed, Put) and needed.target == step.origin
        elif isinstance(step, Mount):
            right = (
                need.kind == NeedKind.FINISHED
                and isinstance(needed, Copy | Mount)
                and (needed.blob.digest, needed.target) == (step.blob.digest, step.origin)
            )
        else:
            right = (
                not isinstance(step, Copy)
                and needed.target == step.target
                and (
                    need.kind == NeedKind.SUCCEEDED
                    or (need.kind == NeedKind.UNLESS_REPLACED and isinstance(needed, Put))
                )
            )
        if not right:
            raise ValueError(f"step {number} needs step {need.step}, which it can't")


def _check_reference(reference: Reference) -> None:
    _check_site(site_of(reference))
    if reference.tag:
        _check_name(reference.host, reference.tag)
    if reference.digest:
        parse_digest(reference.digest)


def _check_site(site: Site) -> None:
    if check_local(site.registry):
        if site.repository:
            raise ValueError(f"{site} is a place with a repository")
    else:
        if check_host(site.registry) != site.registry:
            raise ValueError(f"{site.registry} is not the name of a registry as blobflow writes it")
        check_repository(site.repository)


def _check_name(host: str, tag: str) -> None:
    """Check a tag; the name of an image in a layout or archive may be more than a tag."""
    if check_local(host, tag):
        return
    check_tag(tag)


def _check_descriptor(content: Descriptor) -> None:
    parse_digest(content.digest)
    if not 0 <= content.size <= _LARGEST:
        raise ValueError(f"{content.digest} has {content.size} bytes in it")


def _check_manifest(manifest: Descriptor) -> None:
    _check_descriptor(manifest)
    if manifest.media_type not in media.MANIFESTS:
        raise ValueError(f"it puts {manifest.digest} as a manifest of type {manifest.media_type[:120]!r}")
    if manifest.size > MAX_MANIFEST_BYTES:
        raise ValueError(f"manifest {manifest.digest} has {manifest.size} bytes in it")
