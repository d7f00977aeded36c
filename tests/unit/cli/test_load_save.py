"""`load`, `save` and `export` as a user calls them, between files alone: no network, no other programs."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from blobflow import cli
from blobflow.cli.inputs.buildx_output import ExportOutput, parse_output
from blobflow.errors import UsageError
from blobflow.oci import media
from tests.fakes.archives import (
    Entries,
    Link,
    config_of,
    digest,
    layer_of,
    podman_entries,
    tar_of,
    write,
)
from tools import imageset

ARCHITECTURES = ("amd64", "arm64", "arm")
PAUSE, TOOL = "docker.io/rancher/pause:3.1", "localhost/tool:1"
BASE = {arch: layer_of(f"base-{arch}", 40_000) for arch in ARCHITECTURES}
SHARED = layer_of("shared", 20_000)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing of the machine's; what is kept is the test's."""
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    yield tmp_path / "home"
    asyncio.set_event_loop(None)


@pytest.fixture
def small_set(tmp_path: Path) -> imageset.Layout:
    return imageset.synthetic(tmp_path / "set", seed=1, images=4, layer_size=8_000)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.cli, list(map(str, arguments)))


def done(*arguments: str | Path) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def failed(code: int, *arguments: str | Path) -> str:
    """The one sentence that a run ends with."""
    result = run(*arguments)
    lines = [line for line in result.stderr.splitlines() if line.startswith("blobflow: ")]
    assert (result.exit_code, len(lines)) == (code, 1), result.output
    return lines[0]


def of_one_platform(architecture: str, names: Sequence[str] = (PAUSE, TOOL)) -> list[Any]:
    """What `podman save -m` leaves on a machine of that kind."""
    entries = podman_entries(dict.fromkeys(names, (BASE[architecture], SHARED)))
    listed = json.loads(dict(entries)["manifest.json"])  # type: ignore[arg-type]
    config = config_of(BASE[architecture], SHARED, architecture=architecture)
    path = f"{digest(config)[7:]}.json"
    kept = [(name, content) for name, content in entries if not name.endswith(".json")]
    catalogue = json.dumps([entry | {"Config": path} for entry in listed]).encode()
    return [*kept, (path, config), ("manifest.json", catalogue)]


@pytest.fixture
def archives(tmp_path: Path) -> list[Path]:
    packed = zip(ARCHITECTURES, ("tar.gz", "tar.zst", "tar"), strict=True)
    return [write(tmp_path / f"{arch}.{pack}", of_one_platform(arch), pack) for arch, pack in packed]


class Layout:
    """What a run left in an OCI layout."""

    def __init__(self, path: Path) -> None:
        self._path = path
        index = json.loads((path / "index.json").read_bytes()) if path.exists() else {"manifests": []}
        self.roots = {
            entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"]
            for entry in index["manifests"]
        }

    def raw(self, name: str) -> bytes:
        return (self._path / "blobs" / name.replace(":", "/")).read_bytes()

    def document(self, name: str) -> Any:
        return json.loads(self.raw(self.roots.get(name, name)))

    @property
    def blobs(self) -> set[str]:
        return {f"sha256:{path.name}" for path in (self._path / "blobs" / "sha256").iterdir()}


# load


def test_archives_of_one_platform_each_become_one_index_a_name(tmp_path: Path, archives: list[Path]) -> None:
    done("load", *archives, "--to", f"oci:{tmp_path}/out")
    out = Layout(tmp_path / "out")
    assert set(out.roots) == {"rancher/pause:3.1", "library/tool:1"}
    index = out.document("rancher/pause:3.1")
    assert index["mediaType"] == media.OCI_INDEX
    assert [child["platform"]["architecture"] for child in index["manifests"]] == ["amd64", "arm", "arm64"]
    for child in index["manifests"]:
        image = out.document(child["digest"])
        config = out.document(image["config"]["digest"])
        assert config["architecture"] == child["platform"]["architecture"]
        layers = [gzip.decompress(out.raw(layer["digest"])) for layer in image["layers"]]
        assert [digest(layer) for layer in layers] == config["rootfs"]["diff_ids"]
        assert {layer["mediaType"] for layer in image["layers"]} == {media.OCI_LAYER_GZIP}


def test_the_order_of_the_archives_does_not_matter(tmp_path: Path, archives: list[Path]) -> None:
    done("load", *archives, "--to", f"oci:{tmp_path}/one")
    done("load", *reversed(archives), "--to", f"oci:{tmp_path}/two", "--cache", "off")
    assert Layout(tmp_path / "one").roots == Layout(tmp_path / "two").roots


def test_each_platform_has_a_tag_of_its_own_when_asked_for(tmp_path: Path, archives: list[Path]) -> None:
    done("load", *archives, "--to", f"oci:{tmp_path}/out", "--arch-tags")
    out = Layout(tmp_path / "out")
    children = {child["digest"] for child in out.document("rancher/pause:3.1")["manifests"]}
    tags = ("3.1-amd64", "3.1-arm", "3.1-arm64")
    assert {out.roots[f"rancher/pause:{tag}"] for tag in tags} == children


def test_a_list_chooses_and_what_is_not_there_fails_alone(tmp_path: Path, archives: list[Path]) -> None:
    (tmp_path / "list").write_text("docker.io/rancher/pause:3.1\nrancher/other:1  # not there\n")
    report = tmp_path / "report.json"
    options: list[str | Path] = ["--images", tmp_path / "list", "--report", report]
    assert "1 of 2 images" in failed(3, "load", *archives, "--to", f"oci:{tmp_path}/out", *options)
    assert set(Layout(tmp_path / "out").roots) == {"rancher/pause:3.1"}
    errors = [image["error"] for image in json.loads(report.read_bytes())["images"]]
    assert errors == ["", "source: none of the archives has rancher/other:1"]


def test_a_name_of_another_host_than_the_list_says_is_not_loaded(
    tmp_path: Path, archives: list[Path]
) -> None:
    (tmp_path / "list").write_text("tool:1\nghcr.io/rancher/pause:3.1\n")
    options: list[str | Path] = ["--to", f"oci:{tmp_path}/out", "--images", tmp_path / "list"]
    said = failed(2, "load", *archives, *options)
    assert (
        f"{tmp_path}/list line 2: rancher/pause:3.1 is wanted of ghcr.io, and {archives[0]} has {PAUSE}"
        in said
    )
    assert not (tmp_path / "out").exists()
    done("load", *archives, *options, "--any-host")
    assert set(Layout(tmp_path / "out").roots) == {"rancher/pause:3.1", "library/tool:1"}


@pytest.mark.parametrize("form", ["tar", "tar.gz"])
def test_a_list_tells_apart_what_an_archive_has_of_two_hosts(tmp_path: Path, form: str) -> None:
    names = {"docker.io/x/y:1": BASE["amd64"], "quay.io/x/y:1": BASE["arm"]}
    entries = podman_entries({name: (layer,) for name, layer in names.items()})
    archive = write(tmp_path / f"a.{form}", entries, form)
    assert "by its name with the host in --images" in failed(
        7, "load", archive, "--to", f"oci:{tmp_path}/none"
    )
    for name, layer in names.items():
        (tmp_path / "list").write_text(f"{name}\n")
        done("load", archive, "--to", f"oci:{tmp_path}/{name[:4]}", "--images", tmp_path / "list")
        places = ("--from", f"docker-archive:{archive}", "--to", f"oci:{tmp_path}/{name[:4]}-sync")
        done("sync", *places, "--images", tmp_path / "list")
        for out in (Layout(tmp_path / name[:4]), Layout(tmp_path / f"{name[:4]}-sync")):
            root = out.document("x/y:1")
            image = out.document(root["manifests"][0]["digest"]) if "manifests" in root else root
            [found] = image["layers"]
            assert gzip.decompress(out.raw(found["digest"])) == layer
    (tmp_path / "list").write_text("docker.io/x/y:1\nquay.io/x/y:1\n")
    said = failed(2, "load", archive, "--to", f"oci:{tmp_path}/none", "--images", tmp_path / "list")
    assert "list line 2: x/y:1 is wanted of quay.io here and of docker.io at" in said


def test_the_target_may_have_a_prefix_and_there_may_be_two(tmp_path: Path, archives: list[Path]) -> None:
    done("load", archives[0], "--to", f"oci:{tmp_path}/a:mirror", "--to", f"oci:{tmp_path}/b")
    assert "mirror/rancher/pause:3.1" in Layout(tmp_path / "a").roots
    assert "rancher/pause:3.1" in Layout(tmp_path / "b").roots


def test_a_platform_by_hand_counts_and_the_report_notes_it(tmp_path: Path) -> None:
    one = write(tmp_path / "one.tar", of_one_platform("amd64", [PAUSE]))
    other = write(tmp_path / "other.tar.gz", of_one_platform("arm64", [PAUSE]), "tar.gz")
    report = tmp_path / "report.json"
    options: list[str | Path] = ["--to", f"oci:{tmp_path}/out", "--report", report]
    result = done("load", one, f"{other},platform=linux/arm/v7", *options)
    taken = f"{other} was taken for linux/arm/v7, as said by hand"
    note = f"{taken}; the config of rancher/pause:3.1 says linux/arm64"
    assert json.loads(report.read_bytes())["notes"] == [note]
    assert f"note: {note}" in result.stdout
    platforms = [
        child["platform"] for child in Layout(tmp_path / "out").document("rancher/pause:3.1")["manifests"]
    ]
    assert platforms[1] == {"architecture": "arm", "os": "linux", "variant": "v7"}


def test_the_same_platform_twice_is_an_error_and_nothing_is_moved(tmp_path: Path) -> None:
    one, two = (write(tmp_path / f"{name}.tar", of_one_platform("amd64")) for name in ("one", "two"))
    said = failed(2, "load", one, two, "--to", f"oci:{tmp_path}/out")
    assert f"{one} and {two} both hold library/tool:1 for linux/amd64" in said
    assert not (tmp_path / "out").exists()


def test_an_archive_given_twice_is_an_error(tmp_path: Path, archives: list[Path]) -> None:
    assert "is given twice" in failed(2, "load", archives[0], archives[0], "--to", f"oci:{tmp_path}/out")


def test_a_second_load_reads_no_archive_and_compresses_nothing(
    tmp_path: Path, archives: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    done("load", *archives, "--to", f"oci:{tmp_path}/out")

    def begin(*_: object) -> None:
        raise AssertionError("something is being taken into the store")

    monkeypatch.setattr("blobflow.transports.archive.importer.Importer.begin", begin)
    done("load", *archives, "--to", f"oci:{tmp_path}/out")


def docker_of_today(layers: Sequence[bytes], *, packed: bool) -> Entries:
    """As docker 25 saves: an OCI layout with manifest.json; layers bare, or packed by containerd's store."""
    stored = [gzip.compress(layer) if packed else layer for layer in layers]
    config = config_of(*layers)
    kind = media.OCI_LAYER_GZIP if packed else media.OCI_LAYER_GZIP.removesuffix("+gzip")
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media.OCI_MANIFEST,
            "config": {"mediaType": media.OCI_CONFIG, "digest": digest(config), "size": len(config)},
            "layers": [{"mediaType": kind, "digest": digest(each), "size": len(each)} for each in stored],
        }
    ).encode()
    names = {"io.containerd.image.name": PAUSE, "org.opencontainers.image.ref.name": "3.1"}
    root = {
        "mediaType": media.OCI_MANIFEST,
        "digest": digest(manifest),
        "size": len(manifest),
        "annotations": names,
    }
    path = "blobs/sha256/{}".format
    listed = [
        {
            "Config": path(digest(config)[7:]),
            "RepoTags": [PAUSE],
            "Layers": [path(digest(each)[7:]) for each in stored],
        }
    ]
    return [
        *((path(digest(each)[7:]), each) for each in (*stored, config, manifest)),
        ("index.json", json.dumps({"schemaVersion": 2, "manifests": [root]}).encode()),
        ("manifest.json", json.dumps(listed).encode()),
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
    ]


@pytest.mark.parametrize("pack", ["tar", "tar.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_docker_saves_today_is_read(tmp_path: Path, pack: str, packed: bool) -> None:
    archive = write(tmp_path / f"a.{pack}", docker_of_today([BASE["amd64"]], packed=packed), pack)
    done("load", archive, "--to", f"oci:{tmp_path}/out")
    out = Layout(tmp_path / "out")
    found = out.document("rancher/pause:3.1")
    image = found if packed else out.document(found["manifests"][0]["digest"])  # its own manifest, kept
    [layer] = image["layers"]
    assert layer["mediaType"] == media.OCI_LAYER_GZIP
    assert gzip.decompress(out.raw(layer["digest"])) == BASE["amd64"]


def two_of_one_name() -> Entries:
    entries = dict(podman_entries({PAUSE: (BASE["amd64"],), "x/y:1": (BASE["arm"],)}))
    listed = json.loads(entries["manifest.json"])  # type: ignore[arg-type]
    for entry in listed:
        entry["RepoTags"] = [PAUSE]
    return list((entries | {"manifest.json": json.dumps(listed).encode()}).items())


def relisted(**changes: object) -> Entries:
    """An archive whose manifest.json says something else."""
    entries = dict(podman_entries({PAUSE: (BASE["amd64"],)}))
    [entry] = json.loads(entries["manifest.json"])  # type: ignore[arg-type]
    return list((entries | {"manifest.json": json.dumps([entry | changes]).encode()}).items())


def schema_1() -> Entries:
    config = b'{"architecture":"amd64","os":"linux"}'
    manifest = json.dumps([{"Config": "c.json", "RepoTags": [PAUSE], "Layers": []}]).encode()
    return [("c.json", config), ("manifest.json", manifest)]


def bomb(pack: str) -> bytes:
    """A tar with a file of 2 GiB of zeros, as little as that can be packed into."""
    from zstandard import ZstdCompressor

    entry = tarfile.TarInfo("blobs.tar")
    entry.size = 2 * 1024**3
    head = entry.tobuf()
    if pack == "gz":
        block = gzip.compress(bytes(64 * 1024**2), 9)
        return gzip.compress(head) + block * 32
    compress = ZstdCompressor().compress
    return compress(head) + compress(bytes(64 * 1024**2)) * 32


WHOLE = tar_of(podman_entries({PAUSE: (BASE["amd64"],)}))
BAD: dict[str, tuple[bytes, int, tuple[str, ...]]] = {
    "truncated": (WHOLE[:30_000], 8, ("is cut off",)),
    "truncated gzip": (gzip.compress(WHOLE)[:20_000], 8, ("is cut off",)),
    "a missing layer": (tar_of(relisted(Layers=["gone/layer.tar"])), 8, ("has no gone/layer.tar",)),
    "outside": (tar_of(relisted(Config="../../etc/passwd")), 7, ("'../../etc/passwd'", "outside")),
    "a link outside": (tar_of([("x", Link("../../etc/passwd"))]), 7, ("outside",)),
    "a gzip bomb": (bomb("gz"), 7, ("200 times",)),
    "a zstd bomb": (bomb("zst"), 7, ("200 times",)),
    "one name for two": (tar_of(two_of_one_name()), 7, (f"two images named {PAUSE}",)),
    "schema 1": (tar_of(schema_1()), 7, ("before docker 1.10", "schema 1")),
    "before 1.10": (tar_of([("repositories", b"{}"), ("x/json", b"{}")]), 7, ("schema 1",)),
    "something else": (tar_of([("README", b"hello")]), 7, ("no manifest.json and no index.json",)),
    "no tar": (b"hello" * 1000, 7, ("is not a tar archive",)),
    "bzip2": (b"BZh91AY&SY" + bytes(600), 8, ("damaged",)),
    "lzip": (b"LZIP" + bytes(600), 7, ("lzip -dc",)),
    "nothing": (b"", 7, ("is empty",)),
    "another layer": (WHOLE.replace(b"srv/base-amd64\0", b"srv/base-amd65\0"), 6, ("has digest",)),
    "no name": (tar_of(relisted(RepoTags=None)), 2, ("without a name", "blobflow copy docker-archive:")),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_archives_are_one_sentence_and_nothing_is_tagged(tmp_path: Path, case: str) -> None:
    content, code, words = BAD[case]
    good = write(tmp_path / "good.tar", of_one_platform("arm64", [PAUSE]))
    (tmp_path / "bad.tar").write_bytes(content)
    said = failed(code, "load", good, tmp_path / "bad.tar", "--to", f"oci:{tmp_path}/out")
    assert str(tmp_path / "bad.tar") in said
    assert [word for word in words if word not in said] == [], said
    assert not (tmp_path / "out").exists()


def test_a_layer_that_is_not_what_its_config_says_is_refused(tmp_path: Path) -> None:
    entries = [
        (path, layer_of("other", 40_000) if path == f"{digest(BASE['amd64'])[7:]}.tar" else content)
        for path, content in podman_entries({PAUSE: (BASE["amd64"],)})
    ]
    for pack in ("tar", "tar.gz"):
        archive = write(tmp_path / f"a.{pack}", entries, pack)
        assert "has digest" in failed(6, "load", archive, "--to", f"oci:{tmp_path}/out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gone.tar",), "there is no archive"),
        (("a.tar,platform=arm64",), "is not a platform"),
    ],
)
def test_files_that_are_none(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = run("load", *arguments, "--to", f"oci:{tmp_path}/out")
    assert result.exit_code == 2
    assert words in result.stderr


# save


def listed(tmp_path: Path, names: Sequence[str]) -> Path:
    path = tmp_path / "images.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def save(small_set: imageset.Layout, output: Path, *options: str | Path, names: Sequence[str] = ()) -> Result:
    images = listed(output.parent, names or list(small_set.images))
    return done("save", "--from", f"oci:{small_set.path}", "--images", images, "-o", output, *options)


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def blobs_in(path: Path) -> set[str]:
    return {f"sha256:{name.rpartition('/')[2]}" for name in contents(path) if name.startswith("blobs/")}


def roots_of(small_set: imageset.Layout) -> dict[str, str]:
    return {name: image.digest for name, image in small_set.images.items()}


def test_a_bundle_comes_back_as_it_was(tmp_path: Path, small_set: imageset.Layout) -> None:
    save(small_set, tmp_path / "bundle.tar")
    done("load", tmp_path / "bundle.tar", "--to", f"oci:{tmp_path}/out")
    assert Layout(tmp_path / "out").roots == roots_of(small_set)
    assert set(small_set.blobs) <= blobs_in(tmp_path / "bundle.tar")


def test_a_bundle_is_loaded_by_the_list_that_it_was_saved_by(
    tmp_path: Path, small_set: imageset.Layout
) -> None:
    (one, first), (two, second), *_ = small_set.images.items()
    names = [one, f"{two}@{second.digest}", f"{one.partition(':')[0]}@{first.digest}"]
    images = listed(tmp_path, names)
    done("save", "--from", f"oci:{small_set.path}", "--images", images, "-o", tmp_path / "b.tar")
    done("load", tmp_path / "b.tar", "--to", f"oci:{tmp_path}/out", "--images", images)
    assert Layout(tmp_path / "out").roots == {
        one: first.digest,
        two: second.digest,
        names[2]: first.digest,
    }
    other = listed(tmp_path, [f"{two}@{first.digest}"])
    failed(3, "load", tmp_path / "b.tar", "--to", f"oci:{tmp_path}/other", "--images", other)


def test_a_spec_s_images_of_several_sources_are_one_bundle(
    tmp_path: Path, small_set: imageset.Layout
) -> None:
    """Names are those that the spec gives them; who has no other keeps the source's, without what `sync` does
    with targets and times."""
    other = imageset.synthetic(tmp_path / "other", 11, images=2)
    (one, first), (two, second) = next(iter(small_set.images.items())), next(iter(other.images.items()))
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"version: 1\n"
        f"defaults: {{source: 'oci:{small_set.path}', every: 6h, backup: '{{{{tag}}}}-old'}}\n"
        f"images:\n"
        f"- '{one}'\n"
        f"- {{image: '{two}', source: 'oci:{other.path}', rename: {{repository: 'tools/{{name}}'}}}}\n"
    )
    done("save", spec, "-o", tmp_path / "b.tar")
    done("load", tmp_path / "b.tar", "--to", f"oci:{tmp_path}/out")
    path, _, tag = two.rpartition(":")
    renamed = f"tools/{path.rpartition('/')[2]}:{tag}"
    assert Layout(tmp_path / "out").roots == {one: first.digest, renamed: second.digest}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("save", "-o", "b.tar"), "say which images: a SPEC, --images LIST or --images-from FILE"),
        (
            ("save", "s.yaml", "--images", "l", "-o", "b.tar"),
            "give either a spec file or --from and --images",
        ),
        (("save", "--from", "docker.io", "-o", "b.tar"), "about the lines of --images"),
        (("save", "--any-host", "--images", "/dev/null", "-o", "b.tar"), "--any-host takes all images from"),
    ],
)
def test_what_is_saved_is_said_in_one_way(arguments: tuple[str, ...], words: str) -> None:
    assert words in failed(2, *arguments)


def test_the_same_images_give_the_same_bundle(tmp_path: Path, small_set: imageset.Layout) -> None:
    save(small_set, tmp_path / "one.tar")
    save(small_set, tmp_path / "two.tar", "--cache", "off", names=sorted(small_set.images, reverse=True))
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_a_bundle_in_parts_holds_everything_once_and_no_part_is_larger(
    tmp_path: Path, small_set: imageset.Layout
) -> None:
    save(small_set, tmp_path / "bundle.tar", "--split-size", "40kB")
    parts = sorted(tmp_path.glob("bundle.*.tar"))
    assert len(parts) > 3
    assert parts[0].name == "bundle.001.tar"
    assert max(part.stat().st_size for part in parts) <= 40_000
    held = [blob for part in parts for blob in blobs_in(part)]
    assert len(held) == len(set(held))
    assert all({"oci-layout", "index.json"} <= set(contents(part)) for part in parts)
    done("load", tmp_path / "bundle.tar", "--to", f"oci:{tmp_path}/out")
    assert Layout(tmp_path / "out").roots == roots_of(small_set)


def test_parts_of_an_earlier_larger_bundle_do_not_stay(tmp_path: Path, small_set: imageset.Layout) -> None:
    save(small_set, tmp_path / "bundle.tar", "--split-size", "40kB")
    before = len(list(tmp_path.glob("bundle.*.tar")))
    save(small_set, tmp_path / "bundle.tar", "--split-size", "10MB")
    assert (before > 1, len(list(tmp_path.glob("bundle.*.tar")))) == (True, 1)


def test_a_part_alone_is_told_from_a_bundle(tmp_path: Path, small_set: imageset.Layout) -> None:
    save(small_set, tmp_path / "bundle.tar", "--split-size", "40kB")
    first, *_, before, last = sorted(tmp_path.glob("bundle.*.tar"))
    assert "give all of them" in failed(2, "load", first, "--to", f"oci:{tmp_path}/out")
    told = failed(2, "load", last, "--to", f"oci:{tmp_path}/out")
    assert f"give all of them; not given: {first} to {before}" in told
    last.unlink()
    told = failed(2, "load", tmp_path / "bundle.tar", "--to", f"oci:{tmp_path}/out")
    assert f"the last part, which names them, is missing: {last} or one after it" in told
    assert not (tmp_path / "out").exists()


def test_parts_too_small_for_a_blob_are_refused_before_anything_is_read(
    tmp_path: Path, small_set: imageset.Layout
) -> None:
    images = listed(tmp_path, list(small_set.images))
    said = failed(
        2, "save", "--from", f"oci:{small_set.path}", "--images", images, "-o", tmp_path / "b.tar",
        "--split-size", "5kB",
    )  # fmt: skip
    assert "--split-size has to be" in said
    assert list(tmp_path.glob("b.*")) == []


def test_a_bundle_since_another_has_the_other_blobs_alone(tmp_path: Path, small_set: imageset.Layout) -> None:
    names = list(small_set.images)
    save(small_set, tmp_path / "old.tar", names=names[:2])
    save(small_set, tmp_path / "new.tar", "--since", tmp_path / "old.tar")
    old = {blob for name in names[:2] for blob in small_set.images[name].blobs}
    assert blobs_in(tmp_path / "new.tar") & set(small_set.blobs) == set(small_set.blobs) - old
    assert (
        "none of the archives has the blob"
        in run("load", tmp_path / "new.tar", "--to", f"oci:{tmp_path}/alone").output
    )
    done("load", tmp_path / "new.tar", tmp_path / "old.tar", "--to", f"oci:{tmp_path}/both")
    done("load", tmp_path / "old.tar", "--to", f"oci:{tmp_path}/after")
    done("load", tmp_path / "new.tar", "--to", f"oci:{tmp_path}/after")
    for where in ("both", "after"):
        assert Layout(tmp_path / where).roots == roots_of(small_set)


def test_a_bundle_of_bare_layers_is_not_taken_for_dockers(tmp_path: Path) -> None:
    archive = write(tmp_path / "a.tar", of_one_platform("amd64", [PAUSE]))
    done("load", archive, "--to", f"oci:{tmp_path}/bare", "--compress", "none")
    images = listed(tmp_path, ["rancher/pause:3.1"])
    done("save", "--from", f"oci:{tmp_path}/bare", "--images", images, "-o", tmp_path / "b.tar")
    assert "manifest.json" in contents(tmp_path / "b.tar")
    done("load", tmp_path / "b.tar", "--to", f"oci:{tmp_path}/out")
    assert Layout(tmp_path / "out").roots == Layout(tmp_path / "bare").roots


def test_what_docker_saved_is_no_bundle_to_save_since(tmp_path: Path, small_set: imageset.Layout) -> None:
    archive = write(tmp_path / "a.tar", of_one_platform("amd64", [PAUSE]))
    images = listed(tmp_path, list(small_set.images))
    options: list[str | Path] = ["--images", images, "-o", tmp_path / "b.tar", "--since", archive]
    assert "is docker's" in failed(2, "save", "--from", f"oci:{small_set.path}", *options)


def test_a_failed_save_leaves_no_bundle(tmp_path: Path, small_set: imageset.Layout) -> None:
    images = listed(tmp_path, ["shop/none:1"])
    failed(3, "save", "--from", f"oci:{small_set.path}", "--images", images, "-o", tmp_path / "b.tar")
    assert list(tmp_path.glob("b*")) == []


def test_a_save_that_ends_before_its_time_leaves_the_bundle_that_was_there(
    tmp_path: Path, small_set: imageset.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blobflow.content.streams.SMALL_BLOB", 0)  # nothing beside the largest
    save(small_set, tmp_path / "b.tar", names=list(small_set.images)[:1])
    kept = (tmp_path / "b.tar").read_bytes()
    largest = max(small_set.blobs, key=lambda blob: small_set.blobs[blob])
    small_set.blob(largest).write_bytes(bytes(small_set.blobs[largest]))
    images: list[str | Path] = ["--images", listed(tmp_path, list(small_set.images))]
    options = [*images, "-o", tmp_path / "b.tar", "--fail-fast", "--concurrency", "1"]
    failed(3, "save", "--from", f"oci:{small_set.path}", *options)
    assert (tmp_path / "b.tar").read_bytes() == kept


def test_standard_output_has_no_parts(tmp_path: Path, small_set: imageset.Layout) -> None:
    images = listed(tmp_path, list(small_set.images))
    options: list[str | Path] = ["--images", images, "-o", "-", "--split-size", "1MB"]
    assert "one file" in failed(2, "save", "--from", f"oci:{small_set.path}", *options)


# export


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("type=oci,dest=a.tar", ExportOutput("oci", dest="a.tar")),
        ("type=oci", ExportOutput("oci", dest="-")),
        ("type=oci,dest=d,tar=false,name=x", ExportOutput("oci", dest="d", name="x", tar=False)),
        ("type=tar", ExportOutput("tar", dest="-")),
        ("out", ExportOutput("local", dest="out")),
        ("-", ExportOutput("tar", dest="-")),
        (
            "type=local,dest=d,platform=linux/arm64",
            ExportOutput("local", dest="d", platforms=("linux/arm64",)),
        ),
        (
            'type=local,dest=d,"platform=linux/arm64,linux/amd64"',
            ExportOutput("local", dest="d", platforms=("linux/arm64,linux/amd64",)),
        ),
        (
            "type=local,dest=d,platform=linux/arm64,linux/amd64",
            ExportOutput("local", dest="d", platforms=("linux/arm64", "linux/amd64")),
        ),
        ("type=local,dest=d,devices=true", ExportOutput("local", dest="d", devices=True)),
        ("type=registry,name=h/r:1", ExportOutput("registry", name="h/r:1")),
        ("type=image,name=h/r:1,push=true", ExportOutput("registry", name="h/r:1")),
        ("type=cacheonly", ExportOutput("cacheonly")),
    ],
)
def test_outputs_have_buildxs_words(text: str, output: ExportOutput) -> None:
    assert parse_output(text) == output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("type=image,name=h/r:1", "type=docker,dest=-"),
        ("type=zip,dest=x", "oci, docker, tar, local"),
        ("dest=x", "no type"),
        ("type=local", "needs dest=DIR"),
        ("type=local,dest=-", "needs dest=DIR"),
        ("type=docker", "docker load"),
        ("type=registry", "needs name="),
        ("type=oci,dest=x,compression=zstd", "has no compression; it takes dest, name"),
        ("type=oci,dest=x,tar=maybe", "neither true nor false"),
    ],
)
def test_outputs_that_are_none_say_what_would_be(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_output(text)


def test_a_root_file_system_is_exported_for_each_platform(tmp_path: Path, small_set: imageset.Layout) -> None:
    reference = f"oci:{small_set.path}:shop/gateway:1.0"
    done("export", reference, "--output", f"type=local,dest={tmp_path}/all")
    assert {path.name for path in (tmp_path / "all").iterdir()} == {
        "linux_amd64",
        "linux_arm64_v8",
        "linux_arm_v7",
    }
    one = f"type=local,dest={tmp_path}/one,platform=linux/arm64"
    done("export", reference, "--output", one)
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*")}
    below = tmp_path / "all" / "linux_arm64_v8"
    assert files == {path.relative_to(below) for path in below.rglob("*")}
    done("export", reference, "--output", f"type=tar,dest={tmp_path}/one.tar,platform=linux/arm64")
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert set(tar.getnames()) == set(map(str, files))


def test_only_into_the_store_means_that_it_is_held_there(
    tmp_path: Path, home: Path, small_set: imageset.Layout
) -> None:
    done("export", f"oci:{small_set.path}:shop/gateway:1.0", "--output", "type=cacheonly")
    held = {f"sha256:{path.name}" for path in (home / "blobflow" / "blobs" / "sha256").iterdir()}
    assert set(small_set.images["shop/gateway:1.0"].blobs) <= held


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_archive_has_the_platforms_that_were_chosen(
    tmp_path: Path, small_set: imageset.Layout, kind: str
) -> None:
    out = f"type={kind},dest={tmp_path}/a.tar,name=demo:1,platform=linux/arm64"
    done("export", f"oci:{small_set.path}:shop/gateway:1.0", "--output", out)
    [entry] = json.loads(contents(tmp_path / "a.tar")["manifest.json"])
    config = json.loads(contents(tmp_path / "a.tar")[entry["Config"]])
    assert (entry["RepoTags"], config["architecture"]) == (["docker.io/library/demo:1"], "arm64")


@pytest.mark.parametrize("words", ["type=registry", "type=image,push=true"])
def test_a_registry_output_is_a_copy(tmp_path: Path, small_set: imageset.Layout, words: str) -> None:
    name = f"oci:{tmp_path}/out:copied"  # a place stands for a registry here: both are targets of a copy
    done("export", f"oci:{small_set.path}:shop/gateway:1.0", "--output", f"{words},name={name}")
    assert Layout(tmp_path / "out").roots == {"copied": small_set.images["shop/gateway:1.0"].digest}


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_read(
    tmp_path: Path, home: Path, small_set: imageset.Layout
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    reference = f"oci:{small_set.path}:shop/gateway:1.0"
    assert "is not empty" in failed(2, "export", reference, "--output", f"type=local,dest={tmp_path}/full")


def test_a_platform_that_an_image_has_not_is_an_error_and_leaves_nothing(
    tmp_path: Path, small_set: imageset.Layout
) -> None:
    out = f"type=local,dest={tmp_path}/out,platform=linux/s390x"
    result = run("export", f"oci:{small_set.path}:shop/gateway:1.0", "--output", out)
    assert (result.exit_code != 0, "linux/s390x" in result.stderr) == (True, True), result.output
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.glob(".blobflow-*")) == []


# export: layers are what the config says, and what is no file stays what it is


def layout_of(folder: Path, layers: Sequence[bytes], diff_ids: Sequence[object] | None) -> str:
    """A layout with one image; the reference of it."""
    config = {"os": "linux", "architecture": "amd64"}
    if diff_ids is not None:
        config |= {"rootfs": {"type": "layers", "diff_ids": diff_ids}}  # type: ignore[dict-item]
    blobs = [json.dumps(config).encode(), *layers]
    found = [{"mediaType": "", "digest": digest(raw), "size": len(raw)} for raw in blobs]
    found[0]["mediaType"], manifest = media.OCI_CONFIG, {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST}
    for each in found[1:]:
        each["mediaType"] = media.OCI_LAYER_GZIP
    blobs.append(json.dumps(manifest | {"config": found[0], "layers": found[1:]}).encode())
    (folder / "blobs" / "sha256").mkdir(parents=True)
    for raw in blobs:
        (folder / "blobs" / digest(raw).replace(":", "/")).write_bytes(raw)
    entry = {"mediaType": media.OCI_MANIFEST, "digest": digest(blobs[-1]), "size": len(blobs[-1])}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return f"oci:{folder}:@0"


CUT = gzip.compress(SHARED)[:-20]
LAYERS = [gzip.compress(BASE["amd64"]), gzip.compress(SHARED)]
RIGHT = [digest(BASE["amd64"]), digest(SHARED)]
UNFIT: dict[str, tuple[list[bytes], list[Any] | None, int, str]] = {
    "another layer": (LAYERS, [RIGHT[0], digest(b"x")], 6, "uncompressed, has digest"),
    "in another order": (LAYERS, RIGHT[::-1], 6, "uncompressed, has digest"),
    "a digest too few": (LAYERS, RIGHT[:1], 6, "names 1 layers"),
    "a digest too many": (LAYERS, [*RIGHT, RIGHT[0]], 6, "names 3 layers"),
    "no digests": (LAYERS, None, 6, "names 0 layers"),
    "no digest": (LAYERS, [RIGHT[0], "x"], 7, "can't be verified"),
    "a layer that is cut off": ([LAYERS[0], CUT], RIGHT, 8, "is cut off"),
    "a layer with more behind it": ([LAYERS[0], LAYERS[1] + bytes(9)], RIGHT, 8, "something behind"),
}


@pytest.mark.parametrize("kind", ["local", "tar"])
@pytest.mark.parametrize("case", UNFIT)
def test_an_image_whose_layers_are_not_those_of_its_config_is_not_exported(
    tmp_path: Path, case: str, kind: str
) -> None:
    layers, diff_ids, code, words = UNFIT[case]
    reference = layout_of(tmp_path / "in", layers, diff_ids)
    said = failed(code, "export", reference, "--output", f"type={kind},dest={tmp_path}/out")
    assert words in said
    assert {path.name for path in tmp_path.iterdir()} == {"in", "home"}
    stream = run("export", reference, "--output", "type=tar,dest=-")
    assert (stream.exit_code, stream.stdout_bytes) == (code, b"")


def test_the_report_of_an_export_says_that_it_failed_though_the_image_was_brought(tmp_path: Path) -> None:
    layers, diff_ids, code, words = next(iter(UNFIT.values()))
    reference, report = layout_of(tmp_path / "in", layers, diff_ids), tmp_path / "report.json"
    failed(code, "export", reference, "-o", f"type=local,dest={tmp_path}/out", "--report", report)
    image = json.loads(report.read_bytes())["images"][0]
    assert (image["status"], words in image["error"]) == ("failed", True)


def test_an_image_is_exported_when_all_of_it_is_right(tmp_path: Path) -> None:
    done("export", layout_of(tmp_path / "in", LAYERS, RIGHT), "--output", f"type=local,dest={tmp_path}/out")
    assert {path.name for path in (tmp_path / "out" / "srv").iterdir()} == {"base-amd64", "shared"}
    scratch = layout_of(tmp_path / "scratch", [], None)
    done("export", scratch, "--output", f"type=local,dest={tmp_path}/empty")
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("kind", ["tar", "oci", "docker"])
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path, kind: str) -> None:
    """Or a device: as root even /dev/null could be renamed over."""
    reference = layout_of(tmp_path / "in", LAYERS, RIGHT)
    os.mkfifo(pipe := tmp_path / "pipe")
    (tmp_path / "link").symlink_to(pipe)
    came: list[bytes] = []
    reader = threading.Thread(target=lambda: came.append(pipe.read_bytes()))
    reader.start()
    name = ",name=demo:1" if kind != "tar" else ""
    done("export", reference, "--output", f"type={kind},dest={tmp_path}/link{name}")
    reader.join()
    assert pipe.is_fifo()
    assert (tmp_path / "link").is_symlink()
    with tarfile.open(fileobj=io.BytesIO(came[0])) as tar:
        assert {"srv/shared" if kind == "tar" else "index.json"} <= set(tar.getnames())


def test_a_report_into_a_pipe_is_written_to_it(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.json")
    came: list[bytes] = []
    reader = threading.Thread(target=lambda: came.append(pipe.read_bytes()))
    reader.start()
    reference = layout_of(tmp_path / "in", LAYERS, RIGHT)
    done("copy", reference, f"oci:{tmp_path}/out:1", "--report", pipe)
    reader.join()
    assert pipe.is_fifo()
    assert json.loads(came[0])["images"]


def test_a_bundle_without_one_of_its_parts_is_told(tmp_path: Path, small_set: imageset.Layout) -> None:
    """In the middle; without the last one no image has a name."""
    listed = tmp_path / "list"
    listed.write_text("\n".join(small_set.images))
    place = f"oci:{small_set.path}"
    done("save", "--from", place, "--images", listed, "-o", tmp_path / "b.tar", "--split-size", "30KB")
    parts = sorted(tmp_path.glob("b.*.tar"))
    assert len(parts) > 3
    parts[1].rename(tmp_path / "aside")
    said = failed(2, "load", tmp_path / "b.tar", "--to", f"oci:{tmp_path}/out")
    assert f"are missing: {parts[1]}" in said
    (tmp_path / "aside").rename(parts[1])
    for part in parts:
        whole = part.read_bytes()
        part.write_bytes(whole[:-1024])
        assert f"{part} is cut off" in failed(8, "load", tmp_path / "b.tar", "--to", f"oci:{tmp_path}/out")
        part.write_bytes(whole)
    done("load", tmp_path / "b.tar", "--to", f"oci:{tmp_path}/out")
