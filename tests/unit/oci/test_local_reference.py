"""Places that are no registry, as words."""

from __future__ import annotations

import pytest

from blobflow.content import Site
from blobflow.errors import InvalidReference
from blobflow.oci import Reference, digest_of, parse_reference
from blobflow.oci.local_reference import path_of, transport_of

DIGEST = digest_of(b"")


@pytest.mark.parametrize(
    ("text", "host", "name"),
    [
        ("oci:images", "oci:images", ""),
        ("oci:/srv/images:3.1", "oci:/srv/images", "3.1"),
        ("oci:./a//b/:rancher/pause:3.1", "oci:a/b", "rancher/pause:3.1"),
        ("oci-archive:set.tar", "oci-archive:set.tar", ""),
        ("oci-archive:-:docker.io/library/alpine:3", "oci-archive:-", "docker.io/library/alpine:3"),
        ("docker-archive:set.tar.gz:alpine:3", "docker-archive:set.tar.gz", "alpine:3"),
        ("docker-archive:set.tar:@2", "docker-archive:set.tar", "@2"),
        ("docker-archive:./-", "docker-archive:./-", ""),
        ("oci:5000", "oci:./5000", ""),
    ],
)
def test_a_transport_its_path_and_a_name_are_read_and_written_alike(text: str, host: str, name: str) -> None:
    reference = parse_reference(text)
    assert reference == Reference(host, "", name)
    assert transport_of(host) == text.partition(":")[0]
    assert f"{transport_of(host)}:{path_of(host)}" == host
    assert parse_reference(str(reference)) == reference
    assert str(Site(reference.host, reference.repository)) == host


def test_a_digest_is_what_is_read_and_a_name_what_is_written() -> None:
    reference = parse_reference(f"oci:images:3.1@{DIGEST}")
    assert (reference.tag, reference.digest, reference.name) == ("3.1", DIGEST, DIGEST)
    assert parse_reference(f"oci-archive:a.tar@{DIGEST}") == Reference("oci-archive:a.tar", "", "", DIGEST)


@pytest.mark.parametrize("text", ["oci:", "oci::3.1", "oci:images:", "oci:a:b c", "oci:a:b\n", "oci:a\0b"])
def test_half_a_location_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match=r"path|name"):
        parse_reference(text)


def test_a_stream_is_no_directory() -> None:
    with pytest.raises(InvalidReference, match="oci-archive:-"):
        parse_reference("oci:-")


@pytest.mark.parametrize("text", ["docker://oci:5000/app", "docker.io/library/oci", "oci.example.com/app"])
def test_a_registry_stays_a_registry(text: str) -> None:
    assert parse_reference(text).transport == ""
