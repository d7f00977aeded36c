"""Mirrors before a registry: which is asked when, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from blobflow.content import Site, Verifier
from blobflow.errors import DigestMismatch, InvalidReference, NetworkError, NotFound
from blobflow.events import Event, Warned
from blobflow.oci import digest_of
from blobflow.transports.registry import Credentials, HostAccess, Registries
from blobflow.transports.registry.mirrors import UNAVAILABLE_SECONDS, parse_mirror
from tests.fakes.registry import Clock, ScriptedServer, answers, blob_of, collect, scripted_server

CONTENT = b"content" * 1000
BLOB = blob_of(CONTENT)
TYPE = "application/vnd.oci.image.manifest.v1+json"
NONE = answers(lambda: web.Response(status=404))


def tagged(raw: bytes) -> web.Response:
    return web.Response(body=raw, content_type=TYPE, headers={"Docker-Content-Digest": digest_of(raw)})


class Mirrored:
    """Registries whose `own` host has mirrors, on a fake clock."""

    def __init__(self, own: str, *mirrors: str, login: Credentials | None = None) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        self.own = own
        self.registries = Registries(
            lambda host: HostAccess(
                scheme="http",
                mirrors=mirrors if host == own else (),
                credentials=login if host == own else None,
            ),
            observer=self.events.append,
            sleep=self.clock.sleep,
            clock=self.clock,
            jitter=lambda: 0.5,
        )
        self.source = self.registries.source(Site(own, "team/app"))

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]

    async def blob(self) -> bytes:
        async with self.source.open(BLOB) as chunks:
            return await collect(chunks)


@asynccontextmanager
async def mirrored(
    own: ScriptedServer, *mirrors: str, login: Credentials | None = None
) -> AsyncIterator[Mirrored]:
    made = Mirrored(own.host, *mirrors, login=login)
    try:
        yield made
    finally:
        await made.registries.close()


async def test_a_mirror_answers_for_the_registry_and_a_tag_means_what_it_says_there() -> None:
    async with (
        scripted_server(answers(lambda: tagged(b"there"))) as near,
        scripted_server(NONE) as own,
        mirrored(own, near.host) as w,
    ):
        assert (await w.source.resolve("1")).digest == digest_of(b"there")
    assert near.asked() == ["HEAD /v2/team/app/manifests/1"]
    assert own.seen == []


async def test_mirrors_are_asked_in_order_and_the_registry_for_what_all_of_them_lack() -> None:
    served = answers(lambda: web.Response(body=CONTENT))
    async with (
        scripted_server(NONE) as first,
        scripted_server(NONE) as second,
        scripted_server(served) as own,
        mirrored(own, first.host, f"{second.host}/cache/hub") as w,
    ):
        assert await w.blob() == CONTENT
        assert w.warnings == []
        await w.blob()
    path = f"/blobs/{BLOB.digest}"
    assert first.asked("GET") == [f"/v2/team/app{path}"] * 2  # what is lacking costs a request, each time
    assert second.asked("GET") == [f"/v2/cache/hub/team/app{path}"] * 2
    assert own.asked("GET") == [f"/v2/team/app{path}"] * 2


async def test_the_registry_s_own_error_is_the_one_that_counts() -> None:
    async with (
        scripted_server(answers(lambda: web.Response(status=403))) as near,
        scripted_server(NONE) as own,
        mirrored(own, near.host) as w,
    ):
        with pytest.raises(NotFound, match=own.host):
            await w.source.resolve("1")
        assert w.warnings == [
            f"the mirror {near.host} is passed over:"
            f" {near.host} denies manifest team/app:1; check what the login may do"
        ]
        with pytest.raises(NotFound):
            await w.source.resolve("2")
        assert len(w.warnings) == 1


@pytest.mark.parametrize("status", [0, 429, 503])
async def test_a_mirror_that_is_down_or_busy_is_left_alone_for_a_while(status: int) -> None:
    busy = answers(lambda: web.Response(status=status, headers={"Retry-After": "3600"}))
    async with (
        scripted_server(busy) as near,
        scripted_server(answers(lambda: web.Response(body=CONTENT))) as own,
    ):
        host = near.host if status else "127.0.0.1:1"
        async with mirrored(own, host) as w:
            assert await w.blob() == CONTENT
            asked, slept = len(near.seen), len(w.clock.slept)
            assert (asked, slept) == {0: (0, 1), 429: (1, 0), 503: (1, 0)}[status]
            assert await w.blob() == CONTENT
            assert (len(near.seen), len(w.clock.slept)) == (asked, slept)
            w.clock.now += UNAVAILABLE_SECONDS
            assert await w.blob() == CONTENT
            assert len(near.seen) > asked or len(w.clock.slept) > slept
            assert len(w.warnings) == 1


async def test_a_manifest_with_wrong_bytes_is_read_from_the_next() -> None:
    raw = b'{"schemaVersion": 2}'
    async with (
        scripted_server(answers(lambda: tagged(b"forged"))) as near,
        scripted_server(answers(lambda: tagged(raw))) as own,
        mirrored(own, near.host) as w,
    ):
        assert await w.source.read(blob_of(raw)) == raw
    assert near.seen and len(own.seen) == 1


async def test_a_blob_with_wrong_bytes_is_read_from_the_next_when_it_is_tried_again() -> None:
    forged = answers(lambda: web.Response(body=CONTENT[::-1]))
    async with (
        scripted_server(forged) as near,
        scripted_server(answers(lambda: web.Response(body=CONTENT))) as own,
        mirrored(own, near.host) as w,
    ):
        verifier = Verifier(BLOB)
        with pytest.raises(DigestMismatch):
            async with w.source.open(BLOB) as chunks:
                async for chunk in chunks:
                    verifier.feed(chunk)
        assert await w.blob() == CONTENT
    assert len(near.seen) == len(own.seen) == 1


async def test_a_blob_that_breaks_off_is_gone_on_with_at_the_next() -> None:
    async def cut(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(BLOB.size)})
        await response.prepare(request)
        await response.write(CONTENT[:100])
        assert request.transport is not None
        request.transport.close()
        return response

    rest = {"Content-Range": f"bytes 100-{BLOB.size - 1}/{BLOB.size}"}
    whole = answers(lambda: web.Response(status=206, body=CONTENT[100:], headers=rest))
    async with scripted_server(cut) as near, scripted_server(whole) as own, mirrored(own, near.host) as w:
        got = b""
        with pytest.raises(NetworkError):
            async with w.source.open(BLOB) as chunks:
                async for chunk in chunks:
                    got += chunk
        async with w.source.open(BLOB, len(got)) as chunks:
            assert got + await collect(chunks) == CONTENT
        assert got == CONTENT[:100]
        assert len(near.seen) == len(own.seen) == 1


async def test_a_mirror_is_not_to_blame_for_what_its_reader_can_t_do() -> None:
    async with (
        scripted_server(answers(lambda: web.Response(body=CONTENT))) as near,
        scripted_server(NONE) as own,
        mirrored(own, near.host) as w,
    ):
        with pytest.raises(NetworkError):
            async with w.source.open(BLOB):
                raise NetworkError("the target went away")
        assert await w.blob() == CONTENT
    assert own.seen == []


async def test_a_mirror_does_not_get_the_registry_s_login() -> None:
    wants = answers(lambda: web.Response(status=401, headers={"WWW-Authenticate": "Basic"}))
    async with (
        scripted_server(wants) as near,
        scripted_server(answers(lambda: web.Response(body=CONTENT))) as own,
        mirrored(own, near.host, login=Credentials("joe", "secret")) as w,
    ):
        assert await w.blob() == CONTENT
        assert f"run `blobflow login {near.host}`" in w.warnings[0]
    assert all("Authorization" not in seen.headers for seen in near.seen)


async def test_what_is_written_in_a_run_is_read_where_it_is_written() -> None:
    async with (
        scripted_server(NONE) as near,
        scripted_server(answers(lambda: tagged(b"new"))) as own,
        mirrored(own, near.host) as w,
    ):
        site = Site(own.host, "team/app")
        w.registries.sink(site)
        await w.registries.source(site).resolve("1")
        await w.registries.source(Site(own.host, "other")).resolve("1")
    assert near.asked() == ["HEAD /v2/other/manifests/1"]


async def test_a_registry_that_names_itself_as_its_mirror_is_asked_once() -> None:
    async with scripted_server(NONE) as own, mirrored(own, own.host) as w:
        with pytest.raises(NotFound):
            await w.source.resolve("1")
    assert own.asked() == ["HEAD /v2/team/app/manifests/1", "GET /v2/team/app/manifests/1"]


def test_a_mirror_is_a_host_with_or_without_a_prefix() -> None:
    assert parse_mirror("M.example:5000") == Site("m.example:5000", "")
    assert parse_mirror("m.example/cache/hub") == Site("m.example", "cache/hub")
    for text in ("", "https://m.example", "m.example/", "m.example/UPPER"):
        with pytest.raises(InvalidReference):
            parse_mirror(text)


@pytest.mark.parametrize(
    ("text", "write"),
    [
        ("https://m.example", "write 'm.example', without https://"),
        ("https://m.example:5000/hub/", "write 'm.example:5000/hub', without https://"),
        (
            "http://m.example:5000/hub",
            "write 'm.example:5000/hub', without http://, and http = true below "
            '[registry."m.example:5000"]',
        ),
    ],
)
def test_a_mirror_that_is_a_url_is_told_what_to_write(text: str, write: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_mirror(text)
    assert str(caught.value) == f"{text!r} is a URL; {write}"


@pytest.mark.parametrize("text", ["x" * 5000 + "://m.example", "http://m.example/" + "x" * 5000])
def test_little_is_repeated_of_a_long_text(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_mirror(text)
    assert len(str(caught.value)) < 1000


def test_a_login_in_a_mirror_s_url_is_not_shown() -> None:
    with pytest.raises(InvalidReference, match="a login in front of a host") as caught:
        parse_mirror("https://joe:hush@m.example")
    assert "hush" not in str(caught.value)
