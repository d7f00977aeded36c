"""Admission: what a signature policy lets into the repositories that are pulled through.

A manifest comes in, and is given out, if
- the policy accepts it under the name that it was asked for by, which is its upstream's: the signatures are
  read there;
- or it is asked for by digest, and an index that is here lists it;
- or it hangs on a manifest that is here, as signatures and SBOMs do, so that clients can verify for
  themselves. An index, or what has layers that are no text (an image, a chart), is never let in for that:
  anybody who may push at the upstream can hang one on an image. It is judged as if it hung on nothing. A
  media type is only a word: what has an image's config, as cosign's signatures do, and would be run by
  clients that don't look at the words for its layers, is read before it is believed to be text.

What was refused is not looked at again for a while, so that clients who ask again and again cost an upstream
nothing. Another policy judges anew: each has names of its own in the store (`stored_names`).
"""

from __future__ import annotations

import codecs
from collections.abc import Awaitable, Callable

from blobflow.bounded_cache import BoundedCache
from blobflow.content import Referrer, Refers, Site, Source, SourceAt, Verifier
from blobflow.errors import InvalidDigest, NotFound, RegistryError, SignatureRejected, UnsupportedContent
from blobflow.events import Observer, Warned
from blobflow.oci import Descriptor, Digest, Manifest, Reference, parse_digest
from blobflow.oci.hanging import hangs, is_like_an_image
from blobflow.oci.referrers import cosign_tags
from blobflow.printable import printable
from blobflow.server.errors import ApiError
from blobflow.server.manifest_index import ManifestReader
from blobflow.server.pullthrough.listed_manifests import ListedManifests
from blobflow.server.pullthrough.stored_names import StoredNames
from blobflow.server.pullthrough.upstream_requests import UpstreamRequests
from blobflow.signatures.contract import ClaimedImage, FoundSignature, SignatureJudge
from blobflow.signatures.finding import find_signatures
from blobflow.signatures.judging import JudgingThreads
from blobflow.transports.store import Store

# Refusals that are remembered; one that is forgotten is made again.
_MAX_REFUSALS = 10_000
# Characters of a refusal: a reference, a digest and a key's or an identity's name fit.
_LONGEST = 1000
# What hangs on what hangs on an image: a counter-signature of an SBOM's signature makes three.
MAX_DEPTH = 4

# Bytes, and layers, of what looks like an image that are read to see that it is text: what cosign attests of
# a large SBOM fits.
_MAX_TEXT = 32 * 1024 * 1024
_MAX_TEXTS = 64
# Seconds for that, also where a client waits for less: a slow upstream does not count as a broken one.
_TEXT_SECONDS = 60.0
_TAR_HEADER = 512


class Refused(ApiError):
    """The policy does not accept what a client asked for: 403, with one sentence that clients show."""

    def __init__(self, message: str) -> None:
        super().__init__("DENIED", printable(message, _LONGEST))


class Admission:
    """What a policy accepts of the upstreams, until another one replaces it. Used on one loop; `close` it.

    `names`: those under which the store has what it accepted. `have` brings the manifest of a digest into a
    repository, or raises ApiError; it is called with the depth at which the manifest hangs on what was asked
    for. `ttl`: seconds for which a refusal is remembered.
    """

    def __init__(
        self,
        judge: SignatureJudge,
        names: StoredNames,
        store: Store,
        reader: ManifestReader,
        requests: UpstreamRequests,
        source_at: SourceAt,
        have: Callable[[str, Site, Digest, int], Awaitable[None]],
        ttl: float,
        clock: Callable[[], float],
    ) -> None:
        self._judge = judge
        self._names = names
        self._threads = JudgingThreads()
        self._requests = requests
        self._source_at = source_at
        self._have = have
        self._observer: Observer = store.observer
        self._listed = ListedManifests(store, reader)
        self._refusals: BoundedCache[tuple[str, str, Digest], str] = BoundedCache(
            entries=_MAX_REFUSALS, seconds=ttl, clock=clock
        )

    async def close(self) -> None:
        await self._listed.close()

    def replace(self, judge: SignatureJudge, names: StoredNames) -> None:
        """Judge under another policy from now on, which refused nothing yet."""
        self._judge, self._names = judge, names

    async def recall(self, repository: str, digest: Digest, tag: str = "") -> None:
        """Raise Refused where the manifest was refused under this name a while ago, and nothing that has come
        in since then lists it."""
        sentence = self._refusals.get((repository, tag, digest))
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
            except ApiError as error:
                if not isinstance(error, Refused) and error.status != 404:
                    raise
            else:
                if not is_like_an_image(manifest) or await self._is_text(upstream, manifest):
                    return
        reference = Reference(upstream.registry, upstream.repository, tag, "" if tag else digest)
        image = ClaimedImage("docker", reference, digest, manifest.raw)
        await self._check(repository, upstream, image, seconds)

    def note(self, repository: str, manifest: Manifest) -> None:
        """Take in a manifest that has just come into the repository."""
        self._listed.note(repository, manifest)

    async def _check(self, repository: str, upstream: Site, image: ClaimedImage, seconds: float) -> None:
        """Raise Refused, and tell the operator, if the policy rejects the image."""
        judge = self._judge
        if not self._names.are_of(repository):
            raise _policy_changed()
        found = await self._find(upstream, image.digest, seconds) if judge.wants_signatures(image) else []
        try:
            await self._threads.judge(judge, image, found)
        except SignatureRejected as error:
            self._refusals.put((repository, image.reference.tag, image.digest), error.message)
            self._observer(Warned(f"refused to clients: {error.message}"))
            raise Refused(error.message) from None

    async def _is_text(self, upstream: Site, manifest: Manifest) -> bool:
        """Whether the layers of a manifest are text, as their media types say. All of each is read: only the
        bytes that have the digest are those that clients get."""
        layers = manifest.layers
        if len(layers) > _MAX_TEXTS or sum(each.size for each in layers) > _MAX_TEXT:
            return False
        source = self._source_at(upstream)
        async with self._requests.guard(upstream, "blob", _TEXT_SECONDS):
            for layer in layers:
                try:
                    if not is_text(await _beginning(source, layer)):
                        return False
                except NotFound:
                    return False
        return True

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


def _policy_changed() -> ApiError:
    """What a request gets that began under another policy: what one accepts may not come in as another's."""
    message = "the signature policy changed while this was fetched; ask again"
    return ApiError("UNKNOWN", message, status=503, headers={"Retry-After": "1"})


async def _named(source: Source, subject: Digest, tag: str) -> list[Referrer]:
    """What refers to the subject under a tag, if anything does."""
    try:
        return [Referrer(await source.resolve(tag), subject, "cosign", tag)]
    except (RegistryError, UnsupportedContent) as error:
        if error.retryable:
            raise
        return []  # Artifactory answers 403 for a tag that it does not have


def is_text(beginning: bytes) -> bool:
    """Whether what begins so, with enough of it for a tar's first header, is text, and neither compressed nor
    a tar: one with long names and no padding has nothing but letters in it."""
    import tarfile  # only where something looks like an image

    if any(byte < 0x20 and byte not in b"\t\n\r" for byte in beginning) or beginning.startswith(b"BZh"):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
        tarfile.TarInfo.frombuf(beginning[:_TAR_HEADER], "utf-8", "surrogateescape")
    except UnicodeDecodeError:
        return False
    except tarfile.HeaderError:
        return True
    return False


async def _beginning(source: Source, layer: Descriptor) -> bytes:
    """The first bytes of a layer, all of which has its digest. Raises as `Source.open`, and
    IntegrityError."""
    verifier, beginning = Verifier(layer), b""
    async with source.open(layer) as chunks:
        async for chunk in chunks:
            verifier.feed(chunk)
            if len(beginning) < _TAR_HEADER:
                beginning += bytes(chunk[:_TAR_HEADER])
    verifier.finish()
    return beginning[:_TAR_HEADER]


def subject_of_tag(tag: str) -> Digest | None:
    """What cosign's signatures, attestations or SBOMs under the tag are of; None for any other tag."""
    try:
        subject = parse_digest(tag.rpartition(".")[0].replace("-", ":", 1))
    except InvalidDigest:
        return None
    return subject if tag in cosign_tags(subject) else None
