"""Pushes manifests, and their tags with them ([end-7a], [end-7b]).

A manifest of several tags is put once for each, body and all; beyond spec 1.1 it is put once, by its digest,
with the tags as query parameters, and an `OCI-Tag` header confirms each. Registries that don't know that
ignore the query, so nothing is lost by asking but one request: it is asked where nothing is known of a host,
what came of it is noted for the next run, and tags that were not confirmed are put one by one.

It is the only way to a tag of a sha512 manifest: pushed by the tag, the registry would choose the algorithm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from yarl import URL

from blobflow.content import Site
from blobflow.errors import DigestMismatch, NotFound, Rejected
from blobflow.oci import Descriptor
from blobflow.oci.digest import algorithm_of
from blobflow.oci.manifest import subject_of
from blobflow.permits import Permit
from blobflow.transports.registry.capabilities.profiles import LearnedLimits, Profile
from blobflow.transports.registry.http.digest_headers import check_content, digests_in
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request, Response
from blobflow.transports.registry.uploads.failures import explain_manifest

# distribution 2.8.2 writes its links in place. Who puts a manifest in the moment in which another client puts
# one of its children, or uploads one of its blobs, has the child's link read while it is empty, and is told
# that the digest is invalid, of content that has the right one.
_TORN = ("DIGEST_INVALID",)
# Tags of one request: what a registry that supports it "SHOULD support at least", so that no URL is too long.
_TAGS_PER_REQUEST = 10
# What is wrong with a manifest is so by whatever name it is put.
_MANIFEST_IS_WRONG = frozenset({"MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "SIZE_INVALID"})


def describe_manifest(repository: str, name: str) -> str:
    """What a manifest is called in messages; `name` is a tag or a digest."""
    return f"manifest {repository}{'@' if ':' in name else ':'}{name}"


class ManifestPusher:
    """The manifests that are put into one repository."""

    def __init__(
        self,
        site: Site,
        client: HostClient,
        profile: Profile,
        limits: LearnedLimits,
        scopes: tuple[str, ...],
        permit: Permit | None,
    ) -> None:
        self._site = site
        self._client = client
        self._profile = profile
        self._limits = limits
        self._scopes = scopes
        self._permit = permit

    async def put(self, manifest: Descriptor, raw: bytes, tags: Sequence[str]) -> None:
        """See `Sink.put`. What seems to have changed on its way is put once more."""
        left = list(dict.fromkeys(tags))
        while self._goes_together(manifest, left):
            confirmed = await self._put_together(manifest, raw, left[:_TAGS_PER_REQUEST])
            if not confirmed:
                break
            left = [tag for tag in left if tag not in confirmed]
        for name in left if tags else (manifest.digest,):
            await self._put(manifest, raw, name)

    def _goes_together(self, manifest: Descriptor, tags: Sequence[str]) -> bool:
        """Whether it is worth a request to put these tags with the digest."""
        if not tags or (len(tags) == 1 and algorithm_of(manifest.digest) == "sha256"):
            return False
        knows = self._limits.takes_tags_with_digest
        if knows is None and self._limits.tags_in_question and algorithm_of(manifest.digest) == "sha256":
            return False  # one request too many is enough
        return bool(self._profile.tags_with_digest if knows is None else knows)

    async def _put_together(self, manifest: Descriptor, raw: bytes, tags: Sequence[str]) -> set[str]:
        """The tags that the registry confirms; none where it does not take them so."""
        query = "&".join(f"tag={tag}" for tag in tags)  # no tag has a character that needs quoting
        self._limits.tags_in_question = True
        try:
            response = await self._put(manifest, raw, manifest.digest, f"?{query}")
        except (Rejected, NotFound) as error:
            if error.code in _MANIFEST_IS_WRONG:
                raise
            if isinstance(error, Rejected) and self._limits.takes_tags_with_digest is None:
                self._limits.took_tags_with_digest(False)
            return set()  # what it has against one of the tags is told of that tag
        finally:
            self._limits.tags_in_question = False
        confirmed = confirmed_tags(response) & set(tags)
        self._note_placed(manifest, confirmed)
        self._limits.took_tags_with_digest(bool(confirmed))
        return confirmed

    async def _put(self, manifest: Descriptor, raw: bytes, name: str, query: str = "") -> Response:
        try:
            return await self._put_once(manifest, raw, name, query)
        except (DigestMismatch, Rejected) as error:
            if isinstance(error, Rejected) and error.code != "MANIFEST_INVALID":
                explain_manifest(error, len(raw))
                raise
            return await self._put_once(manifest, raw, name, query)

    async def _put_once(self, manifest: Descriptor, raw: bytes, name: str, query: str) -> Response:
        repository = self._site.repository
        request = Request(
            "PUT",
            URL(f"/v2/{repository}/manifests/{name}{query}", encoded=True),
            describe_manifest(repository, name),
            scopes=self._scopes,
            headers={"Content-Type": manifest.media_type},
            body=raw,
            transient_codes=_TORN,
            ok=(200, 201, 202, 204),
            permit=self._permit,
        )
        response = await self._client.send(request)
        self._client.meter.bytes_written += len(raw)
        what = f"{request.description} at {self._site.registry}"
        check_content(response.headers, raw, what, known=manifest.digest)
        self._note_placed(manifest, {name, manifest.digest})
        noted = _subject_is_confirmed(response, raw)
        self._client.capabilities.referrers.put(repository, manifest.digest, noted=noted)
        return response

    def _note_placed(self, manifest: Descriptor, names: Iterable[str]) -> None:
        """What caches on the way may not know yet."""
        for name in names:
            self._client.capabilities.caches.pushed.put(self._site.repository, name, manifest.digest)


def confirmed_tags(response: Response) -> set[str]:
    """The tags that an answer to a PUT by digest says were set: a list, maybe over several headers."""
    listed = ",".join(response.headers.getall("OCI-Tag", ()))
    return {tag.strip() for tag in listed.split(",")}


def _subject_is_confirmed(response: Response, raw: bytes) -> bool:
    """Whether the registry says that it took note of the subject that a manifest names."""
    subject = subject_of(raw)
    return subject is not None and subject in digests_in(response.headers, "OCI-Subject")
