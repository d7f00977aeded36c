"""What a format can't say is refused by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from blobflow.engine.pairs import Pair
from blobflow.mirror_places import MirrorPlaces, places_below, places_of_pairs, places_under
from blobflow.node_files.formats import FORMATS, Format
from blobflow.node_files.render import node_files
from blobflow.node_files.request import NodeRequest, RegistryAccess
from blobflow.oci import parse_reference


def places(*mapped: tuple[str, str]) -> MirrorPlaces:
    return places_of_pairs([Pair(parse_reference(one), parse_reference(other)) for one, other in mapped])


HUB = places_under("docker.io", "one.example.com")
PREFIXED = places_under("docker.io", "one.example.com/mirror")
OTHER = places_under("docker.io", "two.example.com")
EVERY = places_below("one.example.com")
# A repository that is elsewhere than the rest of its registry, and a tag with another name.
MOVED = places(
    ("nginx:1", "one.example.com/base/nginx:1"), ("rancher/pause:3", "one.example.com/rancher/pause:3")
)
RENAMED = places(("nginx:1", "one.example.com/library/nginx:1-base"))
ALL: dict[str, Sequence[MirrorPlaces]] = {
    "a registry": (HUB,),
    "with a prefix": (PREFIXED,),
    "several mirrors": (HUB, OTHER),
    "every registry": (EVERY,),
    "a repository elsewhere": (MOVED,),
    "a tag with another name": (RENAMED,),
}
# The table of the documentation: who can say what.
SAYS: dict[str, set[Format]] = {
    "a registry": set(FORMATS),
    "with a prefix": set(FORMATS) - {"docker"},
    "several mirrors": set(FORMATS) - {"kyverno"},
    "every registry": {"containerd", "k3s", "rke2", "kyverno"},
    "a repository elsewhere": {"podman", "crio", "openshift", "kyverno"},
    "a tag with another name": {"kyverno"},
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", ALL)
def test_a_format_says_it_or_refuses_it(what: str, form: Format) -> None:
    refused = node_files(form, NodeRequest(tuple(ALL[what]))).refused
    assert (not refused) == (form in SAYS[what]), refused


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "kyverno"])
def test_a_tag_with_another_name_is_refused_with_both_names(form: Format) -> None:
    [refused] = [each for each in node_files(form, NodeRequest((RENAMED,))).refused if "base" in each]
    assert "docker.io/library/nginx:1 is at one.example.com/library/nginx:1-base" in refused


def test_containerd_refuses_a_repository_with_its_place() -> None:
    assert node_files("containerd", NodeRequest((MOVED,))).refused == (
        "containerd mirrors whole registries alone, and docker.io/library/nginx is at"
        " one.example.com/base/nginx",
    )


def test_k3s_says_repositories_that_are_not_inside_one_another() -> None:
    apart = places(("nginx:1", "one.example.com/base/nginx:1"), ("quay.io/a:1", "one.example.com/b:1"))
    assert not node_files("k3s", NodeRequest((apart,))).refused
    assert "applies its rewrites in no order" in node_files("k3s", NodeRequest((MOVED,))).refused[0]


@pytest.mark.parametrize("form", ["docker", "k3s", "rke2"])
def test_who_always_asks_mirrors_for_tags_refuses_to_ask_for_digests_alone(form: Format) -> None:
    [refused] = node_files(form, NodeRequest((HUB,), by_digest=True)).refused
    assert "--by-digest" in refused


@pytest.mark.parametrize("form", ["docker"])
def test_who_always_asks_upstream_refuses_not_to(form: Format) -> None:
    [refused] = node_files(form, NodeRequest((HUB,), upstream=False)).refused
    assert "--no-upstream" in refused


@pytest.mark.parametrize("form", ["podman", "crio"])
def test_registries_conf_refuses_what_it_would_say_wrong(form: Format) -> None:
    [refused] = node_files(form, NodeRequest((HUB,), upstream=False, by_digest=True)).refused
    assert "the last mirror would be asked for tags" in refused


def test_old_mirror_sets_always_let_the_source_be_asked() -> None:
    request = NodeRequest((HUB,), upstream=False, openshift_kind="icsp")
    assert "--openshift-kind idms" in node_files("openshift", request).refused[0]
    request = NodeRequest((HUB,), by_digest=True, openshift_kind="itms")
    assert "by tag alone" in node_files("openshift", request).refused[0]


def test_openshift_refuses_addresses_that_its_schema_does_not_take() -> None:
    made = node_files("openshift", NodeRequest((places_under("docker.io", "[2001:db8::1]:5000"),)))
    assert "address of IPv6" in made.refused[0]
    assert made.files == ()


@pytest.mark.parametrize("form", ["podman", "crio", "openshift"])
@pytest.mark.parametrize(
    ("mirror", "why"),
    [
        ("registry/mirror", "takes registry, which has neither a dot nor a port, for no registry"),
        ("registry", "for no registry, and docker.io is at registry"),
        (
            "[::1]:5000/mirror",
            "names no registry by an address of IPv6, and docker.io is at [::1]:5000/mirror",
        ),
    ],
)
def test_names_that_end_a_pull_of_containers_image_are_in_no_table(
    form: Format, mirror: str, why: str
) -> None:
    """skopeo 1.9: `repository name must be canonical`, `invalid reference format`; no other is asked."""
    made = node_files(form, NodeRequest((places_under("docker.io", mirror), HUB)))
    [refused] = made.refused
    assert why in refused
    [file] = made.files
    assert b"one.example.com" in file.content and f"{mirror}\n".encode() not in file.content
    assert f'"{mirror}"'.encode() not in file.content
    assert node_files(form, NodeRequest((places_under("docker.io", mirror),))).files == ()
    other = NodeRequest((places_under("[::1]:5000", "one.example.com"),))
    assert "an address of IPv6" in node_files(form, other).refused[0]


@pytest.mark.parametrize("form", ["containerd", "k3s", "rke2"])
def test_who_reads_addresses_in_new_versions_alone_is_told_of(form: Format) -> None:
    made = node_files(form, NodeRequest((places_under("docker.io", "[::1]:5000"),)))
    assert "containerd before version 2 can't read [::1]:5000" in "".join(made.notes)


def test_docker_gets_no_certificate_of_a_mirror_that_it_is_not_told_of() -> None:
    access = {host: RegistryAccess(ca=b"x") for host in ("one.example.com", "two.example.com")}
    made = node_files("docker", NodeRequest((PREFIXED, OTHER), access))
    assert [file.path for file in made.beside] == ["etc/docker/certs.d/two.example.com/ca.crt"]


def test_a_policy_is_for_no_image_of_the_node_itself() -> None:
    made = node_files("kyverno", NodeRequest((places_under("localhost", "one.example.com"),)))
    assert "an image of localhost is one that its node has already" in made.refused[0]


def test_a_policy_refuses_to_rewrite_twice() -> None:
    twice = places(("nginx:1", "quay.io/mirror/nginx:1"), ("quay.io/a:1", "one.example.com/a:1"))
    assert "would rewrite what it has rewritten" in node_files("kyverno", NodeRequest((twice,))).refused[0]


def test_a_policy_refuses_a_mirror_that_kubernetes_reads_as_a_repository() -> None:
    request = NodeRequest((places_under("docker.io", "registry/mirror"),))
    assert "is docker.io's to Kubernetes" in node_files("kyverno", request).refused[0]


@pytest.mark.parametrize("form", FORMATS)
def test_no_format_holds_a_login_and_each_says_what_to_do_about_one(form: Format) -> None:
    access = {"one.example.com": RegistryAccess(asks_for_certificate=True)}
    made = node_files(form, NodeRequest((HUB,), access))
    text = b"".join(each.content for each in made.files).decode() + "\n".join(made.notes)
    assert "login" in text
    if form not in ("openshift", "kyverno"):
        assert "asks for a client certificate, whose key is a secret" in text
