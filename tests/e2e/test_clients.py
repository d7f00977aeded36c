"""Clients that few know push to `blobflow serve` and pull from it, and blobflow carries what they made.

Each is another house's reading of the specification; tests/e2e/clients says how each is used. They come from
PyPI and npm. All of them run by name (`pytest -m clients`); three of the quick ones always do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from blobflow.oci import digest_of
from tests.e2e.clients.bench import (
    Bench,
    Client,
    Content,
    Json,
    Pushed,
    divided,
    installed,
    manifest_at,
    raw_manifest_at,
)
from tests.e2e.clients.npm import NPM, SIGNED
from tests.e2e.clients.pypi import PYPI
from tools import imageset
from tools.certificates import self_signed
from tools.checkout import TOP
from tools.processes import Registry, blobflow, blobflow_serve, docker_registry, skopeo

ALWAYS = ("python-dxf", "oras", "pyoci")  # quick ones of PyPI: artifacts over HTTP, an image over TLS


class World(NamedTuple):
    """`serve`, with the small set and a plain docker image in it, and an empty docker-registry."""

    client: Client
    served: Registry
    third: Registry
    folder: Path
    home: Path

    def at(self, registry: Registry) -> Bench:
        """The client at one of the registries."""
        folder = self.folder / ("served" if registry is self.served else "third")
        return Bench(registry, folder, self.home, installed(self.client.requirement))

    def file(self, place: str) -> str:
        """A place in the folder of the client at `serve`, for blobflow."""
        kind, _, name = place.partition(":")
        return f"{kind}:{self.folder}/served/{name}"

    def copy(self, source: str, target: str, *options: str) -> None:
        trusted = ("--ca", self.served.ca) if self.served.ca else ()
        done = blobflow("copy", "--quiet", *options, *trusted, source, target, home=self.home)
        assert (done.code, done.err) == (0, "")


def client_called(name: str) -> Client:
    return next(client for client in (*PYPI, *NPM) if client.name == name)


def _each(client: Client) -> object:
    mark = pytest.mark.clients(always=client.name in ALWAYS)
    return pytest.param(client, id=client.name, marks=mark)


@pytest.fixture(params=[_each(client) for client in (*PYPI, *NPM)])
def world(
    request: pytest.FixtureRequest, programs: None, small_set: imageset.Layout, tmp_path: Path, home: Path
) -> Iterator[World]:
    client: Client = request.param
    installed(client.requirement)
    tls = self_signed(tmp_path / "tls") if client.tls else None
    with ExitStack() as stack:
        served = stack.enter_context(blobflow_serve(tmp_path / "serve", *client.serve, tls=tls))
        third = stack.enter_context(docker_registry(tmp_path / "third", tls=tls))
        made = World(client, served, third, tmp_path / "work", home)
        layout = f"oci:{small_set.path}"
        for image in ("shop/gateway:1.0", "shop/cart:1.2"):
            made.copy(f"{layout}:{image}", f"{served.host}/{image}")
        made.copy(f"{layout}@{docker_image_in(small_set)}", f"{served.host}/docker:1")
        yield made


def docker_image_in(layout: imageset.Layout) -> str:
    """The digest of an image of docker's types."""
    return next(
        digest
        for image in layout.images.values()
        for digest, media_type in image.children.items()
        if media_type == imageset.DOCKER.manifest
    )


def digests_in(described: Json | list[Json]) -> list[str]:
    return [each["digest"] for each in (described if isinstance(described, list) else [described])]


def everything_of(registry: Registry, image: str) -> Content:
    """All that hangs below a reference by its digest, read without blobflow; the digests are checked."""
    repository, _ = divided(image)
    raw = raw_manifest_at(registry, image)
    found: Content = {digest_of(raw): raw}
    document = json.loads(raw)
    for child in document.get("manifests", ()):
        found |= everything_of(registry, f"{repository}@{child['digest']}")
    for blob in [*filter(None, [document.get("config")]), *document.get("layers", ())]:
        status, _, content = registry.ask("GET", f"/v2/{repository}/blobs/{blob['digest']}")
        assert (status, digest_of(content)) == (200, blob["digest"])
        found[blob["digest"]] = content
    return found


def test_what_a_client_pushes_it_pulls_and_is_carried_as_it_is(world: World) -> None:
    """Registry, layout, archive, registry of another house, and back: every byte, and every digest. Where it
    was carried to its client pulls it, too; and what a client writes into files is read."""
    served, third = world.served, world.third
    pushed = world.client.push(world.at(served))
    assert pushed.content
    assert world.client.pull(world.at(served)) == pushed.content
    assert world.client.odd(manifest_at(served, pushed.images[0])), (
        "the table of docs/clients.md is no longer right"
    )
    for number, (place, image) in enumerate(world.client.writes.items()):
        world.copy(world.file(place), f"{served.host}/read/file:{number}")
        read, made = manifest_at(served, f"read/file:{number}"), manifest_at(served, image)
        for key in ("config", "layers"):
            assert digests_in(read[key]) == digests_in(made[key])
    for number, image in enumerate(pushed.images):
        held = everything_of(served, image)
        layout, archive = f"oci:{world.folder}/{number}", f"oci-archive:{world.folder}/{number}.tar"
        target = divided(image)[0] if "@" in image else image  # then the tag is latest
        for source, target_of_it in (
            (f"{served.host}/{image}", layout),
            (layout, archive),
            (archive, f"{third.host}/{target}"),
            (f"{third.host}/{image}", f"{served.host}/again/{target}"),
        ):
            world.copy(source, target_of_it)
        assert everything_of(third, image) == held
        assert everything_of(served, f"again/{image}") == held
    assert world.client.pull(world.at(third)) == pushed.content


def test_the_documentation_has_every_client_with_the_version_that_was_tried() -> None:
    table = (TOP / "docs" / "clients.md").read_text()
    for client in (*PYPI, *NPM):
        version = client.requirement.removeprefix(client.name).lstrip("=@")
        assert f"\n| {client.name} {version}" in table


@pytest.mark.parametrize("world", [_each(client_called("@sigstore/oci"))], indirect=True)
def test_what_sigstore_attaches_goes_along_and_is_listed_with_what_it_attaches_there(world: World) -> None:
    """docker-registry keeps no list of referrers: there blobflow and the client add to one under a tag."""
    served, third = world.served, world.third
    first, second = (attached_by(world.client.push(world.at(served))) for _ in range(2))
    subject = digest_of(raw_manifest_at(served, f"{SIGNED}:1.0"))

    layout, archive = f"oci:{world.folder}/bundle", f"oci-archive:{world.folder}/bundle.tar"
    world.copy(f"{served.host}/{SIGNED}@{first}", layout)
    world.copy(layout, archive)
    world.copy(archive, f"{third.host}/{SIGNED}:bundle")
    assert listed_at(third, subject) == {first}, "without its image, it is listed for it"

    world.copy(f"{served.host}/{SIGNED}:1.0", f"{third.host}/{SIGNED}:1.0")
    assert listed_at(third, subject) == {first, second}
    last = attached_by(world.client.push(world.at(third)))
    assert listed_at(third, subject) == {first, second, last}

    world.copy(f"{third.host}/{SIGNED}:1.0", f"{served.host}/again:1.0")
    status, _, raw = served.ask("GET", f"/v2/again/referrers/{subject}")
    assert status == 200
    assert {each["digest"] for each in json.loads(raw)["manifests"]} == {first, second, last}
    for digest in (first, second, last):
        assert everything_of(served, f"again@{digest}") == everything_of(third, f"{SIGNED}@{digest}")


@pytest.mark.parametrize("world", [_each(client_called("appendlayer"))], indirect=True)
def test_what_appendlayer_mixes_is_for_skopeo_in_one_format(world: World) -> None:
    """It reads no manifest of docker's that describes OCI's blobs."""
    [image] = world.client.push(world.at(world.served)).images
    world.copy(f"{world.served.host}/{image}", f"{world.third.host}/one:1", "--format", "v2s2")
    insecure = ("--src-tls-verify=false", f"docker://{world.third.host}/one:1", f"dir:{world.folder}/one")
    done = skopeo("copy", *insecure, home=world.home)
    assert done.code == 0, done.err
    mixed, one = (manifest_at(world.served, image), manifest_at(world.third, "one:1"))
    for key in ("config", "layers"):
        assert digests_in(one[key]) == digests_in(mixed[key])


def attached_by(pushed: Pushed) -> str:
    """The digest of what sigstore attached."""
    return divided(pushed.images[0])[1]


def listed_at(registry: Registry, subject: str) -> set[str]:
    """What clients list under the tag that is made of a digest."""
    listed = manifest_at(registry, f"{SIGNED}:{subject.replace(':', '-')}")["manifests"]
    return {each["digest"] for each in listed}
