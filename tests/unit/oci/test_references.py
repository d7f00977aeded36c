"""Words: digests, references, platforms and manifests, as tables; and that nothing else ever escapes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import BlobflowError, InvalidDigest, InvalidReference, UnsupportedContent, UsageError
from blobflow.oci import (
    MAX_MANIFEST_BYTES,
    Platform,
    Reference,
    digest_of,
    media,
    parse_digest,
    parse_manifest,
    parse_platform,
    parse_reference,
)
from blobflow.oci.manifest import children
from blobflow.oci.reference import check_host, is_loopback

HEX = "a" * 64
SHA = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("alpine", Reference("docker.io", "library/alpine", "latest")),
        ("alpine:3", Reference("docker.io", "library/alpine", "3")),
        ("rancher/pause:3.1", Reference("docker.io", "rancher/pause", "3.1")),
        ("index.docker.io/alpine", Reference("docker.io", "library/alpine", "latest")),
        ("docker://quay.io/a/b", Reference("quay.io", "a/b", "latest")),
        ("localhost/a", Reference("localhost", "a", "latest")),
        ("localhost:5000/a:1", Reference("localhost:5000", "a", "1")),
        ("127.0.0.1:5000/a/b/c:v1.0_x-y", Reference("127.0.0.1:5000", "a/b/c", "v1.0_x-y")),
        ("[::1]:5000/a:1", Reference("[::1]:5000", "a", "1")),
        (f"ghcr.io/a/b@{SHA}", Reference("ghcr.io", "a/b", "", SHA)),
        (f"ghcr.io/a/b:1@{SHA}", Reference("ghcr.io", "a/b", "1", SHA)),
        ("a.b/c__d--e/f.g", Reference("a.b", "c__d--e/f.g", "latest")),
    ],
)
def test_references_are_read_with_dockers_defaults(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        (" alpine", "spaces"),
        ("Alpine", "lower case"),
        ("a//b", "bad repository name"),
        ("a/../b", "bad repository name"),
        ("alpine:", "bad tag"),
        ("alpine:-x", "bad tag"),
        ("alpine:" + "x" * 129, "bad tag"),
        ("alpine@sha256:123", "64 lower-case hex digits"),
        ("alpine@md5:123", "can't verify"),
        ("host.name:99999/a", "port"),
        ("http://host/a", "http:// is not a transport"),
        ("dir:/tmp/x", "dir: is not a transport"),
        ("docker-daemon:a:1", "docker save"),
        ("containers-storage:a", "podman push"),
        ("a" * 300, "255"),
    ],
)
def test_what_is_no_reference_is_refused_with_the_rule_that_it_breaks(text: str, says: str) -> None:
    with pytest.raises(InvalidReference, match=says):
        parse_reference(text)


@pytest.mark.parametrize("scheme", ["", "docker://", "https://", "http://"])
@pytest.mark.parametrize("digest", ["", f"@{SHA}"])
@pytest.mark.parametrize("name", ["host/a", "host:5000/a:1", "r.example/a", "r.example", "localhost:5000"])
@pytest.mark.parametrize("login", ["joe:hush", "hush", "joe:hu/hush", "joe:h@hush", "joe:h:hush", ":hush"])
def test_a_login_before_the_host_is_refused_and_not_quoted(
    scheme: str, digest: str, name: str, login: str
) -> None:
    with pytest.raises(InvalidReference, match="a login in front of a host") as caught:
        parse_reference(f"{scheme}{login}@{name}{digest}")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("text", ["a:1@latest", f"a/b.c@{SHA}x", "a@sha256:", "a@sha256:12/3", "a@sha512"])
def test_a_digest_that_is_none_is_no_login(text: str) -> None:
    with pytest.raises(InvalidReference, match="is not a reference") as caught:
        parse_reference(text)
    assert "login" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("127.0.0.1:5000", "127.0.0.1:5000/REPOSITORY:TAG"),
        ("127.0.0.1", "127.0.0.1/REPOSITORY:TAG"),
        ("127.0.0.1:5000/", "127.0.0.1:5000/REPOSITORY:TAG"),
        ("127.0.0.1:5000//", "127.0.0.1:5000/REPOSITORY:TAG"),
        ("registry.example.com", "registry.example.com/REPOSITORY:TAG"),
        ("Registry.Example.com:443", "Registry.Example.com:443/REPOSITORY:TAG"),
        ("docker.io", "docker.io/REPOSITORY:TAG"),
        ("docker.io/", "docker.io/REPOSITORY:TAG"),
        ("localhost", "localhost/REPOSITORY:TAG"),
        ("localhost:5000", "localhost:5000/REPOSITORY:TAG"),
        ("mirror:5000/", "mirror:5000/REPOSITORY:TAG"),
        ("[::1]", "[::1]/REPOSITORY:TAG"),
        ("[::1]:5000", "[::1]:5000/REPOSITORY:TAG"),
        ("[::1]:5000:2", "[::1]:5000/REPOSITORY:2"),
        ("docker://127.0.0.1:5000", "127.0.0.1:5000/REPOSITORY:TAG"),
        ("docker://quay.io/", "quay.io/REPOSITORY:TAG"),
        ("127.0.0.1:5000:1.2", "127.0.0.1:5000/REPOSITORY:1.2"),
        ("registry.example.com:latest", "registry.example.com/REPOSITORY:latest"),
        ("mirror:5000:latest", "mirror:5000/REPOSITORY:latest"),
        ("127.0.0.1:5000/:1", "127.0.0.1:5000/REPOSITORY:1"),
        (f"quay.io@{SHA}", "quay.io/REPOSITORY@DIGEST"),
        (f"127.0.0.1:5000@{SHA}", "127.0.0.1:5000/REPOSITORY@DIGEST"),
        (f"127.0.0.1:5000/@{SHA}", "127.0.0.1:5000/REPOSITORY@DIGEST"),
        (f"127.0.0.1:5000:1@{SHA}", "127.0.0.1:5000/REPOSITORY:1"),
    ],
)
def test_a_registry_alone_is_told_to_add_a_repository(text: str, example: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_reference(text)
    said = f"{text.removeprefix('docker://')!r} names a registry and no repository; add a repository, as "
    assert (str(caught.value), caught.value.exit_code) == (said + example, 2)


def test_an_archive_that_is_named_as_an_image_is_told_how() -> None:
    with pytest.raises(InvalidReference, match=r"; a file is docker-archive:a\.tar or oci-archive:a\.tar$"):
        parse_reference("a.tar")


@pytest.mark.parametrize(
    ("text", "repository", "tag"),
    [
        ("registry:2", "library/registry", "2"),
        ("mirror:5000", "library/mirror", "5000"),  # as docker and crane read it
        ("alpine:3.18", "library/alpine", "3.18"),
        ("a_b.c:1", "library/a_b.c", "1"),  # no host has such a name
        ("docker.io/localhost:5000", "library/localhost", "5000"),
        ("docker.io/library/my.app:1", "library/my.app", "1"),
        ("docker.io/my.app", "library/my.app", "latest"),
    ],
)
def test_a_word_that_may_be_a_repository_is_one_of_docker_io(text: str, repository: str, tag: str) -> None:
    assert parse_reference(text) == Reference("docker.io", repository, tag)


def test_at_another_registry_a_repository_may_have_a_dot() -> None:
    assert parse_reference("my.app:1", default_host="r:1") == Reference("r:1", "my.app", "1")
    with pytest.raises(InvalidReference, match="add a repository"):
        parse_reference("127.0.0.1:5000", default_host="r:1")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.8.8.8:80", True),
        ("[::1]", True),
        ("[::1]:5000", True),
        ("[::ffff:127.0.0.1]:5000", True),
        ("[::ffff:7f00:1]", True),
        ("127.1:5000", True),
        ("0x7f.1", True),
        ("2130706433:5000", True),
        # What a gateway would unpack is not this machine.
        ("[::127.0.0.1]:5000", False),
        ("[64:ff9b::127.0.0.1]:5000", False),
        ("[2002:7f00:1::]:5000", False),
        ("[::ffff:10.0.0.1]:5000", False),
        ("[::ffff:0:127.0.0.1]", False),
        ("0.0.0.0:5000", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com:80", False),
        ("[::2]:5000", False),
        ("10.0.0.1", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@given(st.text(max_size=80) | st.from_regex(r"[a-z.:/@\[\]A-Z0-9_-]{0,40}", fullmatch=True))
def test_reading_a_reference_raises_nothing_but_invalid_reference(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReference:
        return
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize("text", [SHA, "sha512:" + "0" * 128])
def test_digests_that_can_be_verified_are_taken(text: str) -> None:
    assert parse_digest(text) == text


@pytest.mark.parametrize(
    "text", ["", "sha256", HEX, "sha256:" + "A" * 64, SHA + "0", "sha384:" + "0" * 96, SHA + "\n"]
)
def test_other_digests_are_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        parse_digest(text)


@pytest.mark.parametrize(
    ("have", "want", "matches"),
    [
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm/v6", "linux/arm", False),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64/v3", "linux/amd64", True),
        ("windows/amd64", "linux/amd64", False),
        ("linux/x86_64", "linux/amd64", True),
    ],
)
def test_platforms_match_with_implied_variants(have: str, want: str, matches: bool) -> None:
    assert parse_platform(have).matches(parse_platform(want)) is matches


@pytest.mark.parametrize("text", ["", "linux", "linux//v8", "a/b/c/d"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="os/architecture"):
        parse_platform(text)


def child(size: int = 2, digest: str = SHA, **more: object) -> dict[str, object]:
    return {"mediaType": media.OCI_MANIFEST, "digest": digest, "size": size, **more}


def encode(**document: object) -> bytes:
    return json.dumps({"schemaVersion": 2, **document}).encode()


def test_an_index_has_its_manifests_in_order_with_their_platforms() -> None:
    raw = encode(
        mediaType=media.OCI_INDEX,
        manifests=[
            child(platform={"os": "linux", "architecture": "amd64"}),
            child(platform={"os": "windows", "architecture": "amd64", "os.version": "10.0"}),
            child(platform=None),
        ],
    )
    manifest = parse_manifest(raw, media.OCI_INDEX)
    assert manifest.is_index
    assert manifest.descriptor.digest == digest_of(raw)
    assert manifest.raw == raw
    assert [entry.platform for entry in children(manifest)] == [
        Platform(architecture="amd64", os="linux"),
        Platform(architecture="amd64", os="windows", os_version="10.0"),
        None,
    ]


def test_an_image_has_its_config_and_layers_but_not_those_that_live_elsewhere() -> None:
    raw = encode(
        config=child(7),
        layers=[
            child(1),
            child(3, urls=["https://example.com/layer"]),
            {**child(4), "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"},
        ],
    )
    manifest = parse_manifest(raw, media.DOCKER_MANIFEST)
    assert [blob.size for blob in children(manifest)] == [7, 1]
    assert len(manifest.layers) == 3


@pytest.mark.parametrize("media_type", ["text/plain", "", "application/json; charset=utf-8"])
def test_a_generic_content_type_leaves_it_to_the_document(media_type: str) -> None:
    assert parse_manifest(encode(manifests=[]), media_type).descriptor.media_type == media.OCI_INDEX
    image = encode(config=child(), layers=[])
    assert parse_manifest(image, media_type).descriptor.media_type == media.OCI_MANIFEST


@pytest.mark.parametrize(
    ("raw", "media_type", "says"),
    [
        (b"", "", "not a manifest"),
        (b"<html>", "", "not a manifest"),
        (b"[]", "", "not a manifest"),
        (b"{", "", "not a manifest"),
        (encode(), "application/vnd.example+json", "unknown manifest media type"),
        (
            encode(mediaType="application/vnd.oci.artifact.manifest.v1+json"),
            "",
            "unknown manifest media type",
        ),
        (b'{"schemaVersion": 1}', "", "schema 1"),
        (encode(), media.DOCKER_SCHEMA1_SIGNED, "schema 1"),
        (encode(mediaType=media.OCI_INDEX), media.OCI_MANIFEST, "was served as"),
        (encode(layers=[]), media.OCI_MANIFEST, "without a config"),
        (encode(manifests=[child(digest="sha256:zz")]), media.OCI_INDEX, "can't be verified"),
        (encode(manifests=[child(size=-1)]), media.OCI_INDEX, "-1 bytes"),
        (encode(manifests=[child()] * 20_001), media.OCI_INDEX, "more than the 20000"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "", "more than the 4194304 allowed"),
        (b"[" * 100_000, "", "not a manifest"),
    ],
    ids=range(15),
)
def test_what_can_not_be_mirrored_is_refused_in_one_sentence(raw: bytes, media_type: str, says: str) -> None:
    with pytest.raises(UnsupportedContent, match=says) as caught:
        parse_manifest(raw, media_type)
    assert "\n" not in str(caught.value)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just(SHA),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["manifests", "layers", "config", "digest", "size", "mediaType", "platform", "urls"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_reading_a_manifest_raises_nothing_outside_the_tree(raw: bytes) -> None:
    try:
        parse_manifest(raw)
    except BlobflowError:
        pass


@pytest.mark.parametrize("path", ["./out", "../out", "/srv/out.tar", "~/out"])
def test_a_path_is_told_how_paths_are_written(path: str) -> None:
    with pytest.raises(InvalidReference, match="is a path; a folder is 'oci:") as caught:
        parse_reference(path)
    assert f"oci-archive:{path}" in str(caught.value)


def test_a_stream_is_told_that_its_kind_must_be_said() -> None:
    with pytest.raises(InvalidReference, match="write docker-archive:- or oci-archive:-"):
        parse_reference("-")


@pytest.mark.parametrize("text", ["https://r.example:5000", "http://r.example:5000/v2/"])
def test_a_url_for_a_host_is_told_what_to_write(text: str) -> None:
    scheme = text.partition(":")[0]
    with pytest.raises(InvalidReference) as caught:
        check_host(text)
    assert str(caught.value) == (
        f"{text!r} is not a registry host; write r.example:5000, without {scheme}:// and path"
    )


def test_what_is_too_long_for_a_scheme_is_not_repeated() -> None:
    with pytest.raises(InvalidReference) as caught:
        check_host("x" * 5000 + "://r.example")
    assert len(str(caught.value)) < 300
