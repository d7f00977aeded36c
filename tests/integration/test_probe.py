"""`blobflow probe` against registries that are known to be something: it prints exactly that."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from blobflow.cli.commands.probe import profile_toml
from blobflow.client import Client
from blobflow.config_file import parse_config
from blobflow.errors import ConnectionLost, Denied, RegistryError
from blobflow.events import Event, Observer, Warned, ignore
from blobflow.oci import parse_digest
from blobflow.oci.sample_images import sample_set
from blobflow.settings import Settings
from blobflow.transports.registry.auth.credentials import Credentials
from blobflow.transports.registry.http.host_settings import HostAccess
from blobflow.transports.registry.probe import probe_client
from blobflow.transports.registry.probe.questions import ProbeResult, probe_host
from tests.fakes.registry import scripted_server as served
from tests.scenarios.registries import fill
from tools.registry.faulty import (
    Fault,
    Ignore,
    JournallingRegistry,
    LoseAnswer,
    MountReferenced,
    Refuse,
    SetHeader,
    Status,
    journalling,
)
from tools.registry.known import KnownRegistry, known_registries

KIB = 1024
FAKES = known_registries(KIB)
PRINTED = {
    "distribution": """\
[registry."registry.test".profile]
name = "probed"
rungs = ["single", "stream", "chunked"]
single_bytes = 32768
bounded = false
chunk_bytes = 32768
least_chunk_bytes = 512
ranges = true
mounts = true
keeps_broken_sessions = false
# mounts without `from`: no
# takes indexes whose manifests are absent: no
# has the referrers API: no
# deletes by tag: no
""",
    "gar": """\
[registry."registry.test".profile]
name = "probed"
rungs = ["single", "stream"]
single_bytes = 32768
bounded = false
ranges = true
mounts = true
# mounts without `from`: yes
# takes indexes whose manifests are absent: yes
# has the referrers API: yes
# deletes by tag: yes
""",
    "ghcr": """\
[registry."registry.test".profile]
name = "probed"
rungs = ["single", "stream", "chunked"]
single_bytes = 32768
bounded = false
chunk_bytes = 4096
least_chunk_bytes = 512
ranges = true
mounts = true
keeps_broken_sessions = true
# mounts without `from`: no
# takes indexes whose manifests are absent: yes
# has the referrers API: no
# deletes by tag: yes
""",
    "acr": """\
[registry."registry.test".profile]
name = "probed"
rungs = ["single", "stream", "chunked"]
single_bytes = 16384
bounded = true
chunk_bytes = 32768
least_chunk_bytes = 512
ranges = true
mounts = true
keeps_broken_sessions = true
# mounts without `from`: no
# takes indexes whose manifests are absent: yes
# has the referrers API: yes
# deletes by tag: yes
""",
    "artifactory": """\
[registry."registry.test".profile]
name = "probed"
rungs = ["stream", "chunked"]
chunk_bytes = 32768
least_chunk_bytes = 512
ranges = true
mounts = true
keeps_broken_sessions = true
# mounts without `from`: no
# takes indexes whose manifests are absent: yes
# has the referrers API: yes
# deletes by tag: yes
""",
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the loop of one process a break is noticed sooner."""
    monkeypatch.setattr(probe_client, "BREAK_SECONDS", 0.02)


async def probe(host: str, repository: str, **how: int) -> ProbeResult:
    async with Client() as client:
        return await client.probe(host, repository, **how)


async def probed_at(host: str, observer: Observer = ignore) -> ProbeResult:
    """A probe whose pauses take no time."""
    access = HostAccess(scheme="http")
    return await probe_host(host, "scratch", access, largest=32 * KIB, observer=observer, sleep=at_rest)


async def at_rest(seconds: float) -> None:
    """A pause that takes no time."""
    await asyncio.sleep(0)


async def probed(folder: Path, fake: KnownRegistry) -> tuple[ProbeResult, JournallingRegistry]:
    async with journalling(folder, fake.faults, sparse=fake.sparse) as registry:
        found = await probe(registry.host, "blobflow-probe", largest=32 * KIB)
        return found, registry


@pytest.mark.parametrize("name", PRINTED)
async def test_a_probe_prints_what_the_registry_is(tmp_path: Path, name: str) -> None:
    found, _ = await probed(tmp_path, FAKES[name])
    assert profile_toml("registry.test", found) == PRINTED[name]


@pytest.mark.parametrize("name", FAKES)
async def test_what_is_printed_is_a_configuration_of_that_profile(tmp_path: Path, name: str) -> None:
    found, _ = await probed(tmp_path, FAKES[name])
    printed = profile_toml("registry.test", found)
    (host,) = parse_config(printed, "printed", tmp_path).items()
    assert host[0] == "registry.test"
    assert host[1].profile is not None
    assert profile_toml("registry.test", ProbeResult(host[1].profile, found.facts)) == printed


async def test_a_registry_without_ranges_mounts_and_long_sessions_is_told_to_be_one(tmp_path: Path) -> None:
    poor = (
        Fault("GET", "/blobs/sha256:", times=0, act=Ignore("Range")),
        Fault("POST", "mount=", times=0, act=Status(405)),
        Fault("GET", "/blobs/uploads/", times=0, act=Status(404)),
    )
    found, _ = await probed(tmp_path, KnownRegistry(poor))
    assert (found.profile.ranges, found.profile.mounts, found.profile.keeps_broken_sessions) == (False,) * 3


async def test_a_registry_that_mounts_only_what_a_manifest_names_is_told_to_be_one(tmp_path: Path) -> None:
    named = Fault("POST", "mount=", times=0, act=MountReferenced())
    found, _ = await probed(tmp_path, KnownRegistry((named,)))
    assert found.profile.mounts
    assert "\nmounts = true\nmounts_need_manifest = true\n" in profile_toml("registry.test", found)


async def test_chunks_are_probed_for_the_least_that_may_be_followed_by_another(tmp_path: Path) -> None:
    small = Fault("PATCH", "", times=0, act=SetHeader("Location", "/v2/gone/blobs/uploads/0"))
    found, _ = await probed(tmp_path, KnownRegistry((small,)))
    assert found.profile.rungs == ("single",)


async def test_a_probe_leaves_nothing_where_it_may_delete(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry:
        found = await probe(registry.host, "scratch/here", largest=32 * KIB)
        assert found.left == ()
        assert registry.store.repositories.names() == []
        assert {each.path.split("/")[3] for each in registry.journal} == {"here", "here-mounts"}


async def test_a_probe_moves_and_removes_no_tag_that_was_there(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry:
        images = sample_set(3, images=1)
        fill(registry.store, images)
        [(name, index)] = images.images.items()
        repository, repositories = name.partition(":")[0], registry.store.repositories
        tags = ("probe", "probe-a", "probe-b")
        for tag in tags:
            repositories.set_tag(repository, tag, parse_digest(index.digest))
        await probe(registry.host, repository, largest=32 * KIB)
        assert {repositories.resolve(repository, tag) for tag in tags} == {parse_digest(index.digest)}


async def test_what_a_registry_would_not_delete_is_told(tmp_path: Path) -> None:
    keeps = Fault("DELETE", "sha256:", times=0, act=Status(405))
    async with journalling(tmp_path, [keeps]) as registry:
        found = await probe(registry.host, "scratch", largest=32 * KIB)
        held = {
            f"{repository}/{'manifests' if kind else 'blobs'}/{digest}"
            for repository in registry.store.repositories.names()
            for digest, kind in registry.store.repositories.contents(repository)
        }
        assert set(found.left) == held


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "/blobs/uploads/"), ("PUT", "/manifests/"), ("POST", "mount=")]
)
async def test_what_a_registry_took_without_a_word_is_deleted_too(
    tmp_path: Path, method: str, path: str
) -> None:
    loses = Fault(method, path, times=0, act=LoseAnswer())
    async with journalling(tmp_path, [loses]) as registry:
        with suppress(ConnectionLost):  # who never answers a commit or a mount ends the probe
            await probed_at(registry.host)
        assert registry.journal.select(method, path)
        assert registry.store.repositories.names() == []


async def test_what_was_taken_without_a_word_and_stays_is_told(tmp_path: Path) -> None:
    faults = [
        Fault("PUT", "/blobs/uploads/", act=LoseAnswer()),
        Fault("PUT", "/blobs/uploads/", act=Refuse(413, over=16 * KIB), times=0),
        Fault("DELETE", "sha256:", times=0, act=Status(405)),
    ]
    async with journalling(tmp_path, faults) as registry:
        found = await probed_at(registry.host)
        held = {
            f"{repository}/{'manifests' if kind else 'blobs'}/{digest}"
            for repository in registry.store.repositories.names()
            for digest, kind in registry.store.repositories.contents(repository)
        }
        assert set(found.left) == held, "and not what was refused"


async def test_a_probe_that_is_cancelled_takes_out_what_is_still_being_committed() -> None:
    held, sessions = set[str](), set[str]()
    reached, goes_on, committed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def registry(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        match request.method:
            case "POST":
                sessions.add(f"{request.path}{len(sessions)}")
                return web.Response(status=202, headers={"Location": max(sessions)})
            case "PUT":
                reached.set()
                await goes_on.wait()
                held.add(request.query["digest"])
                committed.set()
                return web.Response(status=201)
            case _:
                sessions.discard(request.path)
                name = request.path.rpartition("/")[2]
                there = name in held
                held.discard(name)
                return web.Response(status=202 if there else 404)

    async def sleep(seconds: float) -> None:
        goes_on.set()
        await committed.wait()

    async with served(registry) as server:
        task = asyncio.create_task(probe_host(server.host, "scratch", HostAccess(scheme="http"), sleep=sleep))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (committed.is_set(), held, sessions) == (True, set(), set())


async def test_a_probe_that_fails_says_what_it_could_not_delete(tmp_path: Path) -> None:
    told: list[Event] = []
    faults = [
        Fault("DELETE", "sha256:", times=0, act=Status(405)),
        Fault("PUT", "/manifests/", times=0, act=Status(429, headers={"Retry-After": "999"})),
    ]
    async with journalling(tmp_path, faults) as registry:
        with pytest.raises(RegistryError, match="wants fewer requests"):
            await probed_at(registry.host, observer=told.append)
        [warned] = [event.message for event in told if isinstance(event, Warned)]
        names = registry.store.repositories.names()
        held = [digest for name in names for digest, _ in registry.store.repositories.contents(name)]
        assert held and all(digest in warned for digest in held)


async def test_where_nothing_may_be_pushed_that_is_the_answer(tmp_path: Path) -> None:
    async with journalling(tmp_path, [Fault("POST", "", times=0, act=Status(403))]) as registry:
        with pytest.raises(Denied, match="denies upload to scratch; check what the login may do"):
            await probe(registry.host, "scratch")


async def test_a_registry_that_takes_no_upload_in_any_form_is_not_the_end_of_a_probe(tmp_path: Path) -> None:
    nothing = Fault("*", "/uploads/.", times=0, act=Refuse(400))
    found, _ = await probed(tmp_path, KnownRegistry((nothing,)))
    assert found.profile.rungs == ("single", "stream", "chunked"), "nothing is known, so all is left to try"
    assert (found.profile.ranges, found.profile.mounts) == (True, True)


async def test_what_fails_for_a_while_is_no_answer(tmp_path: Path) -> None:
    async with journalling(
        tmp_path, [Fault("PUT", "", times=0, act=Status(429, headers={"Retry-After": "999"}))]
    ) as r:
        with pytest.raises(RegistryError, match="wants fewer requests"):
            await probe(r.host, "scratch", largest=32 * KIB)


async def test_uploads_that_are_really_taken_elsewhere_are_tried_there() -> None:
    """In the form of a session, which is more often a proxy's doing: then it is here."""

    async def there(request: web.BaseRequest) -> web.StreamResponse:
        assert "Authorization" not in request.headers
        await request.read()
        return web.Response(status=201 if request.method == "PUT" else 202)

    async with served(there) as elsewhere:

        async def here(request: web.BaseRequest) -> web.StreamResponse:
            await request.read()
            if request.method != "POST":
                return web.Response(status=404)
            return web.Response(status=202, headers={"Location": f"http://{elsewhere.host}{request.path}1"})

        async with served(here) as registry:
            access = HostAccess(scheme="http", credentials=Credentials("ann", "secret"))
            found = await probe_host(registry.host, "scratch", access, largest=8 * KIB)
    assert "rungs" not in found.unproved
    assert found.profile.rungs[:2] == ("single", "stream")


async def test_what_a_client_s_probe_moves_is_in_its_meter(tmp_path: Path) -> None:
    async with journalling(tmp_path) as registry, Client(Settings()) as client:
        await client.probe(registry.host, "scratch", largest=8 * KIB)
        assert client.meter.requests == len(registry.journal.select())
