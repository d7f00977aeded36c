"""A registry that answers from bundles: names, several bundles, what is damaged, changed or not there."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession

from blobflow.errors import BlobflowError, NoSuchFile, UnsupportedContent, UsageError
from blobflow.oci import digest_of, media
from blobflow.server import AccessRules, Logins, parse_access
from blobflow.transports.archive.served import content as served_content
from blobflow.transports.archive.served.content import open_bundles
from blobflow.transports.archive.tar_reader import END, header_of
from blobflow.transports.layout.index_json import OCI_LAYOUT_FILE, path_of_blob
from tests.contract.server.bundles import bundle, serving, told, write_bundle
from tests.contract.server.client import (
    ABSENT,
    BLOB,
    DIGEST,
    SMALL,
    descriptor,
    image,
    index,
    refusal,
    status_of,
)
from tests.contract.server.test_access import HASH
from tests.fakes.archives import podman_entries, write

IMAGE = image(descriptor(BLOB))
OTHER = image(descriptor(BLOB), annotations={"it": "is another"})
NGINX = "docker.io/library/nginx:1.29"
HERE = "/v2/library/nginx"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return bundle(tmp_path / "bundle.tar", {NGINX: IMAGE}, BLOB, SMALL)


async def manifest(client: ClientSession, where: str) -> bytes:
    async with client.get(f"/v2/{where}") as answer:
        assert answer.status == 200, await answer.read()
        raw: bytes = await answer.read()
        assert answer.headers["Docker-Content-Digest"] == digest_of(raw)
        return raw


async def listed(client: ClientSession, where: str, key: str) -> Any:
    async with client.get(f"/v2/{where}") as answer:
        return (await answer.json())[key]


# Names


async def test_an_image_has_the_name_that_load_gives_it_and_its_whole_one(path: Path) -> None:
    async with serving(path) as client:
        for name in ("library/nginx", "docker.io/library/nginx", "docker.io/nginx"):
            assert await manifest(client, f"{name}/manifests/1.29") == IMAGE
            assert await listed(client, f"{name}/tags/list", "tags") == ["1.29"]
            async with client.get(f"/v2/{name}/blobs/{DIGEST}") as answer:
                assert await answer.read() == BLOB
        assert await listed(client, "_catalog", "repositories") == ["library/nginx"]
        for name in ("nginx", "quay.io/library/nginx", "docker.io", "docker.io/library/caddy"):
            assert await status_of(client, f"/v2/{name}/manifests/1.29") == 404


@pytest.mark.parametrize(
    ("namespace", "status"),
    [("docker.io", 200), ("registry-1.docker.io", 200), ("quay.io", 404), ("no host", 404), ("x\r\ny", 404)],
)
async def test_a_client_may_say_which_registry_it_means(path: Path, namespace: str, status: int) -> None:
    """As containerd does; what another registry has under that name is another image."""
    asked = {"ns": namespace}
    async with serving(path) as client, client.get(f"{HERE}/manifests/1.29", params=asked) as answer:
        assert answer.status == status
        assert answer.headers.get("OCI-Namespace") == (namespace if status == 200 else None)


async def test_where_two_registries_have_one_name_each_is_found_by_its_own(tmp_path: Path) -> None:
    names = {
        "quay.io/team/app:1": IMAGE,
        "ghcr.io/team/app:1": OTHER,
        "quay.io/team/app:2": IMAGE,
        "localhost:5000/team/app:3": OTHER,
    }
    heard: list[str] = []
    async with serving(bundle(tmp_path / "two.tar", names, BLOB, SMALL), observer=told(heard)) as client:
        assert [sentence.partition(":")[0] for sentence in heard] == ["team/app"]
        assert await status_of(client, "/v2/team/app/manifests/1") == 404
        assert await manifest(client, "team/app/manifests/2") == IMAGE
        for where, raw in (
            ("quay.io/team/app/manifests/1", IMAGE),
            ("ghcr.io/team/app/manifests/1", OTHER),
            ("team/app/manifests/1?ns=ghcr.io", OTHER),
            ("team/app/manifests/3?ns=localhost:5000", OTHER),
            (f"team/app/manifests/{digest_of(IMAGE)}", IMAGE),
            (f"team/app/manifests/{digest_of(OTHER)}", OTHER),
        ):
            assert await manifest(client, where) == raw
        assert await status_of(client, "/v2/ghcr.io/team/app/manifests/2") == 404
        assert await listed(client, "team/app/tags/list", "tags") == ["2", "3"]
        assert await listed(client, "ghcr.io/team/app/tags/list", "tags") == ["1"]
        assert await listed(client, "_catalog", "repositories") == ["team/app"]


async def test_of_a_name_that_two_bundles_have_the_later_one_counts(tmp_path: Path, path: Path) -> None:
    """As if they had been loaded one after the other: what the earlier one has is found by its digest."""
    later = bundle(tmp_path / "later.tar", {NGINX: OTHER})  # as --since leaves out what the first one has
    async with serving(path, later) as client:
        assert await manifest(client, "library/nginx/manifests/1.29") == OTHER
        assert await manifest(client, f"library/nginx/manifests/{digest_of(IMAGE)}") == IMAGE
        assert await status_of(client, f"{HERE}/blobs/{DIGEST}") == 200


async def test_what_a_bundle_leaves_out_is_told_and_is_not_there(tmp_path: Path) -> None:
    heard: list[str] = []
    alone = bundle(tmp_path / "alone.tar", {NGINX: IMAGE}, SMALL)
    async with serving(alone, observer=told(heard)) as client:
        assert [await status_of(client, f"{HERE}/blobs/{digest_of(each)}") for each in (BLOB, SMALL)] == [
            404,
            200,
        ]
    [sentence] = heard
    assert sentence.startswith("1 blobs of the images are not in") and "--since" in sentence


async def test_blobs_and_manifests_are_a_repositorys_own(tmp_path: Path) -> None:
    own = image(descriptor(b"own"))
    both = bundle(tmp_path / "both.tar", {NGINX: IMAGE, "quay.io/a/b:1": own}, BLOB, SMALL, b"own")
    async with serving(both) as client:
        assert await status_of(client, f"/v2/a/b/blobs/{DIGEST}") == 404
        assert await status_of(client, f"/v2/a/b/manifests/{digest_of(IMAGE)}") == 404
        assert await status_of(client, f"/v2/a/b/blobs/{digest_of(b'own')}") == 200


async def test_an_index_is_served_with_the_images_that_are_there(tmp_path: Path) -> None:
    whole = index(IMAGE, OTHER)
    sparse = bundle(
        tmp_path / "sparse.tar", {NGINX: whole}, IMAGE, BLOB, SMALL, kinds={whole: media.OCI_INDEX}
    )
    async with serving(sparse) as client:
        assert await status_of(client, f"{HERE}/manifests/{digest_of(IMAGE)}") == 200
        assert await status_of(client, f"{HERE}/manifests/{digest_of(OTHER)}") == 404
        async with client.get(f"{HERE}/manifests/1.29", headers={"Accept": media.OCI_INDEX}) as answer:
            assert (answer.content_type, await answer.read()) == (media.OCI_INDEX, whole)


async def test_what_refers_to_an_image_is_found_however_the_file_lists_it(tmp_path: Path) -> None:
    """Without a name; in the index under the fallback tag; and by cosign's tag, which stays a tag."""
    subject = descriptor(IMAGE, media.OCI_MANIFEST)
    unnamed, by_index = (image(subject=subject, artifactType=f"example/{n}") for n in range(2))
    cosign = image(annotations={"by": "cosign"})
    tag = digest_of(IMAGE).replace(":", "-")
    lists = index(others=[descriptor(by_index, media.OCI_MANIFEST, artifactType="example/1")])
    named = [
        (NGINX, IMAGE, ""),
        ("", unnamed, ""),
        (tag, lists, media.OCI_INDEX),
        (f"{tag}.sig", cosign, ""),
    ]
    contents = (IMAGE, unnamed, by_index, cosign, lists, BLOB, SMALL)
    file = write_bundle(tmp_path / "signed.tar", named, {digest_of(each): each for each in contents})
    async with serving(file) as client:
        found = await listed(client, f"library/nginx/referrers/{digest_of(IMAGE)}", "manifests")
        assert {each["digest"] for each in found} == {digest_of(unnamed), digest_of(by_index)}
        assert await manifest(client, f"library/nginx/manifests/{tag}.sig") == cosign
        assert await listed(client, "library/nginx/tags/list", "tags") == ["1.29", f"{tag}.sig"]


# What is only read


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("POST", "blobs/uploads/"),
        ("PUT", "manifests/1"),
        ("DELETE", "manifests/1.29"),
        ("DELETE", f"blobs/{DIGEST}"),
        ("PATCH", "blobs/uploads/x"),
    ],
)
async def test_nothing_can_be_changed(path: Path, method: str, rest: str) -> None:
    before = path.read_bytes()
    async with serving(path) as client, client.request(method, f"{HERE}/{rest}") as answer:
        assert await refusal(answer) == (405, "UNSUPPORTED")
        assert answer.headers["Allow"] == "GET, HEAD"
        assert "read-only" in await answer.text()
    assert path.read_bytes() == before


async def test_rules_are_about_the_name_by_whatever_name_a_client_asks(path: Path) -> None:
    for allowed, status in (("library/*", 200), ("docker.io/**", 401)):
        rules = parse_access(f'[[allow]]\nwho = "anonymous"\nrepositories = "{allowed}"\ndo = "pull"\n', "F")
        logins, access = Logins({"ci": HASH}), AccessRules(rules)
        async with serving(path, logins=logins, access=access) as client:
            for name in ("library/nginx", "docker.io/library/nginx"):
                assert await status_of(client, f"/v2/{name}/manifests/1.29") == status
                assert await status_of(client, f"/v2/{name}/manifests/1.29?ns=docker.io") == status


async def test_the_page_the_metrics_and_the_health_are_those_of_a_registry(path: Path) -> None:
    async with serving(path) as client:
        async with client.get("/") as answer:
            page = await answer.text()
            assert "library/nginx" in page and "1.29" in page
        async with client.get("/metrics") as answer:
            assert "blobflow_store_blobs 3.0" in await answer.text()
        assert await status_of(client, "/healthz") == 200


# Damage, and files that change


def spoil(path: Path, content: bytes, new: bytes | None = None) -> None:
    """Put something else where a file has the content, and leave the time of its last change as it was."""
    about = path.stat()
    at = path.read_bytes().index(content)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(new or bytes(len(content)))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


@pytest.mark.parametrize("asked", [None, "bytes=0-70000", f"bytes=100-{len(BLOB) - 1}"])
async def test_nobody_gets_the_whole_of_a_damaged_blob(path: Path, asked: str | None) -> None:
    """Nor of any range of it that is more than a read: the connection breaks before its last bytes."""
    spoil(path, BLOB[:1000], b"\1" * 1000)
    heard: list[str] = []
    headers = {"Range": asked} if asked else {}
    async with serving(path, observer=told(heard)) as client:
        with pytest.raises(aiohttp.ClientPayloadError):
            async with client.get(f"{HERE}/blobs/{DIGEST}", headers=headers) as answer:
                await answer.read()
        for method in ("GET", "HEAD"):
            assert await status_of(client, f"{HERE}/blobs/{DIGEST}", method) == 404
        assert await status_of(client, "/healthz") == 200
    [sentence] = heard
    assert "until it is served from a sound copy" in sentence and str(path) in sentence


async def test_small_damage_is_404_at_once(path: Path) -> None:
    spoil(path, SMALL)
    async with serving(path) as client:
        async with client.get(f"{HERE}/blobs/{digest_of(SMALL)}") as answer:
            assert await refusal(answer) == (404, "BLOB_UNKNOWN")
        async with client.get(f"{HERE}/blobs/{DIGEST}") as answer:
            assert await answer.read() == BLOB


async def test_what_is_damaged_in_one_bundle_comes_from_another(tmp_path: Path, path: Path) -> None:
    second = bundle(tmp_path / "second.tar", {NGINX: IMAGE}, BLOB, SMALL)
    spoil(path, BLOB[:1000], b"\1" * 1000)
    async with serving(path, second) as client:
        with pytest.raises(aiohttp.ClientPayloadError):
            async with client.get(f"{HERE}/blobs/{DIGEST}") as answer:
                await answer.read()
        async with client.get(f"{HERE}/blobs/{DIGEST}") as answer:
            assert await answer.read() == BLOB


async def test_a_damaged_manifest_is_told_when_the_bundle_is_opened(tmp_path: Path, path: Path) -> None:
    good = bundle(tmp_path / "two.tar", {NGINX: IMAGE, "quay.io/a/b:1": OTHER}, BLOB, SMALL)
    spoil(good, OTHER, OTHER.replace(b"another", b"ANOTHER"))
    heard: list[str] = []
    async with serving(good, observer=told(heard)) as client:
        assert await status_of(client, "/v2/a/b/manifests/1") == 404
        assert await status_of(client, f"{HERE}/manifests/1.29") == 200
    assert len(heard) == 1 and digest_of(OTHER) in heard[0]


async def test_a_blob_is_read_once_to_check_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blobflow.transports.archive.open_archive import OpenArchive

    reads, original = [], OpenArchive.blocks

    def blocks(opened: OpenArchive, stored: Any) -> Any:
        reads.append(stored.size)
        return original(opened, stored)

    async with serving(path) as client:
        monkeypatch.setattr(OpenArchive, "blocks", blocks)
        for _ in range(3):
            async with client.get(f"{HERE}/blobs/{DIGEST}") as answer:
                assert await answer.read() == BLOB
    assert reads == [len(BLOB)]


@pytest.mark.parametrize("how", ["written to", "cut off"])
async def test_a_file_that_changes_is_an_error_and_nothing_is_sent_of_it(path: Path, how: str) -> None:
    heard: list[str] = []
    async with serving(path, observer=told(heard)) as client:
        async with client.get(f"{HERE}/blobs/{DIGEST}") as answer:
            assert await answer.read() == BLOB  # to its end, as an end in mid-way has another sentence
        if how == "cut off":
            os.truncate(path, 4096)
        else:
            path.write_bytes(bytes(path.stat().st_size))
            os.utime(path, ns=(0, 0))
        async with client.get(f"{HERE}/blobs/{DIGEST}") as answer:
            assert await refusal(answer) == (500, "UNKNOWN")
        async with client.get(f"{HERE}/manifests/{ABSENT}") as answer:
            assert (await refusal(answer))[0] == 500  # no client hears that it is not there
        assert await status_of(client, "/healthz", "GET") == 503
    assert all(f"{path} was changed while it is served" in sentence for sentence in heard)


async def test_a_file_whose_name_goes_is_served_on(path: Path) -> None:
    async with serving(path) as client:
        path.unlink()
        async with client.get(f"{HERE}/blobs/{DIGEST}") as answer:
            assert await answer.read() == BLOB


# What can't be served


def refused(*paths: Path) -> BlobflowError:
    with pytest.raises(BlobflowError) as caught:
        open_bundles(paths, told([]))
    return caught.value


def test_what_can_not_be_served_is_told_in_a_sentence(tmp_path: Path, path: Path) -> None:
    packed = tmp_path / "packed.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    docker = write(tmp_path / "docker.tar", podman_entries({"docker.io/library/a:1": [b"\0" * 1024]}))
    unnamed = bundle(tmp_path / "unnamed.tar", {"latest": IMAGE}, BLOB, SMALL)
    text = tmp_path / "text"
    text.write_text("no archive")
    for refusal_of, kind, said in (
        (refused(packed), UnsupportedContent, "is compressed"),
        (refused(docker), UnsupportedContent, "is docker's"),
        (refused(tmp_path), UnsupportedContent, "is a folder"),
        (refused(text), BlobflowError, "not a tar"),
        (refused(unnamed), UsageError, "no image is named there"),
        (refused(path, path), UsageError, "is given twice"),
        (refused(tmp_path / "none.tar"), NoSuchFile, "there is no bundle"),
    ):
        assert isinstance(refusal_of, kind)
        assert said in refusal_of.message


def test_parts_are_found_by_their_name_and_missed_by_theirs(tmp_path: Path) -> None:
    names, blobs = [(NGINX, IMAGE, "")], {digest_of(each): each for each in (BLOB, SMALL, IMAGE)}
    first, second = tmp_path / "b.001.tar", tmp_path / "b.002.tar"
    write_bundle(first, [], {DIGEST: BLOB})
    write_bundle(second, names, {digest: raw for digest, raw in blobs.items() if digest != DIGEST})
    for given in (tmp_path / "b.tar", first, second):
        found = open_bundles([given], told([]))
        assert found.blobs.size_of(DIGEST) == len(BLOB)
        found.close()
    third = second.rename(tmp_path / "b.003.tar")
    assert "b.002.tar" in refused(third).message
    third.unlink()
    assert f"{second}, and what comes after it" in refused(first).message


def test_a_bundle_of_many_gigabytes_is_opened_by_its_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 GB of which nearly all is a hole, and a layer of that size. Its bytes are not read."""
    size = 5_000_000_000
    layer = {"mediaType": media.OCI_MANIFEST.replace("manifest", "layer"), "digest": ABSENT, "size": size}
    raw = image({**layer, "mediaType": "application/octet-stream"})
    listed = {"mediaType": media.OCI_MANIFEST, "digest": digest_of(raw), "size": len(raw)}
    listed["annotations"] = {"org.opencontainers.image.ref.name": NGINX}
    document = json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [listed]}).encode()
    path = tmp_path / "large.tar"
    with path.open("wb") as file:
        for name, content in (
            ("oci-layout", OCI_LAYOUT_FILE),
            (path_of_blob(digest_of(SMALL)), SMALL),
            (path_of_blob(digest_of(raw)), raw),
            ("index.json", document),
            (path_of_blob(ABSENT), None),
        ):
            file.write(header_of(name, size if content is None else len(content)))
            if content is None:
                file.seek(size + -size % 512, os.SEEK_CUR)
            else:
                file.write(content + bytes(-len(content) % 512))
        file.write(END)
    read: list[int] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    found = open_bundles([path], told([]))
    assert found.blobs.size_of(ABSENT) == size
    assert sum(read) < 2_000_000
    found.close()


def test_how_much_is_served_has_a_bound(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_content, "MAX_MEMBERS", 2)
    assert "blobflow load" in refused(path).message


def test_files_are_closed_where_opening_fails(tmp_path: Path, path: Path) -> None:
    descriptors = Path("/dev/fd")
    before = len([*descriptors.iterdir()])
    refused(path, tmp_path / "none.tar")
    refused(bundle(tmp_path / "unnamed.tar", {"latest": IMAGE}, BLOB, SMALL))
    assert len([*descriptors.iterdir()]) == before
