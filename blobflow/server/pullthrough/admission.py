"""Admission: what a signature policy lets into the repositories that are pulled through.

A manifest comes in, and is given out, if
- the policy accepts it under the name that it was asked for by, which is its upstream's: the signatures are
  read there;
- or it is asked for by digest, and an index that is here lists it;
- or it hangs on a manifest that is here, as signatures and SBOMs do, so that clients can verify for
  themselves. An index, or what has layers that are no text (an image, a chart), is never let in for that:
  anybody who may push at the upstream can hang one on an image. It is judged as if it hung on nothing.

What was refused is not looked at again for a while, so that clients who ask again and again cost an upstream
nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from blobflow.bounded_cache import BoundedCache
from blobflow.content import Referrer, Refers, Site, Source, SourceAt
from blobflow.errors import InvalidDigest, NotFound, RegistryError, SignatureRejected, UnsupportedContent
from blobflow.events import Observer, Warned
from blobflow.oci import Digest, Manifest, Reference, media, parse_digest
from blobflow.oci.referrers import cosign_tags
from blobflow.printable import printable
from blobflow.server.errors import ApiError
from blobflow.server.manifest_index import ManifestReader
from blobflow.server.pullthrough.listed_manifests import ListedManifests
from blobflow.server.pullthrough.upstream_requests import UpstreamRequests
from blobflow.signatures.contract import ClaimedImage, FoundSignature, SignatureJudge
from blobflow.signatures.finding import find_signatures
from blobflow.transports.store import Store

# Refusals that are remembered; one that is forgotten is made again.
_MAX_REFUSALS = 10_000
# Characters of a refusal: a reference, a digest and a key's or an identity's name fit.
_LONGEST = 1000
# What hangs on what hangs on an image: a counter-signature of an SBOM's signature makes three.
MAX_DEPTH = 4

# Notation's signatures are JSON, or this.
_COSE = "application/cose"


class Refused(ApiError):
    """The policy does not accept what a client asked for: 403, with one sentence that clients show."""

    def __init__(self, sentence: str) -> None:
        super().__init__("DENIED", printable(sentence, _LONGEST))


class Admission:
    """What one policy accepts of the upstreams. Used on one loop; `close` it.

    `have` brings the manifest of a digest into a repository, or raises ApiError; it is called with the depth
    at which the manifest hangs on what was asked for. `ttl`: seconds for which a refusal is remembered.
    """

    def __init__(
        self,
        judge: SignatureJudge,
        store: Store,
        reader: ManifestReader,
        requests: UpstreamRequests,
        source_at: SourceAt,
        have: Callable[[str, Site, Digest, int], Awaitable[None]],
        *,
        ttl: float,
        clock: Callable[[], float],
    ) -> None:
        self._judge = judge
        self._reader = reader
        self._requests = requests
        self._source_at = source_at
        self._have = have
        self._observer: Observer = store.observer
        self._listed = ListedManifests(store, reader)
        self._refusals: BoundedCache[tuple[Site, str, Digest], str] = BoundedCache(
            entries=_MAX_REFUSALS, seconds=ttl, clock=clock
        )

    async def close(self) -> None:
        await self._listed.close()

    async def recall(self, repository: str, upstream: Site, digest: Digest, tag: str = "") -> None:
        """Raise Refused where the manifest was refused under this name a while ago, and nothing that has come
        in since then lists it."""
        sentence = self._refusals.get((upstream, tag, digest))
        if sentence and (tag or not await self._listed.has(repository, digest)):
            raise Refused(sentence)

    async def admit(
        self,
        repository: str,
        upstream: Site,
        manifest: Manifest,
        tag: str = "",
        *,
        depth: int = 0,
        seconds: float,
    ) -> None:
        """Return if the manifest may come into the repository, under the tag if there is one. Raises Refused,
        and ApiError for what the upstream does, which has so many seconds for each answer."""
        digest = manifest.descriptor.digest
        if not tag and await self._listed.has(repository, digest):
            return
        subject = subject_of_tag(tag) if tag else manifest.subject and manifest.subject.digest
        if subject and depth < MAX_DEPTH and hangs(manifest):
            try:
                await self._have(repository, upstream, subject, depth + 1)
                return
            except ApiError as error:
                if not isinstance(error, Refused) and error.status != 404:
                    raise
        reference = Reference(upstream.registry, upstream.repository, tag, "" if tag else digest)
        await self._check(upstream, ClaimedImage("docker", reference, digest, manifest.raw), seconds)

    def note(self, repository: str, manifest: Manifest) -> None:
        """Take in a manifest that has just come into the repository."""
        self._listed.note(repository, manifest)

    async def _check(self, upstream: Site, image: ClaimedImage, seconds: float) -> None:
        """Raise Refused, and tell the operator, if the policy rejects the image."""
        found = (
            await self._find(upstream, image.digest, seconds) if self._judge.wants_signatures(image) else []
        )
        try:
            await self._reader.run(lambda: self._judge.judge(image, found))
        except SignatureRejected as error:
            self._refusals.put((upstream, image.reference.tag, image.digest), error.message)
            self._observer(Warned(f"refused to clients: {error.message}"))
            raise Refused(error.message) from None

    async def _find(self, upstream: Site, subject: Digest, seconds: float) -> list[FoundSignature]:
        source = self._source_at(upstream)
        if not isinstance(source, Refers):
            return []
        async with self._requests.guard(upstream, "referrers", seconds):
            try:
                found = await source.referrers(subject)
            except NotFound:
                found = []
            for tag in cosign_tags(subject)[:1]:  # what is known of the tags may be older than the signature
                if all(each.tag != tag for each in found):
                    found += await _named(source, subject, tag)
            return await find_signatures(source, subject, found)


async def _named(source: Source, subject: Digest, tag: str) -> list[Referrer]:
    """What refers to the subject under a tag, if anything does."""
    try:
        return [Referrer(await source.resolve(tag), subject, "cosign", tag)]
    except (RegistryError, UnsupportedContent) as error:
        if error.retryable:
            raise
        return []  # Artifactory answers 403 for a tag that it does not have


def hangs(manifest: Manifest) -> bool:
    """Whether a manifest only says something about another one: all of it is text, or a signature, and not
    what somebody would unpack or run."""
    return not manifest.is_index and all(_is_said(layer.media_type) for layer in manifest.layers)


def _is_said(media_type: str) -> bool:
    kind = media.without_parameters(media_type)
    return kind == _COSE or kind.startswith("text/") or kind.endswith(("+json", "+xml", "/json", "/xml"))


def subject_of_tag(tag: str) -> Digest | None:
    """What cosign's signatures, attestations or SBOMs under the tag are of; None for any other tag."""
    try:
        subject = parse_digest(tag.rpartition(".")[0].replace("-", ":", 1))
    except InvalidDigest:
        return None
    return subject if tag in cosign_tags(subject) else None
