"""Every format leads to where an image is, or refuses: by the rules with which its reader finds images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings

from blobflow.engine.pairs import Pair
from blobflow.mirror_places import MirrorPlaces, places_below, places_of_pairs, places_under
from blobflow.node_files.formats import Format
from blobflow.node_files.render import node_files
from blobflow.node_files.request import NodeFiles, NodeRequest, RegistryAccess
from blobflow.oci import Reference, parse_reference
from tests.fakes.mirror_mappings import DIGEST, mappings
from tests.fakes.node_readers import (
    by_containerd,
    by_kyverno,
    by_mirror_sets,
    by_rancher,
    by_registries_conf,
    daemon_json,
)

_few = settings(max_examples=60)

ONE, TWO = "one.example.com/mirror", "two.example.com:5000"
TAGGED, PINNED = parse_reference("nginx:1"), parse_reference(f"nginx@{DIGEST}")
HUB = "https://registry-1.docker.io/v2"


def made(form: Format, *mirrors: MirrorPlaces, **said: object) -> NodeFiles:
    return node_files(form, NodeRequest(mirrors, **said))  # type: ignore[arg-type]


def of_hub(*mirrors: str) -> tuple[MirrorPlaces, ...]:
    return tuple(places_under("docker.io", mirror) for mirror in mirrors)


def manifest_url(place: Reference) -> str:
    return f"https://{place.host}/v2/{place.repository}/manifests/{place.name}"


def test_containerd_asks_mirrors_in_order_and_the_registry_last() -> None:
    files = made("containerd", *of_hub(ONE, TWO))
    assert not files.refused
    assert by_containerd(files, TAGGED) == [
        "https://one.example.com/v2/mirror/library/nginx/manifests/1",
        "https://two.example.com:5000/v2/library/nginx/manifests/1",
        f"{HUB}/library/nginx/manifests/1",
    ]
    assert by_containerd(files, parse_reference("quay.io/a/b:1")) == ["https://quay.io/v2/a/b/manifests/1"]


def test_containerd_asks_mirrors_alone() -> None:
    files = made("containerd", *of_hub(ONE), upstream=False)
    assert set(by_containerd(files, TAGGED)) == {
        "https://one.example.com/v2/mirror/library/nginx/manifests/1"
    }
    pinned = made("containerd", *of_hub(ONE), upstream=False, by_digest=True)
    assert by_containerd(pinned, TAGGED) == []


def test_containerd_asks_mirrors_for_digests_alone() -> None:
    files = made("containerd", *of_hub(ONE), by_digest=True)
    assert by_containerd(files, TAGGED) == [f"{HUB}/library/nginx/manifests/1"]
    assert by_containerd(files, PINNED) == [
        f"https://one.example.com/v2/mirror/library/nginx/manifests/{DIGEST}",
        f"{HUB}/library/nginx/manifests/{DIGEST}",
    ]


def test_containerd_mirrors_every_registry_by_its_default() -> None:
    files = made("containerd", places_below(ONE))
    assert by_containerd(files, parse_reference("quay.io/a/b:1")) == [
        "https://one.example.com/v2/mirror/a/b/manifests/1",
        "https://quay.io/v2/a/b/manifests/1",
    ]


def test_containerd_reaches_mirrors_as_blobflow_does() -> None:
    access = {
        "one.example.com": RegistryAccess(plain_http=True),
        "two.example.com:5000": RegistryAccess(ca=b"PEM\n"),
        "three.example.com": RegistryAccess(skip_verify=True),
        "quay.io": RegistryAccess(plain_http=True),
    }
    mirrors = [places_under("quay.io", each) for each in (ONE, TWO, "three.example.com")]
    files = made("containerd", *mirrors, access=access)
    [file], [ca] = files.files, files.beside
    text = file.content.decode()
    assert [url.split("/v2")[0] for url in by_containerd(files, parse_reference("quay.io/a:1"))] == [
        *("http://one.example.com", "https://two.example.com:5000", "https://three.example.com"),
        "http://quay.io",
    ]
    assert text.count("skip_verify = true") == 1
    assert text.count('ca = "two.example.com:5000.crt"') == 1
    assert ca.path == "etc/containerd/certs.d/quay.io/two.example.com:5000.crt"
    assert ca.content.endswith(b"PEM\n")


@pytest.mark.parametrize("form", ["podman", "crio"])
def test_registries_conf_asks_mirrors_in_order_and_the_registry_last(form: Format) -> None:
    files = made(form, *of_hub(ONE, TWO))
    assert by_registries_conf(files, TAGGED) == [
        "one.example.com/mirror/library/nginx:1",
        "two.example.com:5000/library/nginx:1",
        "docker.io/library/nginx:1",
    ]
    alone = made(form, *of_hub(ONE, TWO), upstream=False)
    assert by_registries_conf(alone, TAGGED) == by_registries_conf(files, TAGGED)[:2]
    pinned = made(form, *of_hub(ONE, TWO), by_digest=True)
    assert by_registries_conf(pinned, TAGGED) == ["docker.io/library/nginx:1"]
    assert len(by_registries_conf(pinned, PINNED)) == 3


def test_registries_conf_says_which_mirrors_have_no_tls() -> None:
    access = {
        "one.example.com": RegistryAccess(plain_http=True),
        "two.example.com:5000": RegistryAccess(ca=b"PEM\n"),
    }
    files = made("podman", *of_hub(ONE, TWO), access=access)
    assert files.files[0].content.decode().count("insecure = true") == 1
    assert [each.path for each in files.beside] == ["etc/containers/certs.d/two.example.com:5000/ca.crt"]


@pytest.mark.parametrize("form", ["k3s", "rke2"])
def test_registries_yaml_asks_mirrors_in_order_and_the_registry_last(form: Format) -> None:
    for mirrors in ((ONE, TWO), (ONE, "two.example.com/mirror")):
        files = made(form, *of_hub(*mirrors))
        assert by_rancher(files, TAGGED) == [
            *(manifest_url(places_under("docker.io", each).place_of(TAGGED) or TAGGED) for each in mirrors),
            f"{HUB}/library/nginx/manifests/1",
        ]
    alone = made(form, *of_hub(ONE), upstream=False)
    assert by_rancher(alone, TAGGED) == ["https://one.example.com/v2/mirror/library/nginx/manifests/1"]
    every = made(form, places_below(ONE))
    assert by_rancher(every, parse_reference("quay.io/a/b:1"))[0] == (
        "https://one.example.com/v2/mirror/a/b/manifests/1"
    )


def test_openshift_asks_mirrors_in_order_and_the_source_last() -> None:
    files = made("openshift", *of_hub(ONE, TWO))
    places = ["one.example.com/mirror/library/nginx", "two.example.com:5000/library/nginx"]
    assert by_mirror_sets(files, TAGGED) == [*(f"{each}:1" for each in places), str(TAGGED)]
    assert by_mirror_sets(files, PINNED) == [*(f"{each}@{DIGEST}" for each in places), str(PINNED)]
    alone = made("openshift", *of_hub(ONE), upstream=False)
    assert by_mirror_sets(alone, TAGGED) == [f"{places[0]}:1"]
    pinned = made("openshift", *of_hub(ONE), by_digest=True)
    assert by_mirror_sets(pinned, TAGGED) == [str(TAGGED)]


def test_docker_has_mirrors_of_docker_io() -> None:
    access = {"two.example.com:5000": RegistryAccess(plain_http=True)}
    files = made("docker", *of_hub("one.example.com", TWO), access=access)
    assert not files.refused
    assert daemon_json(files) == {
        "registry-mirrors": ["https://one.example.com", "http://two.example.com:5000"],
        "insecure-registries": ["two.example.com:5000"],
    }


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("nginx", "library/nginx"),
        ("nginx:1", "library/nginx:1"),
        (f"nginx@{DIGEST}", f"library/nginx@{DIGEST}"),
        ("docker.io/nginx", "library/nginx"),
        ("index.docker.io/library/nginx:1", "library/nginx:1"),
        ("rancher/pause:3", "rancher/pause:3"),
        ("docker.io/rancher/pause:3", "rancher/pause:3"),
        ("a/b/c", "a/b/c"),
    ],
)
def test_a_policy_reads_names_as_runtimes_do(written: str, place: str) -> None:
    files = made("kyverno", *of_hub(ONE))
    assert by_kyverno(files, written) == f"{ONE}/{place}"
    every = made("kyverno", places_below(ONE))
    assert by_kyverno(every, written) == f"{ONE}/{place}"


@pytest.mark.parametrize(
    "written",
    [f"{ONE}/library/nginx:1", "localhost/made/here:1", "quay.io/a:1", "localhost:5000/a", "my.registry/a:1"],
)
def test_a_policy_leaves_what_is_no_image_of_its_sources(written: str) -> None:
    assert by_kyverno(made("kyverno", *of_hub(ONE)), written) == written


def test_a_policy_for_every_registry_leaves_what_is_in_its_place() -> None:
    files = made("kyverno", places_below(ONE))
    assert by_kyverno(files, "quay.io:443/a/b:1") == f"{ONE}/a/b:1"
    assert by_kyverno(files, f"{ONE}/a/b:1") == f"{ONE}/a/b:1"


def test_a_policy_for_digests_leaves_tags() -> None:
    files = made("kyverno", *of_hub(ONE), by_digest=True)
    assert by_kyverno(files, "nginx:1") == "nginx:1"
    assert by_kyverno(files, f"nginx@{DIGEST}") == f"{ONE}/library/nginx@{DIGEST}"


def test_a_mirror_may_be_an_address_of_ipv6() -> None:
    mirrors = of_hub("[2001:db8::1]:5000/mirror")
    place = "[2001:db8::1]:5000/mirror/library/nginx:1"
    assert by_kyverno(made("kyverno", *mirrors), "nginx:1") == place
    url = "https://[2001:db8::1]:5000/v2/mirror/library/nginx/manifests/1"
    assert by_containerd(made("containerd", *mirrors), TAGGED)[0] == url
    assert by_rancher(made("k3s", *mirrors), TAGGED)[0] == url


@_few
@given(mappings(renames=False))
def test_registries_conf_and_mirror_sets_lead_to_every_place(mapped: Sequence[Pair]) -> None:
    places = places_of_pairs(mapped)
    conf, sets = made("crio", places), made("openshift", places)
    assert not conf.refused and not sets.refused
    for pair in mapped:
        place = places.place_of(pair.source)
        assert by_registries_conf(conf, pair.source)[0] == str(place)
        assert by_mirror_sets(sets, pair.source)[0] == str(place)


@_few
@given(mappings(renames=False))
def test_containerd_and_k3s_lead_to_every_place_or_refuse(mapped: Sequence[Pair]) -> None:
    places = places_of_pairs(mapped)
    readers: dict[Format, Callable[[NodeFiles, Reference], list[str]]] = {
        "containerd": by_containerd,
        "k3s": by_rancher,
    }
    for form, ask in readers.items():
        files = made(form, places)
        for pair in () if files.refused else mapped:
            place = places.place_of(pair.source)
            assert place is not None
            assert ask(files, pair.source)[0] == manifest_url(place)


@_few
@given(mappings())
def test_a_policy_leads_to_every_place(mapped: Sequence[Pair]) -> None:
    places = places_of_pairs(mapped)
    files = made("kyverno", places)
    assert not files.refused
    for pair in mapped:
        assert by_kyverno(files, str(pair.source)) == str(places.place_of(pair.source))
