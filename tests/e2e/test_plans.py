"""Saved plans between real registries, layouts and archives: what is carried out is what was planned."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from blobflow.oci import media
from blobflow.oci.referrers import cosign_tags
from tests.e2e.conftest import StartsRegistries
from tests.e2e.signed_images import push as push_signed
from tests.fakes.archives import layer_of, podman_entries, write
from tests.scenarios.signed_images import Signed
from tools.imageset import Layout, push
from tools.processes import Registry, Run, blobflow

pytestmark = pytest.mark.e2e

WRITES = ("PUT", "POST", "PATCH", "DELETE")
ONE = "shop/gateway:1.0"


class Desk:
    """Where plans are made and carried out, by whoever has this home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lock = home.parent / "mirror.lock"
        self.report = home.parent / "report.json"

    def plan(self, *arguments: str | Path, code: int = 0) -> Run:
        done = blobflow("plan", *arguments, "--out", self.lock, home=self.home)
        assert done.code == code, done.err
        return done

    def apply(self, *arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
        self.report.unlink(missing_ok=True)
        done = blobflow("apply", self.lock, *arguments, "--report", self.report, home=self.home)
        assert done.code == code, done.out + done.err
        images: list[dict[str, Any]] = json.loads(self.report.read_bytes())["images"]
        return images


@pytest.fixture
def desk(home: Path) -> Desk:
    return Desk(home)


def statuses(images: list[dict[str, Any]]) -> Counter[str]:
    return Counter(image["status"] for image in images)


def writes(registry: Registry) -> int:
    return sum(request.method in WRITES for request in registry.requests())


def tags_asked(registry: Registry) -> list[str]:
    """Requests that were not for a digest."""
    asked = [str(request) for request in registry.requests() if not request.path.endswith("/v2/")]
    return [each for each in asked if "sha256:" not in each]


def list_of(layout: Layout, place: str, target: str) -> list[str]:
    return ["--from", place, "--to", target, "--images", str(layout.path / "images.txt")]


def test_a_set_is_brought_as_planned_without_a_look_at_the_sources_tags_and_then_left_alone(
    desk: Desk, start_registry: StartsRegistries, small_set: Layout
) -> None:
    source, target = start_registry("source"), start_registry("target")
    push(small_set.path, source.host)
    planned = desk.plan(*list_of(small_set, source.host, f"{target.host}/m"))
    lines = planned.out.splitlines()
    assert [line.partition(" -> ")[0] for line in lines[: len(small_set.images)]] == [
        f"{source.host}/{name}" for name in (small_set.path / "images.txt").read_text().split()
    ]

    shutil.rmtree(desk.home)  # whoever carries it out knows nothing of how it was made
    for name in small_set.images:
        point_elsewhere(source, name)
    source.forget()
    target.forget()
    images = desk.apply()
    assert statuses(images) == {"done": len(small_set.images)}
    assert not tags_asked(source)
    for name, image in small_set.images.items():
        repository, _, tag = name.partition(":")
        assert target.digest_of(f"m/{repository}", tag) == image.digest
    assert max(source.requests().reads_of_blobs().values()) == 1

    source.forget()
    target.forget()
    assert statuses(desk.apply()) == {"present": len(small_set.images)}
    assert writes(target) == 0
    assert not source.requests()


def test_a_signature_that_moved_at_the_source_since_is_not_brought(
    desk: Desk, start_registry: StartsRegistries
) -> None:
    source, target = start_registry("source"), start_registry("target")
    signed = Signed()
    push_signed(source, signed.content)
    desk.plan("--from", source.host, "--to", f"{target.host}/copy", "--images", listed(desk, "app:1"))
    subject, [signature] = next(iter(signed.by_tag.items()))
    tag = cosign_tags(subject)[0]
    later = signed.content.signature(signed.content.manifests[subject], "sig", "signed again")
    assert signed.content.tags[tag] == later.descriptor.digest != signature.descriptor.digest
    push_signed(source, signed.content)
    assert source.digest_of("app", tag) == later.descriptor.digest

    source.forget()
    assert statuses(desk.apply()) == {"done": 1}
    assert not tags_asked(source)
    assert target.digest_of("copy/app", tag) == signature.descriptor.digest
    assert target.digest_of("copy/app", later.descriptor.digest) is None
    target.forget()
    assert statuses(desk.apply()) == {"present": 1}
    assert writes(target) == 0


def point_elsewhere(registry: Registry, name: str) -> None:
    """Have a tag name one of the images below the index that it named."""
    repository, _, tag = name.partition(":")
    _, _, raw = registry.ask("GET", f"/v2/{repository}/manifests/{tag}", {"Accept": ", ".join(media.INDEXES)})
    child = json.loads(raw)["manifests"][0]
    kind = {"Accept": child["mediaType"]}
    _, _, raw = registry.ask("GET", f"/v2/{repository}/manifests/{child['digest']}", kind)
    path, kind = f"/v2/{repository}/manifests/{tag}", {"Content-Type": child["mediaType"]}
    assert registry.ask("PUT", path, kind, raw)[0] == 201


def listed(desk: Desk, *names: str) -> Path:
    path = desk.home.parent / "list.txt"
    path.write_text("\n".join(names))
    return path


def test_what_vanished_from_the_source_fails_its_image_and_no_other(
    desk: Desk, start_registry: StartsRegistries, small_set: Layout
) -> None:
    source, target = start_registry("source"), start_registry("target")
    push(small_set.path, source.host)
    desk.plan(*list_of(small_set, source.host, f"{target.host}/m"))
    repository, _, tag = ONE.partition(":")
    digest = small_set.images[ONE].digest
    assert source.ask("DELETE", f"/v2/{repository}/manifests/{digest}")[0] == 202
    images = {image["target"]: image for image in desk.apply(code=3)}
    failed = images.pop(f"{target.host}/m/{ONE}")
    assert failed["status"] == "failed"
    assert failed["error"].startswith("source: ") and digest in failed["error"]
    assert {image["status"] for image in images.values()} == {"done"}
    assert target.digest_of(f"m/{repository}", tag) is None


def test_a_pruned_index_is_put_as_it_was_planned_whatever_the_source_has(
    desk: Desk, start_registry: StartsRegistries, small_set: Layout
) -> None:
    source, target = start_registry("source"), start_registry("target")
    push(small_set.path, source.host)
    arguments = list_of(small_set, source.host, f"{target.host}/m")
    planned = desk.plan(*arguments, "--platform", "linux/arm64", "--index", "prune")
    assert planned.out.count(", pruned to linux/arm64") == len(small_set.images)
    for name, image in small_set.images.items():
        repository = name.partition(":")[0]
        source.ask("DELETE", f"/v2/{repository}/manifests/{image.digest}")
    images = desk.apply()
    assert statuses(images) == {"done": len(images)}
    assert all(image["digest"] != image["source_digest"] for image in images)
    target.forget()
    assert statuses(desk.apply()) == {"present": len(images)}
    assert writes(target) == 0


def test_a_sparse_index_that_is_refused_falls_back_as_planned_and_stays_so(
    desk: Desk, start_registry: StartsRegistries, small_set: Layout
) -> None:
    source, target = start_registry("source"), start_registry("target")
    push(small_set.path, source.host)
    desk.plan(*list_of(small_set, source.host, f"{target.host}/m"), "--platform", "linux/arm64")
    shutil.rmtree(desk.home)
    first = desk.apply()
    assert all(image["digest"] != image["source_digest"] for image in first)
    shutil.rmtree(desk.home)
    target.forget()
    again = desk.apply()
    assert statuses(again) == {"present": len(first)}
    assert [image["digest"] for image in again] == [image["digest"] for image in first]
    assert writes(target) == 0


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_places_are_sources_and_targets_of_saved_plans(
    desk: Desk, start_registry: StartsRegistries, small_set: Layout, tmp_path: Path, kind: str
) -> None:
    target = start_registry("target")
    place = f"{kind}:{tmp_path}/place"
    named = f"{place}:{ONE}"
    copy = blobflow(
        *("copy", "--platform", "linux/amd64", "--index", "prune"),
        *(f"oci:{small_set.path}:{ONE}", named),
        home=desk.home,
    )
    assert copy.code == 0, copy.err
    spec = tmp_path / "there.yaml"
    spec.write_text(
        json.dumps(
            {
                "version": 1,
                "defaults": {"source": place, "targets": [f"{target.host}/m"]},
                "images": [ONE],
            }
        )
    )
    desk.plan(spec)
    shutil.rmtree(desk.home)
    assert statuses(desk.apply()) == {"done": 1}
    target.forget()
    assert statuses(desk.apply()) == {"present": 1}
    assert writes(target) == 0

    back = tmp_path / "back"
    desk.plan("--from", f"{target.host}/m", "--to", f"{kind}:{back}", "--images", listed(desk, ONE))
    [image] = desk.apply()
    assert (image["status"], back.exists()) == ("done", True)
    [again] = desk.apply()
    assert again["digest"] == image["digest"]
    assert again["status"] == ("present" if kind == "oci" else "done")  # an archive is written as a whole


def test_an_archive_that_was_changed_since_is_found_out(
    desk: Desk, start_registry: StartsRegistries, tmp_path: Path
) -> None:
    target = start_registry("target")
    archive = tmp_path / "images.tar"
    write(archive, podman_entries({"app:1": [layer_of("one")], "app:2": [layer_of("two")]}))
    names = listed(desk, "docker.io/library/app:1", "docker.io/library/app:2")
    arguments = ["--from", f"docker-archive:{archive}", "--to", f"{target.host}/m", "--images", str(names)]
    desk.plan(*arguments)
    write(archive, podman_entries({"app:1": [layer_of("other")], "app:2": [layer_of("two")]}))
    images = desk.apply(code=3)
    assert [image["status"] for image in images] == ["failed", "done"]
    assert "is not what it was when the plan was made" in images[0]["error"]


def test_how_layers_are_compressed_is_the_plans(
    desk: Desk, start_registry: StartsRegistries, tmp_path: Path
) -> None:
    target = start_registry("target")
    archive = tmp_path / "images.tar"
    write(archive, podman_entries({"app:1": [layer_of("one")]}))
    names = listed(desk, "docker.io/library/app:1")
    arguments = ["--from", f"docker-archive:{archive}", "--to", f"{target.host}/m", "--images", str(names)]
    desk.plan(*arguments, "--compress", "zstd")
    shutil.rmtree(desk.home)
    refused = blobflow("apply", desk.lock, "--compress", "gzip", home=desk.home)
    assert refused.code == 2 and "--compress gzip" in refused.err
    assert statuses(desk.apply()) == {"done": 1}
    [digest] = {image["digest"] for image in desk.apply()}
    _, _, raw = target.ask("GET", f"/v2/m/library/app/manifests/{digest}", {"Accept": media.OCI_MANIFEST})
    assert {layer["mediaType"].rpartition("+")[2] for layer in json.loads(raw)["layers"]} == {"zstd"}
