"""Signature checks: whether the images of a run are what a signature policy accepts, asked of their sources.

    what refers to a manifest ─► manifests that may be signatures ─► their content ─► the judge's verdict

An image is judged by the digest that is planned and copied, after its name was resolved and before anything
of it is planned; one that is rejected fails alone. What is judged is what the source has, whatever becomes of
that at the target: of an index of which some platforms are taken, or that is converted, the index itself.

*Root, images or all.* A digest covers what is below it. Who signed an index signed the digests of its
children, so by default only what the source's name leads to is judged. With "all" each manifest below that
is mirrored has to be signed itself too, as `cosign sign --recursive` does it, for those who pull a platform
by its digest and verify that. With "images" each image has to be, and no index, as skopeo and podman have it:
what an index adds, which image is whose platform, is then nobody's word.

*Memory.* A verdict is remembered with the digest, the name and the policy's fingerprint that it is about, and
counts for an image that an earlier run put whole and that still is there. Whatever is moved is judged anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from blobflow.content import Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.concurrency.memo import AsyncMemo
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.policy import Judged, Policy
from blobflow.engine.services import Services
from blobflow.engine.sources.reader import GraphReader
from blobflow.engine.sources.referrers import ReferrerLookups
from blobflow.errors import (
    BlobflowError,
    NotFound,
    SignatureRejected,
    UnsupportedContent,
    error_side,
    own_copy,
)
from blobflow.oci import Descriptor, Digest, Manifest, Reference
from blobflow.signatures.contract import ClaimedImage, FoundSignature, SignatureJudge, Verdict
from blobflow.signatures.finding import read_signatures, signature_layers, signing_referrers
from blobflow.signatures.judging import JudgingThreads

# Characters of the verdicts that are remembered of one image: of more than some dozen manifests they are
# found out again.
_MAX_NOTE = 16 * 1024


class _Remembered(msgspec.Struct, frozen=True):
    """What is remembered of a source: its root, and the verdicts on it and on what is below it."""

    root: Digest
    verdicts: tuple[Verdict, ...]


_decoder = msgspec.json.Decoder(_Remembered)


class Checked(msgspec.Struct, frozen=True):
    """The verdicts on images that are accepted, and why others are not, or could not be judged."""

    verdicts: dict[Pair, tuple[Verdict, ...]]
    failures: dict[Pair, BlobflowError]


class _Question(msgspec.Struct, frozen=True):
    """A manifest at a source that a judge, named by its fingerprint, is asked about."""

    site: Site
    image: ClaimedImage
    manifest: Descriptor
    fingerprint: str


class SignatureChecks:
    """The signature checks of one run: what several targets ask about one source is found out once."""

    def __init__(
        self, policy: Policy, services: Services, lookups: ReferrerLookups, reader: GraphReader
    ) -> None:
        self._policy = policy
        self._services = services
        self._lookups = lookups
        self._reader = reader
        self._judges: dict[str, SignatureJudge] = {}
        self._threads = JudgingThreads()
        self._verdicts = AsyncMemo(self._judge)

    def demanded(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Those of the pairs whose images are judged. Raises UsageError as `Policy.judge_of`."""
        return [pair for pair in pairs if self._policy.judge_of(pair) is not None]

    def decided(self, pair: Pair, manifest: Descriptor) -> bool:
        """Whether no signature is wanted of this manifest, so that judging it asks nobody."""
        return not any(map(self._wants_signatures, self._questions(pair, manifest)))

    async def check(self, manifests: Mapping[Pair, Collection[Descriptor]], runner: BoundedRunner) -> Checked:
        """Judge these manifests at the sources of their pairs, each of which has a judge.

        Raises what ends the whole run: Throttled, where a source's pull quota is too small.
        """
        if not manifests:
            return Checked({}, {})
        questions = {
            pair: [question for each in wanted for question in self._questions(pair, each)]
            for pair, wanted in manifests.items()
        }
        asked = dict.fromkeys(question for each in questions.values() for question in each)
        await self._read_manifests([q for q in asked if self._wants_signatures(q)], runner)
        await runner.for_each(self._verdicts.prefetch, asked)
        verdicts: dict[Pair, tuple[Verdict, ...]] = {}
        failures: dict[Pair, BlobflowError] = {}
        for pair, each in questions.items():
            try:
                verdicts[pair] = tuple([await self._verdicts.get(question) for question in each])
            except BlobflowError as error:
                failures[pair] = error
        return Checked(verdicts, failures)

    def _questions(self, pair: Pair, manifest: Descriptor) -> list[_Question]:
        judge = self._policy.judge_of(pair)
        assert judge is not None, "who asks has a judge"
        self._judges[judge.fingerprint] = judge
        claims = self._services.claims(pair.source, manifest.digest)
        assert claims, "an image claims to be something"
        return [_Question(site_of(pair.source), each, manifest, judge.fingerprint) for each in claims]

    def _wants_signatures(self, question: _Question) -> bool:
        return self._judges[question.fingerprint].wants_signatures(question.image)

    async def _read_manifests(self, questions: Sequence[_Question], runner: BoundedRunner) -> None:
        """Read the manifests that may be signatures, of all images at once: so the pull quota sees them."""
        places = {(each.site, each.image.digest): None for each in questions}
        await self._lookups.look_ahead(places, runner)
        wanted: list[tuple[Site, Descriptor]] = []
        for site, digest in places:
            try:
                found = await self._lookups.lookup((site, digest))
            except BlobflowError:
                continue  # raised again by who judges it
            wanted += [(site, each.manifest) for each in signing_referrers(found)]
        await self._reader.read(wanted, runner)

    async def _judge(self, question: _Question) -> Verdict:
        judge, image = self._judges[question.fingerprint], question.image
        signatures: list[FoundSignature] = []
        with error_side("source"):
            if judge.wants_signatures(image):
                signatures = await self._find(question)
            if any(each.form == "bundle" for each in signatures):
                image = msgspec.structs.replace(image, manifest=await self._manifest(question))
            try:
                verdict = await self._threads.judge(judge, image, signatures)
            except SignatureRejected as error:
                if self._policy.judged != "root":  # the name alone does not say which
                    error.message += f" (of {image.digest})"
                raise
        for each in signatures:  # they go along with the image
            self._reader.blobs.keep(each.digest, each.content)
        return verdict

    async def _manifest(self, question: _Question) -> bytes:
        """The bytes of a manifest, which some bundles sign as they are: read now, unless they were before."""
        site, digest = question.site, question.image.digest
        if digest != question.manifest.digest:  # what was made of it is what is copied
            return b""
        await self._reader.read([(site, question.manifest)], BoundedRunner(1))
        if (error := self._reader.errors.get((site, digest))) is not None:
            raise own_copy(error)
        return self._reader.manifests.raw(digest)

    async def _find(self, question: _Question) -> list[FoundSignature]:
        """The signatures of a manifest. Raises what looking for them does; a signature that is listed and is
        not there, or is no manifest, is none."""
        site, layers = question.site, []
        for each in signing_referrers(await self._lookups.lookup((site, question.image.digest))):
            digest = each.manifest.digest
            error = self._reader.errors.get((site, digest))
            if isinstance(error, NotFound | UnsupportedContent):
                continue
            if error is not None:
                raise own_copy(error)
            layers += signature_layers(self._reader.manifests.whole(digest), each)
        return await read_signatures(self._services.source_at(site), layers)

    # Memory

    def remembered(
        self, pairs: Iterable[Pair], roots: Mapping[Reference, Descriptor]
    ) -> dict[Pair, tuple[Verdict, ...]]:
        """The verdicts that earlier runs had on these pairs' roots, under the same names and policies."""
        found: dict[Pair, tuple[Verdict, ...]] = {}
        for pair in pairs:
            root = roots[pair.source].digest
            note = self._services.journal.note(pair.source.host, self._key(pair, root))
            try:
                noted = _decoder.decode(note) if note else None
            except (msgspec.DecodeError, ValueError):
                continue  # of another version, or spoilt
            if noted is not None and noted.root == root:
                found[pair] = noted.verdicts
        return found

    def remember(self, pair: Pair, root: Digest, verdicts: tuple[Verdict, ...]) -> None:
        """Remember the verdicts on all of a pair's image that is judged: of each name only the last ones."""
        journal, key = self._services.journal, self._key(pair, root)
        note = msgspec.json.encode(_Remembered(root, verdicts)).decode()
        if len(note) <= _MAX_NOTE and journal.note(pair.source.host, key) != note:
            journal.record_note(pair.source.host, key, note)

    def _key(self, pair: Pair, root: Digest) -> str:
        """The journal's key for what a policy said of a source's image, of so much of it."""
        judge = self._policy.judge_of(pair)
        assert judge is not None, "who asks has a judge"
        images = [f"{each.transport}:{each.reference}" for each in self._services.claims(pair.source, root)]
        return f"verdict on {' and '.join(images)}, {_SAID[self._policy.judged](pair)}: {judge.fingerprint}"


_SAID: Mapping[Judged, Callable[[Pair], str]] = {
    "root": lambda pair: "its root",
    "images": lambda pair: f"its images, {pair.choice.key}",
    "all": lambda pair: f"all of it, {pair.choice.key}",
}


def judged_manifests(judged: Judged, root: Descriptor, manifests: Iterable[Manifest]) -> list[Descriptor]:
    """Which of an image's manifests, of which its source's name leads to `root`, are judged. Where no image
    stands for it, or an index lists what is none, the root has to."""
    if judged == "root":
        return [root]
    found = list(manifests)
    if judged == "all":
        return [root, *(each.descriptor for each in found if each.descriptor.digest != root.digest)]
    images = [each.descriptor for each in found if not each.is_index]
    whole = images and not any(each.is_index and each.layers for each in found)
    return images if whole else [root, *images]
