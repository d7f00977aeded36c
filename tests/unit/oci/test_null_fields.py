"""A null is an absent field, wherever JSON of strangers is read: Go writes and reads it so."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blobflow.engine.sources.configs import read_config, read_diff_ids
from blobflow.errors import UnsupportedContent
from blobflow.oci import Descriptor, Digest, Manifest, Platform, digest_of, media, parse_manifest
from blobflow.oci import json_decoding as strangers
from blobflow.oci.docker_conversion import convert_manifest
from blobflow.oci.manifest import subject_of
from blobflow.oci.platform_choice import prune_index
from blobflow.oci.referrers import merge_referrers_index
from blobflow.transports.archive.docker_manifest import diff_ids
from blobflow.transports.archive.manifest_json import parse_manifest_json
from blobflow.transports.layout.index_json import parse_index_json, with_tags
from blobflow.transports.registry.api.tags import read_page
from blobflow.transports.registry.auth.credential_helpers import ProcessResult
from blobflow.transports.registry.auth.credentials import find_credentials, read_docker_config
from blobflow.transports.registry.auth.tokens import read_token
from blobflow.transports.registry.http.error_body import parse_error_body
from tests.fakes.memory_registry import MemoryPlace, MemoryRegistry

Json = dict[str, Any]

CONFIG: Json = {"mediaType": media.OCI_CONFIG, "digest": digest_of(b"{}"), "size": 2}
LAYER: Json = {
    "mediaType": media.OCI_LAYER_GZIP,
    "digest": digest_of(b"layer"),
    "size": 5,
    "urls": ["https://example.com/layer"],
    "annotations": {"a": "b"},
    "artifactType": "a/b",
}
IMAGE: Json = {
    "schemaVersion": 2,
    "mediaType": media.OCI_MANIFEST,
    "config": CONFIG,
    "layers": [LAYER],
    "subject": {"mediaType": media.OCI_MANIFEST, "digest": digest_of(b"subject"), "size": 7},
    "artifactType": "c/d",
    "annotations": {"e": "f"},
}
CHILD: Json = {
    "mediaType": media.OCI_MANIFEST,
    "digest": digest_of(b"child"),
    "size": 500,
    "platform": {
        "architecture": "arm64",
        "os": "linux",
        "variant": "v8",
        "os.version": "1",
        "os.features": ["x"],
    },
    "annotations": {"g": "h"},
}
INDEX: Json = {
    "schemaVersion": 2,
    "mediaType": media.OCI_INDEX,
    "manifests": [CHILD],
    "annotations": {"i": "j"},
}
# Without these a document says nothing, or not what it has to.
NEEDED = {"digest", "size", "config"}


def members(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each member of each object."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict):
            yield (*path, key)
        if isinstance(each, dict | list):
            yield from members(each, (*path, key))


def with_null(document: Json, path: tuple[Any, ...], *, absent: bool = False) -> bytes:
    made = copy.deepcopy(document)
    at: Any = made
    for key in path[:-1]:
        at = at[key]
    if absent:
        del at[path[-1]]
    else:
        at[path[-1]] = None
    return json.dumps(made).encode()


def said(manifest: Manifest) -> Manifest:
    """A manifest but for what its bytes are."""
    of = msgspec.structs.replace(manifest.descriptor, digest=Digest(""), size=0)
    return msgspec.structs.replace(manifest, raw=b"", descriptor=of)


CASES = [(document, path) for document in (IMAGE, INDEX) for path in members(document)]


@pytest.mark.parametrize(("document", "path"), CASES, ids=[str(path) for _, path in CASES])
def test_every_member_of_a_manifest_may_be_null_as_it_may_be_absent(
    document: Json, path: tuple[Any, ...]
) -> None:
    raw, absent = with_null(document, path), with_null(document, path, absent=True)
    if path[-1] in NEEDED and path != ("subject", "size"):
        for each in (raw, absent):
            with pytest.raises(UnsupportedContent) as failed:
                parse_manifest(each)
            assert "\n" not in str(failed.value)
    else:
        assert said(parse_manifest(raw)) == said(parse_manifest(absent))


def test_where_all_may_be_null_a_document_is_what_is_left() -> None:
    nothing: dict[str, None] = dict.fromkeys(
        ("urls", "annotations", "platform", "artifactType", "data", "mediaType")
    )
    raw = json.dumps(
        {
            "schemaVersion": None,
            "mediaType": None,
            "config": {**CONFIG, **nothing},
            "layers": [{**LAYER, **nothing}, {**LAYER, **nothing, "annotations": {"a": None, "b": "c"}}],
            **dict.fromkeys(("manifests", "subject", "annotations", "artifactType", "fsLayers", "history")),
        }
    ).encode()
    image = parse_manifest(raw, media.DOCKER_MANIFEST)
    assert image.descriptor.media_type == media.OCI_MANIFEST
    assert [layer.annotations for layer in image.layers] == [None, {"b": "c"}]
    assert subject_of(raw) is None
    assert subject_of(with_null(IMAGE, ("subject", "mediaType"))) == IMAGE["subject"]["digest"]


@pytest.mark.parametrize("document", [IMAGE | {"layers": [None]}, INDEX | {"manifests": [None]}])
def test_an_entry_that_is_null_is_none_that_could_be_verified(document: Json) -> None:
    with pytest.raises(UnsupportedContent, match="is not a manifest"):
        parse_manifest(json.dumps(document).encode())


def test_nulls_do_not_hide_what_is_ambiguous() -> None:
    for more in ('"layers": null', '"Layers": null', '"manifests": null, "manifests": []'):
        raw = json.dumps(IMAGE)[:-1] + f', "annotations": {{"a": null}}, {more}}}'
        with pytest.raises(UnsupportedContent, match=r"twice|some clients take"):
            parse_manifest(raw.encode())


def test_an_index_with_nulls_is_pruned_and_converted_as_without() -> None:
    children = [
        {**CHILD, "platform": {"os": "linux", "architecture": None}, "urls": None},
        {**CHILD, "digest": digest_of(b"b")},
    ]
    index = parse_manifest(
        json.dumps({**INDEX, "config": None, "layers": None, "manifests": children}).encode()
    )
    kept = prune_index(index, index.manifests[:1], {})
    assert kept.manifests == index.manifests[:1]
    assert kept.manifests[0].platform == Platform(os="linux")
    assert json.loads(kept.raw)["manifests"] == children[:1], "every other key stays as it is"
    listed = convert_manifest(index, "v2s2", {})
    assert listed.descriptor.media_type == media.DOCKER_LIST
    image = parse_manifest(
        json.dumps({**IMAGE, "subject": None, "layers": [{**LAYER, "annotations": None}]}).encode()
    )
    assert convert_manifest(image, "v2s2", {}).descriptor.media_type == media.DOCKER_MANIFEST


def test_what_takes_too_much_memory_without_its_nulls_is_refused() -> None:
    filling = ",".join(["0"] * (strangers.MAX_PARTS + 1))
    raw = json.dumps(CHILD | {"size": 5})
    document = f'{{"schemaVersion": 2, "manifests": [{raw}], "annotations": {{"a": null}}, "x": [{filling}]}}'
    with pytest.raises(UnsupportedContent, match="got `null`"):
        parse_manifest(document.encode())


# Configs


async def image_of(config: Json) -> tuple[MemoryPlace, Manifest]:
    registry = MemoryRegistry("r")
    site, raw = registry.site("app"), json.dumps(config).encode()
    registry.blobs[site] = {digest_of(raw): raw}
    named = {"mediaType": media.OCI_CONFIG, "digest": digest_of(raw), "size": len(raw)}
    made = parse_manifest(json.dumps({**IMAGE, "config": named}).encode())
    return registry.at(site), made


CONFIGS: list[Json] = [
    {"os": None, "architecture": "amd64", "variant": None, "os.version": None, "os.features": None},
    {"os": "linux", "architecture": None, "created": None, "rootfs": None, "history": None},
    {"config": None, "rootfs": {"type": None, "diff_ids": None}},
    {"config": {"Env": None, "Labels": None}, "rootfs": {"diff_ids": [digest_of(b"layer")]}, "created": None},
]


@pytest.mark.parametrize("config", CONFIGS)
async def test_a_null_in_a_config_is_an_absent_field(config: Json) -> None:
    source, image = await image_of(config)
    read = await read_config(source, image)
    assert read.platform == Platform(config.get("architecture") or "", config.get("os") or "")
    named = (config.get("rootfs") or {}).get("diff_ids") or []
    if named:
        assert await read_diff_ids(source, image) == named
        assert diff_ids(json.dumps(config).encode(), 1, "config") == named


# What registries answer


def test_a_null_in_an_answer_is_an_absent_field() -> None:
    assert read_page(b'{"name": null, "tags": null}', "host", "tags") == []
    assert read_page(b'{"repositories": null}', "host", "catalog") == []
    for answer in (
        {"token": None, "access_token": "t", "expires_in": None, "issued_at": None},
        {"token": "t", "access_token": None, "scope": None},
    ):
        assert read_token(json.dumps(answer).encode(), 0.0, "realm").header == "Bearer t"
    assert parse_error_body(b'{"errors": null}').text == ""
    assert (
        parse_error_body(b'{"errors": [{"code": "DENIED", "message": null, "detail": null}]}').code
        == "DENIED"
    )


async def test_a_null_in_docker_s_config_is_an_absent_field() -> None:
    async def answer(program: str, verb: str, given: bytes) -> ProcessResult:
        return ProcessResult(0, b'{"ServerURL": null, "Username": "u", "Secret": "s"}', b"")

    for more in ({}, {"credHelpers": {"other.example": None}, "credsStore": None, "HttpHeaders": None}):
        entry = {"auth": None, "username": "u", "password": "s", "identitytoken": None}
        config = read_docker_config(json.dumps({"auths": {"host.example": entry}, **more}).encode(), "c")
        login = await find_credentials(config, "host.example")
        assert login is not None
        assert (login.username, login.password) == ("u", "s")
    asking = read_docker_config(b'{"auths": null, "credHelpers": {"host.example": "x", "b": null}}', "c")
    login = await find_credentials(asking, "host.example", answer)
    assert login is not None
    assert login.password == "s"


# Files


def test_a_null_in_an_archive_s_list_is_an_absent_field(tmp_path: Path) -> None:
    [image] = parse_manifest_json(
        b'[{"Config": "c.json", "RepoTags": null, "Layers": null, "Parent": null}]', "a.tar"
    )
    assert (image.names, image.layers) == ((), ())


def test_a_null_in_the_index_of_a_layout_is_an_absent_field() -> None:
    name = "org.opencontainers.image.ref.name"
    for notes, names in ((None, ()), ({name: None}, ()), ({name: "1", "other": None}, ("1",))):
        entry = {**CHILD, "platform": None, "annotations": notes}
        raw = json.dumps({"schemaVersion": 2, "mediaType": None, "manifests": [entry]}).encode()
        [(found, child)] = parse_index_json(raw, "index.json")
        assert (found, child.digest) == (names, CHILD["digest"])
        assert json.loads(with_tags(raw, child, ["2"]))["manifests"][0] == entry
    assert parse_index_json(b'{"schemaVersion": 2, "manifests": null}', "index.json") == []


@pytest.mark.parametrize("odd", [[None], [{}], [None, CHILD], [{"digest": None}, CHILD]])
def test_a_list_of_referrers_with_nulls_is_added_to(odd: list[Json]) -> None:
    raw = json.dumps({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": odd}).encode()
    added = Descriptor(media.OCI_MANIFEST, digest_of(b"added"), 5)
    try:
        made = merge_referrers_index(raw, [added])
    except UnsupportedContent:
        return
    assert made is not None
    listed = {child.digest for child in parse_manifest(made).manifests}
    assert listed == {added.digest} | {each["digest"] for each in odd if each == CHILD}
