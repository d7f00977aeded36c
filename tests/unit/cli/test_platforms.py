"""Sets for one platform with things in them that lack it: what each verb does, says and ends with."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from blobflow.oci import media
from tests.scenarios.command_line import blobflow, serving

WHY = "there is no linux/amd64 here; there is linux/arm64"
AMD64 = ("--platform", "linux/amd64")


class Layout:
    """An OCI layout that is written for a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[dict[str, Any]] = []
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def put(self, content: bytes, kind: str) -> dict[str, Any]:
        name = hashlib.sha256(content).hexdigest()
        (self.folder / "blobs" / "sha256" / name).write_bytes(content)
        return {"mediaType": kind, "digest": f"sha256:{name}", "size": len(content)}

    def document(self, kind: str, **fields: object) -> dict[str, Any]:
        return self.put(json.dumps({"schemaVersion": 2, "mediaType": kind, **fields}).encode(), kind)

    def image(self, architecture: str) -> dict[str, Any]:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(tarfile.TarInfo(f"for-{architecture}"))
        bare = file.getvalue()
        diff_ids = ["sha256:" + hashlib.sha256(bare).hexdigest()]
        said = {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        config = self.put(json.dumps(said).encode(), media.OCI_CONFIG)
        layer = self.put(gzip.compress(bare, mtime=0), media.OCI_LAYER_GZIP)
        return self.document(media.OCI_MANIFEST, config=config, layers=[layer])

    def chart(self) -> dict[str, Any]:
        config = self.put(b'{"name":"chart","version":"1"}', "application/vnd.cncf.helm.config.v1+json")
        layer = self.put(b"templates", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")
        return self.document(media.OCI_MANIFEST, config=config, layers=[layer])

    def index(self, *architectures: str) -> dict[str, Any]:
        entries = [
            {**self.image(each), "platform": {"os": "linux", "architecture": each}} for each in architectures
        ]
        return self.document(media.OCI_INDEX, manifests=entries)

    def name(self, root: dict[str, Any], name: str) -> None:
        self.entries.append({**root, "annotations": {"org.opencontainers.image.ref.name": name}})
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.entries}))


class Place(NamedTuple):
    """A source, a target, and the test's own folder."""

    source: str
    target: str
    folder: Path

    def listed(self, *names: str) -> str:
        path = self.folder / "list.txt"
        path.write_text("\n".join(names or ("arm:1", "both:1", "chart:1")))
        return str(path)

    def between(self, *names: str) -> tuple[str, ...]:
        return ("--from", self.source, "--to", f"{self.target}/m", "--images", self.listed(*names))

    def tags(self, name: str) -> set[str]:
        done = blobflow("tags", f"{self.target}/m/{name}", code=None)
        return set(done.stdout.split()) if done.exit_code == 0 else set()

    def spec(self, images: str, defaults: str = "") -> str:
        path = self.folder / "mirror.yaml"
        path.write_text(
            f"version: 1\ndefaults: {{source: '{self.source}', targets: [{self.target}/m],"
            f" platforms: [linux/amd64]{defaults}}}\nimages: [{images}]\n"
        )
        return str(path)

    def report(self, *argv: str, code: int = 0) -> dict[str, Any]:
        path = self.folder / "report.json"
        blobflow(*argv, "--report", str(path), code=code)
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with an image for arm64 alone, one for amd64 and arm64, and a chart."""
    folder = tmp_path_factory.mktemp("source")
    layout = Layout(folder / "layout")
    layout.name(layout.image("arm64"), "arm")
    layout.name(layout.index("amd64", "arm64"), "both")
    layout.name(layout.chart(), "chart")
    layout.name(layout.index("amd64", "amd64"), "equal")
    with serving(folder / "root") as host:
        for name in ("arm", "both", "chart", "equal"):
            blobflow(
                "copy", f"oci:{layout.folder}:{name}", f"{host}/{name}:1", "--cache-dir", str(folder / "c")
            )
        yield host


@pytest.fixture
def place(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("DOCKER_CONFIG", "XDG_CACHE_HOME", "XDG_DATA_HOME", "BLOBFLOW_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(home))
    with serving(tmp_path / "target") as target:
        yield Place(source, target, tmp_path)


def test_a_set_skips_what_lacks_its_platform_and_says_so(place: Place) -> None:
    done = blobflow("sync", *place.between(), *AMD64)
    assert "3 images: 2 done, 1 skipped" in done.stdout
    assert f"skipped: {place.source}/arm:1 -> {place.target}/m/arm:1: {WHY}" in done.stdout
    assert (place.tags("arm"), place.tags("both"), place.tags("chart")) == (set(), {"1"}, {"1"})
    report = place.report("sync", *place.between(), *AMD64)
    assert [(i["status"], i["error"], i["reason"]) for i in report["images"]] == [
        ("skipped", "", WHY),
        ("present", "", ""),
        ("present", "", ""),
    ]
    assert report["totals"]["skipped"] == report["targets"][0]["skipped"] == 1
    page = place.folder / "run.html"
    blobflow("sync", *place.between(), *AMD64, "--report", str(page))
    assert WHY in page.read_text()


def test_fail_is_for_who_wants_to_know(place: Place) -> None:
    done = blobflow("sync", *place.between(), *AMD64, "--missing-platform", "fail", code=3)
    assert (
        f"failed: {place.source}/arm:1 -> {place.target}/m/arm:1: source: {place.source}/arm:1: {WHY}"
        in done.stderr
    )
    assert "1 of 3 images did not arrive" in done.stderr
    done = blobflow("plan", *place.between(), *AMD64, "--missing-platform", "fail", code=3)
    assert "1 of 3 images could not be planned" in done.stderr


@pytest.mark.parametrize("verb", ["sync", "plan", "verify"])
def test_a_set_of_which_nothing_has_the_platform_is_a_mistake_unless_skip_was_said(
    place: Place, verb: str
) -> None:
    """As a platform that was mistyped."""
    typed = ("--platform", "linux/arm46")
    done = blobflow(verb, *place.between("arm:1", "both:1"), *typed, code=3)
    assert "none of 2 images is for a platform that was chosen" in done.stderr
    blobflow(verb, *place.between("arm:1", "both:1"), *typed, "--missing-platform", "skip")


def test_extra_tags_are_not_removed_where_all_was_skipped_by_mistake(place: Place) -> None:
    blobflow("copy", f"{place.source}/both:1", f"{place.target}/m/both:old")
    clear = ("--delete-extra-tags", "--max-delete", "100%")
    blobflow("sync", *place.between("both:1"), "--platform", "linux/arm46", *clear, code=3)
    assert place.tags("both") == {"old"}


@pytest.mark.parametrize("dry", [True, False])
def test_the_tag_of_a_skipped_image_is_no_extra_tag(place: Place, dry: bool) -> None:
    for tag in ("1", "old"):
        blobflow("copy", f"{place.source}/arm:1", f"{place.target}/m/arm:{tag}")
    clear = ("--delete-extra-tags", "--max-delete", "100%", *(["--dry-run"] if dry else []))
    done = blobflow("sync", *place.between(), *AMD64, *clear)
    assert place.tags("arm") == ({"1", "old"} if dry else {"1"})
    assert f"{place.target}/m/arm:old" in done.stdout


def test_one_image_fails_unless_it_may_be_skipped(place: Place) -> None:
    digests = place.folder / "digest"
    one = ("copy", f"{place.source}/arm:1", f"{place.target}/m/arm:1", *AMD64, "--digestfile", str(digests))
    done = blobflow(*one, code=5)
    assert WHY in done.stderr
    done = blobflow(*one, "--missing-platform", "skip")
    assert "1 image: 1 skipped" in done.stdout and digests.read_bytes() == b""
    assert place.tags("arm") == set()
    done = blobflow(*one, "--missing-platform", "skip", "--dry-run")
    assert f"skipped: {WHY}" in done.stdout


def test_a_plan_shows_what_is_skipped_and_what_has_no_platform_and_applies_so(place: Place) -> None:
    lock = place.folder / "mirror.lock"
    done = blobflow("plan", *place.between(), *AMD64, "--out", str(lock))
    assert f"{place.source}/arm:1 -> {place.target}/m/arm:1: skipped: {WHY}" in done.stdout
    assert "as it is: it has no platform" in done.stdout
    assert "2, of which 0 current; 1 skipped" in done.stdout
    shown = json.loads(blobflow("plan", *place.between(), *AMD64, "--json").stdout)
    assert [(i["status"], i["reason"]) for i in shown["images"]] == [
        ("skipped", WHY),
        ("mirror", ""),
        ("mirror", ""),
    ]
    assert shown["images"][2]["platforms"] == []
    done = blobflow("apply", str(lock), "--dry-run")
    assert f"skipped: {WHY}" in done.stdout
    report = place.report("apply", str(lock))
    assert [image["status"] for image in report["images"]] == ["done", "done", "skipped"]
    assert report["images"][2]["reason"] == WHY and report["totals"]["skipped"] == 1
    blobflow("plan", *place.between(), *AMD64, "--exit-code")


@pytest.mark.parametrize(
    ("images", "defaults", "argv", "code", "status"),
    [
        ("'arm:1', 'chart:1'", "", (), 0, "skipped"),
        ("'arm:1', 'chart:1'", ", missing-platform: fail", (), 3, "failed"),
        ("'arm:1', 'chart:1'", ", missing-platform: fail", ("--missing-platform", "skip"), 0, "skipped"),
        ("{image: 'arm:1', missing-platform: fail}, 'chart:1'", "", (), 3, "failed"),
        ("{image: 'arm:1', missing-platform: skip}", ", missing-platform: fail", (), 0, "skipped"),
        ("{image: 'arm:1', missing-platform: skip}", "", ("--missing-platform", "fail"), 3, "failed"),
        ("{image: 'arm:1', missing-platform: fail, platforms: [linux/arm64]}", "", (), 0, "done"),
        ("'arm:1'", "", (), 3, "skipped"),
    ],
)
def test_a_spec_says_it_for_all_or_for_one(
    place: Place, images: str, defaults: str, argv: tuple[str, ...], code: int, status: str
) -> None:
    report = place.report("sync", place.spec(images, defaults), *argv, code=code)
    assert report["images"][0]["status"] == status


def test_another_word_in_a_spec_is_an_error(place: Place) -> None:
    done = blobflow("sync", place.spec("{image: 'arm:1', missing-platform: warn}"), code=2)
    assert "missing-platform" in done.stderr


def test_verify_says_what_was_skipped(place: Place) -> None:
    blobflow("sync", *place.between(), *AMD64)
    done = blobflow("verify", *place.between(), *AMD64, "--verify", "blobs")
    assert f"skipped: {place.target}/m/arm:1: {WHY}" in done.stdout
    assert done.stdout.count("right: ") == 2
    done = blobflow("verify", *place.between(), *AMD64, "--missing-platform", "fail", code=3)
    assert f"wrong: {place.target}/m/arm:1: " in done.stdout


def test_save_leaves_it_out(place: Place) -> None:
    bundle = place.folder / "bundle.tar"
    argv = ("save", "--from", place.source, *AMD64, "-o", str(bundle), "--images")
    done = blobflow(*argv, place.listed())
    assert "3 images: 2 done, 1 skipped" in done.stdout
    with tarfile.open(bundle) as tar:
        names = json.load(tar.extractfile("index.json") or io.BytesIO())["manifests"]
    assert len(names) == 2
    blobflow(*argv, place.listed(), "--missing-platform", "fail", code=3)
    assert "none of 1 image" in blobflow(*argv, place.listed("arm:1"), code=3).stderr


@pytest.mark.parametrize("place_of", ["oci:{0}/out:1", "oci-archive:{0}/out", "docker-archive:{0}/out"])
def test_nothing_is_written_for_an_image_that_is_skipped(place: Place, place_of: str) -> None:
    target = place_of.format(place.folder)
    done = blobflow("copy", f"{place.source}/arm:1", target, *AMD64, "--missing-platform", "skip")
    assert "1 skipped" in done.stdout
    assert not (place.folder / "out").exists()


@pytest.mark.parametrize("kind", ["local", "tar", "oci", "docker"])
def test_export_skips_too(place: Place, kind: str) -> None:
    out = place.folder / "out"
    argv = ("export", f"{place.source}/arm:1", "-o", f"type={kind},dest={out},platform=linux/amd64")
    assert WHY in blobflow(*argv, code=5).stderr
    done = blobflow(*argv, "--missing-platform", "skip")
    assert f"{WHY}" in done.stdout and not out.exists()


def test_equal_entries_of_an_index_are_one_root_file_system(place: Place) -> None:
    out = place.folder / "out"
    blobflow("export", f"{place.source}/equal:1", "-o", f"type=local,dest={out}")
    assert [each.name for each in out.iterdir()] == ["for-amd64"]


def test_what_is_no_image_has_no_root_file_system_to_export(place: Place) -> None:
    out = place.folder / "out"
    argv = ("export", f"{place.source}/chart:1", "-o", f"type=local,dest={out}")
    for more in ("", ",platform=linux/amd64"):
        done = blobflow(*argv[:-1], argv[-1] + more, code=7)
        assert "is no image's" in done.stderr and "helm.config" in done.stderr
        assert not out.exists()


def test_warm_skips_it_in_the_store_and_at_an_edge(place: Place) -> None:
    argv = ("warm", "--from", place.source, "--images", place.listed(), *AMD64, "--into-cache")
    done = blobflow(*argv)
    assert f"skipped: {place.source}/arm:1: {WHY}" in done.stdout
    assert done.stdout.count("warm: ") == 2
    blobflow(*argv, "--missing-platform", "fail", code=3)
    shown = json.loads(blobflow(*argv, "--json").stdout)
    assert [(i["status"], i["reason"]) for i in shown["images"]] == [
        ("skipped", WHY),
        ("warm", ""),
        ("warm", ""),
    ]
