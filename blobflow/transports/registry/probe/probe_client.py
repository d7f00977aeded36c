"""The probe client: pushes generated blobs and manifests to a repository, to see how a registry answers.

It remembers what it pushed, and deletes that at the end as far as the registry allows: also what a registry
may have taken although its answer never came, since it was lost or the probe was cancelled.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress

import msgspec
from yarl import URL

from blobflow.content import Chunk, Sleep
from blobflow.errors import ConnectionLost, NetworkError, ProtocolViolation, RegistryError, Unavailable
from blobflow.oci import Descriptor, Digest, digest_of
from blobflow.transports.registry.api.manifest_push import confirmed_tags
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request, Response
from blobflow.transports.registry.http.upload_body import UploadBody
from blobflow.transports.registry.uploads.location import LocationReader, resolve_location
from blobflow.transports.registry.uploads.requests import mount_scopes, push_scopes

# Seconds that a registry gets to notice that a connection broke, after it got the bytes before that.
BREAK_SECONDS = 0.25
# A registry that has all bytes of something has taken it by then.
COMMITTED_SECONDS = 1.0
_COMMITTED = (200, 201, 204)


class ProbeClient:
    """One repository at one host. Every question returns None, or False, where the registry, or a proxy
    before it, says no; what fails for a while is tried again, and raised if it lasts.

    `via`: the Via header of the last response that opened an upload. `locations`: how its host's Locations
    are read.
    """

    def __init__(self, client: HostClient, repository: str, sleep: Sleep, locations: LocationReader) -> None:
        self.repository = repository
        self._client = client
        self._sleep = sleep
        self._root = f"/v2/{repository}"
        self._made: dict[str, bool] = {}  # places of what was sent, and whether it is known to be there
        self._unanswered: set[str] = set()
        self._sessions: set[URL] = set()
        self._scopes = push_scopes(repository)
        self.via: str | None = None
        self.locations = locations

    async def send(
        self,
        method: str,
        place: str | URL,
        *,
        ok: Sequence[int] = (200,),
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        scopes: tuple[str, ...] = (),
        makes: str = "",
    ) -> Response | None:
        """One request; `place` is below the repository, or an absolute Location. `makes`: the place of what
        is there if it succeeds."""
        url = place if isinstance(place, URL) else URL(self._root + place, encoded=True)
        request = Request(
            method,
            url,
            f"a probe of {self.repository}",
            scopes=scopes or self._scopes,
            headers=headers or {},
            body=body,
            ok=tuple(ok),
            fail_fast=bool(body),
        )
        if makes:
            self._made.setdefault(makes, False)
            self._unanswered.add(makes)
        try:
            response = await self._ask(request)
        except RegistryError as error:
            # A body that is too large for a proxy may end with the proxy's loss of its registry.
            lost = error.status in (502, 504)
            if not lost:
                self._unanswered.discard(makes)
            if error.retryable and not (body and lost):
                raise
            return None
        except NetworkError:
            if not body:
                raise
            return None  # the reset that follows a refusal may lose it while the body is still being sent
        self._unanswered.discard(makes)
        if makes and response.status != 202:  # which means a session, where a mount was asked for
            self._made[makes] = True
        return response

    async def _ask(self, request: Request) -> Response:
        """Ask, and with patience where a proxy wants fewer requests and says so like one whose registry is
        gone."""
        try:
            return await self._client.send(request)
        except Unavailable as error:
            if not request.fail_fast or error.status != 503:
                raise
        return await self._client.send(msgspec.structs.replace(request, fail_fast=False))

    async def open(self) -> URL:
        """An upload session's Location [end-4a]. Raises what a push would: nothing else can be tried then."""
        request = Request(
            "POST",
            URL(f"{self._root}/blobs/uploads/", encoded=True),
            f"upload to {self.repository}",
            scopes=self._scopes,
            body=b"",
            ok=(202,),
        )
        response = await self._client.send(request)
        self.via = response.headers.get("Via")
        location = self.location(response)
        self._sessions.add(location)
        return location

    async def patch(self, location: URL, content: bytes, start: int | None = None) -> URL | None:
        """The next bytes [end-5], as a chunk from `start`, or as a stream; the next Location."""
        headers = {"Content-Type": "application/octet-stream"}
        if start is not None:
            headers["Content-Range"] = f"{start}-{start + len(content) - 1}"
        response = await self.send("PATCH", location, ok=(200, 202, 204), body=content, headers=headers)
        if response is None:
            return None
        after = self.location(response) if "Location" in response.headers else location
        self._sessions.discard(location)
        self._sessions.add(after)
        return after

    async def commit(self, location: URL, digest: Digest, content: bytes = b"") -> bool:
        """End an upload [end-6], with the last bytes."""
        text = str(location)
        url = URL(f"{text}{'&' if '?' in text else '?'}digest={digest}", encoded=True)
        headers = {"Content-Type": "application/octet-stream"}
        place = f"/blobs/{digest}"
        if await self.send("PUT", url, ok=_COMMITTED, body=content, headers=headers, makes=place) is None:
            await self.cancel(location)
            return False
        self._sessions.discard(location)
        return True

    async def cancel(self, location: URL) -> None:
        """Cancel a session [end-14]; the registry purges those that it does not let clients delete."""
        self._sessions.discard(location)
        with suppress(RegistryError, NetworkError):
            await self.send("DELETE", location, ok=(200, 202, 204))

    async def push(self, content: bytes, *, single: bool) -> Descriptor | None:
        """A blob, in one PUT, or as one stream."""
        location: URL | None = await self.open()
        digest = digest_of(content)
        assert location is not None
        if not single:
            before = location
            location = await self.patch(location, content)
            if location is None:
                await self.cancel(before)
                return None
        arrived = await self.commit(location, digest, content if single else b"")
        return Descriptor("application/octet-stream", digest, len(content)) if arrived else None

    async def break_off(self, location: URL, content: bytes, after: int) -> None:
        """Begin to send a stream, and let the connection break when `after` bytes have left."""

        async def chunks() -> AsyncGenerator[Chunk, None]:
            yield content[:after]
            await self._sleep(BREAK_SECONDS)
            raise ConnectionLost("broken off", received=after, expected=len(content))

        body = UploadBody(chunks(), len(content), "a probe", self._client.meter)
        headers = {"Content-Type": "application/octet-stream"}
        request = Request("PATCH", location, "a probe", scopes=self._scopes, headers=headers, ok=(202,))
        try:
            await self._client.send_body(request, body)
        except (NetworkError, RegistryError):
            await self._sleep(BREAK_SECONDS)

    async def mount(self, digest: Digest, origin: str = "") -> bool:
        """Ask for a mount [end-11], from `origin` or without saying from where."""
        source = f"&from={origin}" if origin else ""
        response = await self.send(
            "POST",
            f"/blobs/uploads/?mount={digest}{source}",
            ok=(201, 202),
            body=b"",
            scopes=mount_scopes(self.repository, origin) if origin else (),
            makes=f"/blobs/{digest}",
        )
        if response is None:
            return False
        if response.status == 201:
            return True
        if "Location" in response.headers:
            await self.cancel(self.location(response))
        return False

    async def put(self, document: dict[str, object], media_type: str, tag: str = "") -> Descriptor | None:
        """A manifest [end-7a], under its digest or a tag."""
        put = await self._put(document, media_type, tag)
        return put and put[0]

    async def confirms_tags(self, document: dict[str, object], media_type: str, tags: Sequence[str]) -> bool:
        """Whether a manifest that is put under its digest gets tags with it [end-7b]."""
        put = await self._put(document, media_type, query="&".join(f"tag={tag}" for tag in tags))
        return put is not None and confirmed_tags(put[1]) >= set(tags)

    async def _put(
        self, document: dict[str, object], media_type: str, tag: str = "", query: str = ""
    ) -> tuple[Descriptor, Response] | None:
        raw = msgspec.json.encode({"schemaVersion": 2, "mediaType": media_type, **document})
        digest = digest_of(raw)
        response = await self.send(
            "PUT",
            f"/manifests/{tag or digest}{'?' if query else ''}{query}",
            ok=(200, 201, 202),
            body=raw,
            headers={"Content-Type": media_type},
            makes=f"/manifests/{digest}",
        )
        return None if response is None else (Descriptor(media_type, digest, len(raw)), response)

    async def clean_up(self) -> list[str]:
        """Delete all that was made, the last first [end-9] [end-10], and open sessions; what is left, as
        places at the host. What may come to be there by and by is deleted again a little later."""
        for location in tuple(self._sessions):
            await self.cancel(location)
        made, late = self._made, self._unanswered
        self._made, self._unanswered = {}, set()
        left = [place for place in reversed(made) if not await self._delete(place, known=made[place])]
        if late := late.difference(left):
            await self._sleep(COMMITTED_SECONDS)
            left += [place for place in late if not await self._delete(place, known=False)]
        return [self.repository + place for place in left]

    async def _delete(self, place: str, *, known: bool) -> bool:
        """Whether it is gone by now. `known`: it is known to have been there."""
        try:
            if await self.send("DELETE", place, ok=(200, 202, 204, 404)) is not None:
                return True
            return not known and await self.send("HEAD", place) is None
        except (RegistryError, NetworkError):
            return False

    def location(self, response: Response) -> URL:
        """Where an upload goes on. Raises ProtocolViolation."""
        text = response.headers.get("Location")
        if not text:
            raise ProtocolViolation(f"{self._client.host} opened an upload without saying where")
        found = resolve_location(self._client.home, response.url, text, f"upload to {self.repository}")
        return self.locations.choose(found)


def random_content(size: int) -> bytes:
    """Content that no registry has yet."""
    seed = secrets.token_bytes(32)
    return (seed * (size // len(seed) + 1))[:size]
