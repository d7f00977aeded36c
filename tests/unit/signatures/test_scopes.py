"""Scopes: the most specific part of a policy that an image is in, and which scopes a policy can have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blobflow.errors import InvalidConfig
from blobflow.oci import Reference, parse_reference
from blobflow.signatures.policy_file import SignaturePolicy, parse_policy
from blobflow.signatures.scopes import scopes_of

SHA = "sha256:" + "a" * 64


def policy_of(transport: str, *scopes: str) -> SignaturePolicy:
    rejected = [{"type": "reject"}]
    document = {"default": rejected, "transports": {transport: dict.fromkeys(scopes, rejected)}}
    return parse_policy(json.dumps(document).encode())


def scope_of(policy: SignaturePolicy, text: str) -> str:
    reference = parse_reference(text)
    return policy.requirements(reference.transport or "docker", reference).scope


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        (
            "quay.io/team/app:1",
            ["quay.io/team/app:1", "quay.io/team/app", "quay.io/team", "quay.io", "*.io", ""],
        ),
        (
            f"quay.io/app@{SHA}",
            [f"quay.io/app@{SHA}", "quay.io/app", "quay.io", "*.io", ""],
        ),
        (
            "alpine",
            [
                "docker.io/library/alpine:latest",
                "docker.io/library/alpine",
                "docker.io/library",
                "docker.io",
                "*.io",
                "",
            ],
        ),
        ("localhost:5000/a:1", ["localhost:5000/a:1", "localhost:5000/a", "localhost:5000", ""]),
        (
            "r.eu.example.com:8443/a:1",
            [
                "r.eu.example.com:8443/a:1",
                "r.eu.example.com:8443/a",
                "r.eu.example.com:8443",
                "*.eu.example.com",
                "*.example.com",
                "*.com",
                "",
            ],
        ),
        ("[::1]:5000/a:1", ["[::1]:5000/a:1", "[::1]:5000/a", "[::1]:5000", ""]),
    ],
)
def test_an_image_of_a_registry_is_in_these_scopes(text: str, scopes: list[str]) -> None:
    assert list(scopes_of("docker", parse_reference(text))) == scopes


def test_a_tag_beside_a_digest_is_no_scope() -> None:
    """Else whoever writes a trusted tag before any digest would choose what the policy asks for."""
    policy = policy_of("docker", "quay.io/app:trusted", "quay.io/app")
    assert scope_of(policy, "quay.io/app:trusted") == "quay.io/app:trusted"
    assert scope_of(policy, f"quay.io/app:trusted@{SHA}") == "quay.io/app"


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("h.example/team/app:1", "h.example/team/app:1"),
        ("h.example/team/app:2", "h.example/team/app"),
        ("h.example/team/apps:1", "h.example/team"),
        ("h.example/teams/app:1", "h.example"),
        ("h.example:5000/team/app:1", "*.example"),
        ("www.h.example/team/app:1", "*.h.example"),
        ("other.test/team/app:1", "docker, default"),
    ],
)
def test_the_longest_scope_counts(text: str, scope: str) -> None:
    scopes = ("h.example", "h.example/team", "h.example/team/app", "h.example/team/app:1", "")
    assert scope_of(policy_of("docker", "*.example", "*.h.example", *scopes), text) == scope


def test_without_a_scope_the_default_of_the_policy_counts() -> None:
    assert scope_of(policy_of("docker", "h.example"), "other.example/a:1") == "default"
    assert scope_of(policy_of("dir", ""), "other.example/a:1") == "default"
    assert scope_of(policy_of("unknown", "anything"), "oci:/srv/a") == "default"


def test_hosts_are_the_same_in_upper_and_lower_case() -> None:
    policy = policy_of("docker", "Quay.IO/team")
    assert scope_of(policy, "quay.io/team/app:1") == scope_of(policy, "QUAY.io/team/app:1") == "Quay.IO/team"
    with pytest.raises(InvalidConfig, match=r'\["QUAY.io/a"\]: is the scope quay.io/a in another spelling'):
        policy_of("docker", "quay.io/a", "QUAY.io/a")


def test_a_layout_is_in_the_scopes_of_its_folders(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "real" / "app").mkdir(parents=True)
    (root / "link").symlink_to(root / "real")
    policy = policy_of("oci", f"{root}/real", f"{root}/link", "")
    assert scope_of(policy, f"oci:{root}/real/app:1") == f"{root}/real"
    assert scope_of(policy, f"oci:{root}/link/app") == f"{root}/real"
    assert scope_of(policy, f"oci:{root}/real/../other") == "oci, default"
    assert scope_of(policy_of("oci-archive", f"{root}/a.tar"), f"oci-archive:{root}/a.tar") == f"{root}/a.tar"


def test_streams_and_docker_archives_are_in_no_scope_but_their_transports() -> None:
    for transport in ("oci-archive", "docker-archive"):
        assert list(scopes_of(transport, parse_reference(f"{transport}:-"))) == [""]
    assert list(scopes_of("docker-archive", parse_reference("docker-archive:/srv/a.tar"))) == [""]
    assert list(scopes_of("", Reference("h.example", "a", "1"))) == [""]


@pytest.mark.parametrize(
    ("transport", "scope"),
    [
        ("docker", "docker.io/library/busybox"),
        ("docker", "*.example.com"),
        ("docker", "whatever it says"),
        ("oci", "/srv/images"),
        ("oci-archive", "/srv/a.tar"),
        ("dir", "/srv"),
        ("docker-daemon", "docker.io/library/busybox:1"),
        ("atomic", "h.example:443/ns/stream:1"),
        ("containers-storage", "[overlay@/var/lib/containers/storage]"),
        ("containers-storage", f"[/var/lib]docker.io/library/busybox@{SHA}@{'b' * 64}"),
        ("containers-storage", f"[/var/lib]@{'b' * 64}"),
        ("ostree", "anything"),
        *((each, "") for each in ("docker", "oci", "docker-archive", "tarball", "containers-storage")),
    ],
)
def test_scopes_that_a_policy_can_have(transport: str, scope: str) -> None:
    assert policy_of(transport, scope)


@pytest.mark.parametrize(
    ("transport", "scope", "words"),
    [
        ("oci", "images", "a scope has to be an absolute path"),
        ("sif", "/", 'the scope of all paths is "", not "/"'),
        ("oci", "/srv/../a", "the path has another spelling; write /a"),
        ("oci-archive", "/srv/", "the path has another spelling; write /srv"),
        ("dir", "//srv", "the path has another spelling; write /srv"),
        ("docker-archive", "/srv/a.tar", 'docker-archive has no scope but ""'),
        ("docker-daemon", SHA, "a digest is not a scope of docker-daemon"),
        ("atomic", "h.example/ns/stream/more", "a scope of atomic is HOST"),
        ("containers-storage", "docker.io/library/busybox", "a scope of containers-storage is"),
        ("containers-storage", "[overlay@relative]", "a scope of containers-storage is"),
        ("containers-storage", "[/var/lib]busybox@latest", "a scope of containers-storage is"),
    ],
)
def test_scopes_that_no_image_could_be_in_are_refused(transport: str, scope: str, words: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        policy_of(transport, scope)
    assert caught.value.message.startswith(f"policy.json: transports.{transport}")
    assert words in caught.value.message
