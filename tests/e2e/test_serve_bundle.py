"""A registry on a stick: `serve --bundle` answers as docker's registry that the bundle was saved from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from blobflow.oci import digest_of
from blobflow.oci.media import ACCEPT_MANIFESTS
from tools import imageset
from tools.certificates import self_signed
from tools.processes import Registry, blobflow, blobflow_serve, docker_registry, run, skopeo

ACCEPT = {"Accept": ACCEPT_MANIFESTS}
# What clients build on; the rest differs by the registry.
HEADERS = ("content-type", "content-length", "docker-content-digest", "content-range")
SIGNED = "shop/gateway:1.0"
ABSENT = digest_of(b"nobody has this")


class Stick:
    """A registry, the bundle that was saved of all that it has, and a registry over that."""

    def __init__(self, there: Registry, bundle: Path, here: Registry, images: tuple[str, ...]) -> None:
        self.there = there
        self.bundle = bundle
        self.here = here
        self.images = images

    def answers(self, method: str, path: str, headers: dict[str, str] | None = None) -> bytes:
        """What both answer, which has to be the same."""
        one, other = (each.ask(method, path, headers) for each in (self.there, self.here))
        told = [
            (status, {name: said[name] for name in HEADERS if name in said}, body)
            for status, said, body in (one, other)
        ]
        assert told[0] == told[1], path
        return one[2]

    def read(self, path: str, which: int) -> dict[str, Any]:
        """The JSON that the registry (0) or the stick (1) answers."""
        status, _, raw = (self.there, self.here)[which].ask("GET", path)
        assert status == 200
        found: dict[str, Any] = json.loads(raw)
        return found

    def refused(self, path: str, which: int) -> tuple[int, str]:
        """Status and code of the error that it answers."""
        status, _, raw = (self.there, self.here)[which].ask("GET", path)
        return status, str(json.loads(raw)["errors"][0]["code"])


@pytest.fixture(scope="module")
def stick(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stick]:
    folder = tmp_path_factory.mktemp("stick")
    images = imageset.synthetic(folder / "set", seed=1)
    with docker_registry(folder / "there") as there:
        imageset.push(images.path, there.host)
        listed, bundle, note = folder / "images.txt", folder / "bundle.tar", folder / "note.txt"
        listed.write_text("".join(f"{name}\n" for name in images.images))
        note.write_text("checked")
        for command in (
            ("attach", f"{there.host}/{SIGNED}", note, "--artifact-type", "example/note"),
            ("save", "--from", there.host, "--images", listed, "-o", bundle),
        ):
            done = blobflow(*command, home=folder / "home")
            assert done.code == 0, done.err
        with blobflow_serve(folder / "here", bundles=[bundle]) as here:
            yield Stick(there, bundle, here, tuple(images.images))


def test_it_answers_as_the_registry_that_it_was_saved_from(stick: Stick) -> None:
    assert stick.read("/v2/_catalog", 0) == stick.read("/v2/_catalog", 1)
    for image in stick.images:
        repository, _, tag = image.rpartition(":")
        assert stick.read(f"/v2/{repository}/tags/list", 1)["tags"] == [tag]
        for absent in (f"manifests/{ABSENT}", "manifests/none", f"blobs/{ABSENT}"):
            path = f"/v2/{repository}/{absent}"
            assert stick.refused(path, 0) == stick.refused(path, 1)
        waiting = [tag]
        while waiting:
            at = f"/v2/{repository}/manifests/{waiting.pop()}"
            raw = stick.answers("GET", at, ACCEPT)
            stick.answers("HEAD", at, ACCEPT)
            document = json.loads(raw)
            waiting += [each["digest"] for each in document.get("manifests", [])]
            for blob in [*document.get("layers", []), *filter(None, [document.get("config")])]:
                path = f"/v2/{repository}/blobs/{blob['digest']}"
                assert digest_of(stick.answers("GET", path)) == blob["digest"]
                middle = f"bytes={blob['size'] // 3}-{blob['size'] // 2}"
                stick.answers("GET", path, {"Range": middle})
                assert stick.here.ask("HEAD", path)[0] == 200


def test_referrers_are_listed_where_docker_s_registry_has_but_a_tag(stick: Stick) -> None:
    repository, _, tag = SIGNED.rpartition(":")
    _, headers, _ = stick.here.ask("HEAD", f"/v2/{repository}/manifests/{tag}", ACCEPT)
    status, _, raw = stick.here.ask("GET", f"/v2/{repository}/referrers/{headers['docker-content-digest']}")
    assert status == 200
    [found] = json.loads(raw)["manifests"]
    assert found["artifactType"] == "example/note"
    stick.answers("GET", f"/v2/{repository}/manifests/{found['digest']}", ACCEPT)


def test_skopeo_copies_every_image_with_all_platforms(stick: Stick, tmp_path: Path, home: Path) -> None:
    for number, image in enumerate(stick.images):
        source = f"docker://{stick.here.host}/{image}"
        done = skopeo(
            "copy", "--all", "--src-tls-verify=false", source, f"dir:{tmp_path}/{number}", home=home
        )
        assert done.code == 0, done.err


def test_podman_pulls_every_image_in_place_of_the_registry_that_they_came_from(
    stick: Stick, home: Path
) -> None:
    """By the names that they had, with the stick as their registry's mirror, which is not asked."""
    program = shutil.which("podman")
    if program is None:
        pytest.skip("needs podman (Debian: apt-get install podman)")
    (home / "docker").mkdir(parents=True)
    (home / "docker" / "config.json").write_text("{}")  # podman 4.3.1 wants to find one
    stick.there.forget()
    with TemporaryDirectory(prefix="podman") as place:  # podman takes no long names
        mirrors = Path(place) / "registries.conf"
        mirrors.write_text(
            f'[[registry]]\nlocation = "{stick.there.host}"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{stick.here.host}"\ninsecure = true\n'
        )
        storage = ("--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs")
        names = [f"{stick.there.host}/{image}" for image in stick.images]
        command = ["env", f"CONTAINERS_REGISTRIES_CONF={mirrors}", program, *storage]
        for words in (("pull", "--quiet", "--arch", "amd64", *names), ("images", "--format", "{{.Names}}")):
            done = run([*command, *words], home)
            assert done.code == 0, done.err
        assert all(name in done.out for name in names)
    assert stick.there.requests().reads_of_blobs() == {}


def test_the_bundle_is_as_it_was_and_may_lie_in_parts_and_behind_tls(
    stick: Stick, tmp_path: Path, home: Path
) -> None:
    listed, parts = tmp_path / "images.txt", tmp_path / "parts.tar"
    listed.write_text("".join(f"{image}\n" for image in stick.images))
    size = str(max(2_000_000, stick.bundle.stat().st_size // 3))
    save = ("save", "--from", stick.here.host, "--images", listed, "-o", parts, "--split-size", size)
    done = blobflow(*save, home=home)
    assert done.code == 0, done.err
    assert not parts.exists() and len([*tmp_path.glob("parts.0*.tar")]) > 1
    pair = self_signed(tmp_path)
    with blobflow_serve(tmp_path / "tls", bundles=[parts], tls=pair) as registry:
        for image in stick.images:
            repository, _, tag = image.rpartition(":")
            path = f"/v2/{repository}/manifests/{tag}"
            assert registry.ask("GET", path, ACCEPT)[2] == stick.there.ask("GET", path, ACCEPT)[2]
        copy = ("copy", f"{registry.host}/{stick.images[0]}", f"oci:{tmp_path}/out:1", "--ca", str(pair.cert))
        assert blobflow(*copy, home=home).code == 0
