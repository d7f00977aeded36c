"""Finding, removing and clearing, against registries whose answers are written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest
from aiohttp import web

from blobflow.client import Client
from blobflow.content import Deletes, Site
from blobflow.engine.results.report import TagRecord
from blobflow.errors import BlobflowError, Denied, NotFound, Rejected, RunIncomplete
from blobflow.oci import Digest, Reference, digest_of, media
from blobflow.oci.tag_selection.rules import ALL_TAGS, TagRules
from blobflow.operations.tags.extra import PruneLimit
from blobflow.operations.tags.names import list_repositories
from blobflow.operations.tags.prune import WantedTag, prune
from blobflow.operations.tags.remove import Removed, remove
from blobflow.operations.tags.search import ChosenTags, TagSearch
from blobflow.operations.tags.select import select_tags
from tests.fakes.registry import Handler, ScriptedServer, scripted_server, world

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ALL = PruneLimit(100, percent=True)


class Shelf:
    """A registry of manifests in memory. `by_tag` and `by_digest`: how it answers a DELETE of these."""

    def __init__(self, by_tag: int = 202, by_digest: int = 202) -> None:
        self.tags: dict[str, dict[str, Digest]] = {}
        self.content: dict[str, tuple[str, bytes]] = {}
        self.by_tag = by_tag
        self.by_digest = by_digest

    def image(self, repository: str, *tags: str, text: str = "", created: str = "", note: str = "") -> Digest:
        config = json.dumps({"created": created, "comment": text, "os": "linux", "architecture": "amd64"})
        notes = {"org.opencontainers.image.created": note} if note else {"note": text}
        document = {"config": self._blob(config), "layers": [], "annotations": notes}
        return self._put(repository, tags, IMAGE, document)

    def index(self, repository: str, *tags: str, children: Sequence[Digest]) -> Digest:
        listed = [
            {
                "mediaType": self.content[child][0],
                "digest": child,
                "size": len(self.content[child][1]),
                "platform": {"os": "linux", "architecture": "amd64"},
            }
            for child in children
        ]
        return self._put(repository, tags, INDEX, {"manifests": listed})

    def _blob(self, text: str) -> dict[str, object]:
        digest = digest_of(text.encode())
        self.content[digest] = "application/octet-stream", text.encode()
        return {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(text)}

    def _put(self, repository: str, tags: Sequence[str], kind: str, document: Mapping[str, object]) -> Digest:
        raw = json.dumps({"schemaVersion": 2, "mediaType": kind, **document}).encode()
        digest = digest_of(raw)
        self.content[digest] = kind, raw
        self.tags.setdefault(repository, {}).update(dict.fromkeys(tags, digest))
        return digest

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        repository, _, rest = request.path.removeprefix("/v2/").partition("/")
        tags, name = self.tags.get(repository, {}), rest.rpartition("/")[2]
        if repository == "_catalog":
            return web.json_response({"repositories": list(self.tags)})
        if rest == "tags/list":
            if repository not in self.tags:
                return web.json_response({"errors": [{"code": "NAME_UNKNOWN"}]}, status=404)
            return web.json_response({"tags": list(tags)})
        digest = tags.get(name, name)
        if digest not in self.content:
            return web.Response(status=404)
        if request.method == "DELETE":
            return web.Response(status=self._delete(tags, name))
        kind, raw = self.content[digest]
        return web.Response(body=raw, headers={"Content-Type": kind, "Docker-Content-Digest": digest})

    def _delete(self, tags: dict[str, Digest], name: str) -> int:
        status = self.by_digest if ":" in name else self.by_tag
        if status == 202 and ":" in name:
            del self.content[name]
        for tag in [tag for tag, digest in tags.items() if status == 202 and name in (tag, digest)]:
            del tags[tag]
        return status


def answering(status: int, code: str = "") -> Handler:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"errors": [{"code": code}]}, status=status)

    return answer


# What a repository can do


@pytest.mark.parametrize(
    ("status", "code", "gone"),
    [
        (202, "", True),
        (200, "", True),
        (404, "MANIFEST_UNKNOWN", True),
        (400, "DIGEST_INVALID", False),
        (405, "UNSUPPORTED", False),
    ],
)
async def test_a_tag_goes_or_the_registry_cant_do_that(status: int, code: str, gone: bool) -> None:
    async with scripted_server(answering(status, code)) as server, world() as w:
        place: Deletes = w.registries.repository(Site(server.host, "app"))
        assert await place.untag("1") is gone
        assert server.asked() == ["DELETE /v2/app/manifests/1"]


def lacking_the_endpoint(*, holds: bool) -> Handler:
    """A registry that has no DELETE at all, and says so as of any unknown address."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        is_there = holds and request.method in ("HEAD", "GET")
        return web.Response(status=200 if is_there else 404, text="404 page not found")

    return answer


@pytest.mark.parametrize("holds", [True, False])
async def test_a_404_that_names_nothing_unknown_is_looked_into(holds: bool) -> None:
    async with scripted_server(lacking_the_endpoint(holds=holds)) as server, world() as w:
        place: Deletes = w.registries.repository(Site(server.host, "app"))
        assert await place.untag("1") is not holds
        assert [each.partition("?")[0] for each in server.asked()] == [
            "DELETE /v2/app/manifests/1",
            "HEAD /v2/app/manifests/1",
        ]


async def test_a_manifest_that_stays_after_a_404_is_told() -> None:
    async with scripted_server(lacking_the_endpoint(holds=True)) as server, world() as w:
        with pytest.raises(Rejected, match="with 404, and still has it; it has to be switched on there"):
            await w.sink(server.host).delete(digest_of(b"x"))


@pytest.mark.parametrize(
    ("status", "error", "sentence"),
    [
        (405, Rejected, "it has to be switched on there"),
        (400, Rejected, "refused removal of manifest app@sha256:"),
        (403, Denied, "denies removal of manifest app@sha256:"),
    ],
)
async def test_a_manifest_that_may_not_go_is_a_sentence(
    status: int, error: type[BlobflowError], sentence: str
) -> None:
    async with scripted_server(answering(status)) as server, world() as w:
        with pytest.raises(error, match=sentence):
            await w.sink(server.host).delete(digest_of(b"x"))


async def test_a_registry_without_a_catalog_is_told_what_to_do() -> None:
    async with scripted_server(answering(401, "UNAUTHORIZED")) as server:
        with pytest.raises(BlobflowError, match="not every registry lists its repositories, so name them"):
            async with Client() as client:
                await list_repositories(client, server.host)


# Finding


async def found(
    server: ScriptedServer, rules: TagRules, repository: str = "app", repositories: TagRules = ALL_TAGS
) -> tuple[ChosenTags, ...]:
    search = TagSearch(server.host, repository, rules, repositories)
    async with Client() as client:
        return (await select_tags(client, [search]))[search]


async def test_names_and_versions_cost_one_request() -> None:
    shelf = Shelf()
    shelf.image("app", "1.0.0", "1.1.0", "x")
    async with scripted_server(shelf) as server:
        assert await found(server, TagRules(semver=("1",), newest=1)) == (ChosenTags("app", ("1.1.0",)),)
        assert server.asked() == ["GET /v2/app/tags/list?n=1000"]


async def test_dates_cost_two_requests_a_tag_one_less_if_noted_and_one_more_for_an_index() -> None:
    shelf = Shelf()
    shelf.image("app", "old", text="a", created="2020-01-01T00:00:00Z")
    shelf.image("app", "noted", text="b", note="2024-01-01T00:00:00Z")
    child = shelf.image("app", text="c", created="2023-01-01T00:00:00.5Z")
    shelf.index("app", "index", children=[child])
    shelf.image("app", "undated", text="d", created="0001-01-01T00:00:00Z")
    shelf.tags["app"]["vanished"] = digest_of(b"vanished")
    async with scripted_server(shelf) as server:
        rules = TagRules(newest=2, by="created")
        assert await found(server, rules) == (ChosenTags("app", ("noted", "index"), dated=5),)
        asked = [target for target in server.asked("GET") if "/tags/" not in target]
        assert len(asked) == (2 + 1 + 3 + 2) + 1, "the vanished one answers that it is gone"
        assert server.asked("HEAD") == []


async def test_media_types_cost_one_request_a_tag_and_what_they_leave_out_is_no_failure() -> None:
    shelf = Shelf()
    child = shelf.image("app", "image")
    shelf.index("app", "index", children=[child])
    shelf.image("app", "other")
    shelf.tags["app"]["vanished"] = digest_of(b"vanished")
    async with scripted_server(shelf) as server:
        rules = TagRules(exclude=("other",), types=(media.OCI_INDEX,))
        assert await found(server, rules) == (ChosenTags("app", ("index",), others=2),)
        assert len(server.asked("HEAD")) == 3
        alone = TagRules(include=("image",), types=(media.OCI_INDEX,))
        assert await found(server, alone) == (ChosenTags("app", others=1),)


async def test_a_sparse_index_has_the_date_of_the_first_image_that_is_there() -> None:
    shelf = Shelf()
    lost, child = shelf.image("app", text="a"), shelf.image("app", text="b", created="2023-01-01T00:00:00Z")
    shelf.index("app", "sparse", children=[lost, child])
    shelf.index("app", "empty", children=[lost])
    shelf.image("app", "old", text="c", created="2020-01-01T00:00:00Z")
    del shelf.content[lost]
    async with scripted_server(shelf) as server:
        assert await found(server, TagRules(newest=1, by="created")) == (
            ChosenTags("app", ("sparse",), dated=3),
        )


async def test_dates_are_not_asked_for_if_all_are_wanted_anyway() -> None:
    shelf = Shelf()
    shelf.image("app", "1", "2", digest_of(b"x").replace(":", "-") + ".sig")
    async with scripted_server(shelf) as server:
        assert await found(server, TagRules(newest=2, by="created")) == (ChosenTags("app", ("1", "2")),)
        assert len(server.seen) == 1


async def test_what_is_no_image_has_no_date_and_fails_nothing() -> None:
    shelf = Shelf()
    shelf.image("app", "1", created="2020-01-01T00:00:00Z")
    shelf.content[digest_of(b"odd")] = "application/vnd.example.odd", b"odd"
    shelf.tags["app"]["odd"] = digest_of(b"odd")
    async with scripted_server(shelf) as server:
        (chosen,) = await found(server, TagRules(newest=1, by="created"))
        assert chosen.tags == ("1",)


async def test_a_repository_that_cant_be_asked_is_an_error_of_its_own() -> None:
    shelf = Shelf()
    shelf.image("app", "1")
    async with scripted_server(shelf) as server:
        here, there = TagSearch(server.host, "app"), TagSearch(server.host, "nobody")
        async with Client() as client:
            result = await select_tags(client, [here, there, here])
    assert result[here] == (ChosenTags("app", ("1",)),)
    (lost,) = result[there]
    assert isinstance(lost.error, NotFound)
    assert str(lost.error).startswith("source: ")


async def test_rules_that_choose_nothing_of_a_named_repository_are_an_error() -> None:
    shelf = Shelf()
    shelf.image("app", "1", "2")
    async with scripted_server(shelf) as server:
        (lost,) = await found(server, TagRules(include=("x",)))
    assert lost.tags == ()
    assert "app has 2 tags, of which the rules choose none" in str(lost.error)


async def test_of_a_catalog_those_are_taken_that_are_wanted_and_have_something() -> None:
    shelf = Shelf()
    for name in ("app", "old", "web"):
        shelf.image(name, "1")
    shelf.image("empty", "x")
    shelf.tags["blank"] = {}
    async with scripted_server(shelf) as server:
        everything = await found(
            server, TagRules(include=("1",)), "", repositories=TagRules(exclude=("old",))
        )
    assert everything == (ChosenTags("app", ("1",)), ChosenTags("web", ("1",)))


# Removing


async def removed(reference: Reference, **how: bool) -> Removed:
    async with Client() as client:
        return await remove(client, reference, **how)


async def test_a_tag_and_a_manifest_are_looked_at_before_they_go() -> None:
    shelf = Shelf(by_tag=400)
    image = shelf.image("app", "1", "2")
    async with scripted_server(shelf) as server:
        one = Reference(server.host, "app", "1")
        with pytest.raises(Rejected, match="removes no tag by itself; --digest removes"):
            await removed(one)
        with pytest.raises(Rejected, match="would go 2, which name it too"):
            await removed(one, by_digest=True)
        assert await removed(one, by_digest=True, all_tags=True, dry_run=True) == Removed(("1", "2"), image)
        assert shelf.tags["app"] == {"1": image, "2": image}
        assert await removed(one, by_digest=True, all_tags=True) == Removed(("1", "2"), image)
    assert shelf.tags["app"] == {}


async def test_an_index_in_an_index_keeps_what_it_lists() -> None:
    shelf = Shelf()
    image = shelf.image("app", text="deep")
    inner = shelf.index("app", children=[image])
    shelf.index("app", "outer", children=[inner])
    async with scripted_server(shelf) as server:
        with pytest.raises(Rejected, match="the index outer lists it; remove that first"):
            await removed(Reference(server.host, "app", "", image))


# Clearing


async def cleared(server: ScriptedServer, *keep: WantedTag, limit: PruneLimit = ALL) -> list[TagRecord]:
    async with Client() as client:
        return [record async for record in prune(client, keep, limit)]


def statuses(records: Sequence[TagRecord]) -> dict[str, str]:
    return {record.target.rpartition(":")[2]: record.status for record in records}


async def test_a_registry_that_removes_no_tags_is_asked_so_once() -> None:
    shelf = Shelf(by_tag=405)
    kept = shelf.image("app", "1", "same")
    for tag in ("2", "3"):
        shelf.image("app", tag, text=tag)
    async with scripted_server(shelf) as server:
        records = await cleared(server, WantedTag(Reference(server.host, "app", "1"), kept))
        deletes = server.asked("DELETE")
    assert statuses(records) == {"2": "removed", "3": "removed", "same": "left"}
    assert sum(":" not in target for target in deletes) == 1
    assert set(shelf.tags["app"]) == {"1", "same"}


async def test_two_surplus_tags_of_one_manifest_cost_one_removal() -> None:
    shelf = Shelf(by_tag=400)
    kept = shelf.image("app", "1")
    shelf.image("app", "2", "3", text="both")
    async with scripted_server(shelf) as server:
        records = await cleared(server, WantedTag(Reference(server.host, "app", "1"), kept))
        assert sum(":" in target for target in server.asked("DELETE")) == 1
    assert statuses(records) == {"2": "removed", "3": "removed"}


async def test_a_registry_that_removes_nothing_at_all_fails_each_tag_and_says_why() -> None:
    shelf = Shelf(by_tag=405, by_digest=405)
    kept = shelf.image("app", "1")
    for tag in ("2", "3"):
        shelf.image("app", tag, text=tag)
    async with scripted_server(shelf) as server:
        records = await cleared(server, WantedTag(Reference(server.host, "app", "1"), kept))
    assert statuses(records) == {"2": "failed", "3": "failed"}
    assert all("target: " in record.why and "switched on" in record.why for record in records)


async def test_the_limit_is_over_all_repositories_and_holds_before_anything_goes() -> None:
    shelf = Shelf()
    keep = []
    async with scripted_server(shelf) as server:
        for name in ("a", "b"):
            keep.append(WantedTag(Reference(server.host, name, "1"), shelf.image(name, "1", text=name)))
        shelf.image("b", "2", "3", text="more")
        with pytest.raises(RunIncomplete, match=r"2 of 4 tags at the targets .* --max-delete 1 allows"):
            await cleared(server, *keep, limit=PruneLimit(1))
        assert server.asked("DELETE") == []
        assert len(await cleared(server, *keep, limit=PruneLimit(50, percent=True))) == 2


async def test_a_repository_that_does_not_exist_yet_has_nothing_too_many() -> None:
    async with scripted_server(Shelf()) as server:
        assert await cleared(server, WantedTag(Reference(server.host, "app", "1"), digest_of(b"x"))) == []


async def test_a_place_that_cant_be_looked_at_keeps_all_of_it() -> None:
    async with scripted_server(answering(403)) as server:
        with pytest.raises(Denied, match=r"^target: "):
            await cleared(server, WantedTag(Reference(server.host, "app", "1"), digest_of(b"x")))
        assert server.asked("DELETE") == []
