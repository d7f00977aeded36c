"""What goes wrong at a user's, as a user sees it: an exit code, one sentence, and nothing half done.

The exit codes are those of the error tree: 2 usage, 3 a set that is not complete, 4 network, 5 registry,
6 wrong content, 8 storage.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.conftest import MountsTmpfs, StartsRegistries
from tests.e2e.sentences import assert_one_sentence
from tools import imageset
from tools.imageset import Image, Layout
from tools.ports import reserve_port
from tools.processes import Registry, Run, blobflow, blobflow_serve


@pytest.fixture
def source(start_registry: StartsRegistries, small_set: Layout) -> Registry:
    """A docker-registry that holds the sample set."""
    registry = start_registry("source")
    imageset.push(small_set.path, registry.host)
    return registry


def assert_failed(run: Run, count: int, *words: str) -> None:
    """A set ended incomplete: `count` images failed, each with one line that has all the words."""
    assert (run.code, "Traceback" in run.err) == (3, False), run.err
    lines = [line for line in run.err.splitlines() if line.startswith("failed: ")]
    assert len(lines) == count, run.err
    assert [(word, line) for line in lines for word in words if word not in line] == []


def sync(source: str, targets: Sequence[str], images: Sequence[str], home: Path, *options: str | Path) -> Run:
    home.mkdir(parents=True, exist_ok=True)
    (home / "images.txt").write_text("".join(f"{image}\n" for image in images))
    to = [part for target in targets for part in ("--to", target)]
    return blobflow("sync", "--from", source, *to, "--images", home / "images.txt", *options, home=home)


def first_image(layout: Layout) -> tuple[str, Image]:
    return next(iter(layout.images.items()))


def largest_blob(image: Image) -> str:
    return max(image.blobs, key=lambda digest: image.blobs[digest])


def stored(registry: Registry, digest: str) -> Path:
    """Where docker-registry keeps a blob."""
    algorithm, _, encoded = digest.partition(":")
    return registry.root / "docker/registry/v2/blobs" / algorithm / encoded[:2] / encoded / "data"


def holders(digest: str, layout: Layout) -> set[str]:
    return {name for name, image in layout.images.items() if digest in image.blobs}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["copy", "UPPER/case:1", "127.0.0.1:1/x:1"], ["UPPER/case"]),
        (["copy", "127.0.0.1:1/x:not a tag", "127.0.0.1:1/y"], ["not a tag"]),
        (["copy", "127.0.0.1:1/x@sha256:123", "127.0.0.1:1/y"], ["sha256:123"]),
        (["copy", "dir:/tmp/x", "127.0.0.1:1/x:1"], ["dir:", "skopeo copy"]),
        (["copy", "docker-daemon:x:1", "127.0.0.1:1/x:1"], ["docker-daemon:", "docker save"]),
        (["copy", "127.0.0.1:1/x:1", "containers-storage:x:1"], ["containers-storage:", "podman push"]),
        (["sync", "nowhere.yaml"], ["nowhere.yaml", "No such file"]),
        (["sync", "--from", "127.0.0.1:1", "--to", "127.0.0.1:2"], ["--images"]),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_sentence(
    arguments: list[str], words: list[str], home: Path
) -> None:
    assert_one_sentence(blobflow(*arguments, home=home), 2, *words)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], ["images.txt", "no image"]),
        (["# nothing but a comment"], ["images.txt", "no image"]),
        (["a:1", "b:1", "a:1"], ["images.txt line 3", "images.txt line 1"]),
    ],
)
def test_an_empty_or_duplicate_list_is_refused(images: list[str], words: list[str], home: Path) -> None:
    assert_one_sentence(sync("127.0.0.1:1", ["127.0.0.1:2"], images, home), 2, *words)


def test_an_unreachable_source_is_named(home: Path) -> None:
    host = f"127.0.0.1:{reserve_port()}"
    run = blobflow("copy", f"{host}/x:1", "127.0.0.1:1/x:1", home=home)
    assert_one_sentence(run, 4, "source", host)


def test_an_unreachable_target_fails_alone(
    source: Registry, start_registry: StartsRegistries, small_set: Layout, home: Path
) -> None:
    target, dead = start_registry("target"), f"127.0.0.1:{reserve_port()}"
    run = sync(source.host, [target.host, dead], list(small_set.images), home)
    assert_failed(run, len(small_set.images), "target", dead)
    for image in small_set.images.values():
        assert target.digest_of(image.repository, image.tag) == image.digest


def test_an_unknown_tag_is_named(source: Registry, small_set: Layout, home: Path) -> None:
    repository = first_image(small_set)[1].repository
    run = blobflow("copy", f"{source.host}/{repository}:nonesuch", "127.0.0.1:1/x:1", home=home)
    assert_one_sentence(run, 5, "source", f"{repository}:nonesuch")


def test_an_unknown_tag_in_a_set_fails_alone_and_is_in_the_report(
    source: Registry, start_registry: StartsRegistries, small_set: Layout, home: Path
) -> None:
    target = start_registry("target")
    report = home.with_name("report.json")
    images = [*small_set.images, "no/such:1"]
    run = sync(source.host, [target.host], images, home, "--report", report)
    assert_failed(run, 1, "source", "no/such:1")
    for image in small_set.images.values():
        assert target.digest_of(image.repository, image.tag) == image.digest
    records = {record["source"]: record for record in json.loads(report.read_text())["images"]}
    assert records[f"{source.host}/no/such:1"]["status"] == "failed"
    assert len(records) == len(images)


def test_two_images_aimed_at_one_tag_both_fail(
    source: Registry, start_registry: StartsRegistries, small_set: Layout, tmp_path: Path, home: Path
) -> None:
    target = start_registry("target")
    images = list(small_set.images.values())[:2]
    for image in images:
        give_tag(source, image, "same")
    wanted = [{"image": image.repository, "tags": ["same"], "target": "one/place"} for image in images]
    spec = {"version": 1, "defaults": {"source": source.host, "targets": [target.host]}, "images": wanted}
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    run = blobflow("sync", tmp_path / "spec.yaml", home=home)
    assert_failed(run, 2, "one/place:same", *(image.repository for image in images))
    assert target.digest_of("one/place", "same") is None


@pytest.mark.parametrize("damage", ["a flipped byte", "a missing end"])
def test_wrong_content_at_the_source_never_gets_a_tag(
    damage: str, source: Registry, start_registry: StartsRegistries, small_set: Layout, home: Path
) -> None:
    target = start_registry("target")
    blob = largest_blob(first_image(small_set)[1])
    broken = holders(blob, small_set)
    path = stored(source, blob)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if damage == "a flipped byte" else b""))
    run = sync(source.host, [target.host], list(small_set.images), home)
    assert_failed(run, len(broken), "source", blob)
    for name, image in small_set.images.items():
        expected = None if name in broken else image.digest
        assert target.digest_of(image.repository, image.tag) == expected
    assert not stored(target, blob).exists()


@pytest.mark.parametrize(("room", "code"), [("nothing", 8), ("some blobs", 0)])
def test_a_full_disk_under_the_cache_is_said_and_leaves_nothing_half_done(
    room: str,
    code: int,
    source: Registry,
    start_registry: StartsRegistries,
    mount_tmpfs: MountsTmpfs,
    small_set: Layout,
    home: Path,
) -> None:
    targets = [start_registry("one"), start_registry("two")]  # so that blobs go through the cache
    cache = mount_tmpfs("small-cache", "size=768k")
    home.mkdir()
    (home / "cache").symlink_to(cache)
    if room == "nothing":
        fill(cache)
    run = sync(source.host, [target.host for target in targets], list(small_set.images), home)
    assert (run.code, "Traceback" in run.err) == (code, False), run.err
    [said] = (line for line in run.err.splitlines() if not line.startswith("Progress: "))
    assert "the disk is full" in said
    for target in targets:
        assert_nothing_half_done(target, small_set)


def test_a_read_only_cache_is_said(
    source: Registry,
    start_registry: StartsRegistries,
    mount_tmpfs: MountsTmpfs,
    small_set: Layout,
    home: Path,
) -> None:
    target = start_registry("target")
    home.mkdir()
    (home / "cache").symlink_to(mount_tmpfs("read-only-cache", "ro"))
    run = sync(source.host, [target.host], list(small_set.images), home)
    assert_storage_failed(run, "the file system is read-only")
    assert_nothing_half_done(target, small_set)


def test_a_read_only_root_keeps_serve_from_starting(mount_tmpfs: MountsTmpfs, home: Path) -> None:
    root = mount_tmpfs("read-only-root", "ro")
    listen = f"127.0.0.1:{reserve_port()}"
    run = blobflow("serve", "--listen", listen, "--root", root / "store", home=home)
    assert_one_sentence(run, 8, str(root), "the file system is read-only")


def test_a_full_disk_at_the_target_is_the_targets_failure(
    source: Registry, mount_tmpfs: MountsTmpfs, small_set: Layout, home: Path
) -> None:
    folder = mount_tmpfs("small-target", "size=1m")
    with blobflow_serve(folder) as served:
        fill(folder)
        run = sync(source.host, [served.host], list(small_set.images)[:1], home)
        assert_failed(run, 1, "target", served.host)
        assert_nothing_half_done(served, small_set)


def fill(folder: Path) -> None:
    """Leave no byte free on the file system of the folder."""
    with (folder / "filling").open("wb", buffering=0) as filling:
        try:
            while True:
                filling.write(bytes(4096))
        except OSError:
            return


def assert_storage_failed(run: Run, words: str) -> None:
    """The run ended for want of storage, as a whole or for some images, and said so without a traceback."""
    assert run.code in (3, 8), run.err
    assert "Traceback" not in run.err
    assert words in run.err


def assert_nothing_half_done(registry: Registry, layout: Layout) -> None:
    """Whatever has a tag is there with all that it reaches."""
    for image in layout.images.values():
        if registry.digest_of(image.repository, image.tag) is None:
            continue
        for child in image.children:
            assert registry.digest_of(image.repository, child) == child
        blobs = {
            blob: registry.ask("HEAD", f"/v2/{image.repository}/blobs/{blob}")[0] for blob in image.blobs
        }
        assert set(blobs.values()) == {200}, blobs


def give_tag(registry: Registry, image: Image, tag: str) -> None:
    """Give an image that the registry holds another tag."""
    path = f"/v2/{image.repository}/manifests"
    _, _, raw = registry.ask("GET", f"{path}/{image.digest}", {"Accept": image.media_type})
    status, _, _ = registry.ask("PUT", f"{path}/{tag}", {"Content-Type": image.media_type}, raw)
    assert status == 201
