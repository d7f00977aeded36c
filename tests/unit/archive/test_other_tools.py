"""Layouts and archives as other tools write them, read by every verb; and what docker's archives hold."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from blobflow import cli
from blobflow.errors import UnsupportedContent
from blobflow.oci import digest_of, media
from blobflow.transports.archive.manifest_json import parse_manifest_json
from tests.fakes.archives import config_of, digest, layer_of, tar_of

Descriptor = dict[str, Any]
LAYER = layer_of("hello", 4000)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    yield
    asyncio.set_event_loop(None)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.cli, list(map(str, arguments)))


def done(*arguments: str | Path) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


class Content:
    """The blobs of a layout, and what its index.json lists."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.entries: list[Descriptor] = []

    def blob(self, raw: bytes, kind: str = media.OCI_LAYER_GZIP) -> Descriptor:
        self.blobs[digest(raw)] = raw
        return {"mediaType": kind, "digest": digest(raw), "size": len(raw)}

    def image(self, architecture: str = "amd64", config: str = media.OCI_CONFIG, **more: Any) -> Descriptor:
        layer = self.blob(gzip.compress(LAYER, mtime=0))
        about = self.blob(config_of(LAYER, architecture=architecture), config)
        return self.manifest(about, layer | more)

    def manifest(self, config: Descriptor, *layers: Descriptor) -> Descriptor:
        document = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": config, "layers": layers}
        return self.blob(json.dumps(document).encode(), media.OCI_MANIFEST)

    def index(self, *children: Descriptor) -> Descriptor:
        document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": children}
        return self.blob(json.dumps(document).encode(), media.OCI_INDEX)

    def name(self, root: Descriptor, ref_name: str, image_name: str = "") -> None:
        annotations = {"org.opencontainers.image.ref.name": ref_name}
        if image_name:
            annotations["io.containerd.image.name"] = image_name
        self.entries.append(root | {"annotations": annotations})

    @property
    def files(self) -> dict[str, bytes]:
        index = json.dumps({"schemaVersion": 2, "manifests": self.entries}).encode()
        blobs = {f"blobs/{name.replace(':', '/')}": raw for name, raw in self.blobs.items()}
        return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs}

    def layout(self, folder: Path) -> str:
        for path, raw in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(raw)
        return f"oci:{folder}"

    def archive(self, path: Path) -> str:
        path.write_bytes(tar_of(list(self.files.items())))
        return f"oci-archive:{path}"


def for_platform(child: Descriptor, architecture: str) -> Descriptor:
    return child | {"platform": {"os": "linux", "architecture": architecture}}


def roots(layout: Path) -> dict[str, str]:
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    return {each["annotations"]["org.opencontainers.image.ref.name"]: each["digest"] for each in entries}


# Several names of one image


@pytest.fixture
def two_tags() -> Content:
    """As buildx writes an image that is built with two tags; one of them is listed twice."""
    content = Content()
    root = content.image()
    for tag in ("latest", "1.0.0", "1.0.0"):
        content.name(root, tag, f"docker.io/library/app:{tag}")
    return content


@pytest.mark.parametrize("form", ["layout", "archive"])
def test_a_place_with_one_image_of_two_names_needs_none(tmp_path: Path, two_tags: Content, form: str) -> None:
    place = two_tags.layout(tmp_path / "in") if form == "layout" else two_tags.archive(tmp_path / "in.tar")
    root = two_tags.entries[0]["digest"]
    assert root in done("inspect", place).output
    assert json.loads(done("inspect", "--json", place).stdout)["digest"] == root
    for number, source in enumerate((place, f"{place}:1.0.0", f"{place}:latest", f"{place}:app:1.0.0")):
        done("copy", source, f"oci:{tmp_path}/out:{number}")
    (tmp_path / "list").write_text("app:1.0.0\napp:latest\n")
    listed_there = ("--from", place, "--images", tmp_path / "list")
    for verb in ("plan", "sync", "verify"):
        done(verb, *listed_there, "--to", f"oci:{tmp_path}/out")
    assert set(roots(tmp_path / "out").values()) == {root} and len(roots(tmp_path / "out")) == 6
    done("save", *listed_there, "-o", tmp_path / "saved.tar")
    done("export", place, "-o", f"type=tar,dest={tmp_path}/rootfs.tar")
    with tarfile.open(tmp_path / "rootfs.tar") as tar:
        assert "srv/hello" in tar.getnames()


def test_load_keeps_both_names(tmp_path: Path, two_tags: Content) -> None:
    two_tags.archive(tmp_path / "in.tar")
    done("load", tmp_path / "in.tar", "--to", f"oci:{tmp_path}/out")
    root = two_tags.entries[0]["digest"]
    assert roots(tmp_path / "out") == {"library/app:latest": root, "library/app:1.0.0": root}


def test_a_signature_beside_them_goes_with_them_and_another_image_without_a_name_is_asked_about(
    tmp_path: Path, two_tags: Content
) -> None:
    proof = two_tags.blob(b"proof", "application/x-proof")
    document = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": proof, "layers": []}
    subject = {key: two_tags.entries[0][key] for key in ("mediaType", "digest", "size")}
    signature = json.dumps(document | {"subject": subject}).encode()
    two_tags.entries.append(two_tags.blob(signature, media.OCI_MANIFEST))
    two_tags.archive(tmp_path / "in.tar")
    done("load", tmp_path / "in.tar", "--to", f"oci:{tmp_path}/out")
    assert (tmp_path / "out/blobs/sha256" / digest_of(signature)[7:]).exists()
    two_tags.entries.append(two_tags.image("arm64"))
    two_tags.archive(tmp_path / "in.tar")
    result = run("load", tmp_path / "in.tar", "--to", f"oci:{tmp_path}/out")
    assert (result.exit_code, "has an image without a name" in result.stderr) == (2, True)


def test_two_images_of_one_name_are_told_with_the_choices(tmp_path: Path) -> None:
    content = Content()
    for architecture, name in (("amd64", "app"), ("arm64", "web")):
        content.name(content.image(architecture), "latest", f"docker.io/library/{name}:latest")
    place = content.layout(tmp_path / "in")
    result = run("copy", f"{place}:latest", f"oci:{tmp_path}/out:x")
    assert result.exit_code == 7
    choices = "docker.io/library/app:latest, docker.io/library/web:latest"
    assert f"has 2 images named latest; write {place}:NAME with one of {choices}" in result.stderr
    done("copy", f"{place}:web:latest", f"oci:{tmp_path}/out:x")
    assert roots(tmp_path / "out") == {"x": content.entries[1]["digest"]}


# A part of an index


@pytest.fixture
def part() -> Content:
    """As `ctr images export` leaves it: the index is whole, and one platform's image is there."""
    content = Content()
    here, gone = content.image("amd64"), content.image("arm64")
    content.name(content.index(for_platform(here, "amd64"), for_platform(gone, "arm64")), "app:1")
    del content.blobs[gone["digest"]]
    return content


def test_load_tells_of_the_signatures_of_an_index_that_becomes_another(tmp_path: Path, part: Content) -> None:
    root = part.entries[0]
    proof = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": part.blob(b"{}"), "layers": []}
    subject = {key: root[key] for key in ("mediaType", "digest", "size")}
    signature = part.blob(json.dumps({**proof, "subject": subject}).encode(), media.OCI_MANIFEST)
    part.entries.append(signature)
    part.name(by_cosign := part.manifest(part.blob(b"{}")), f"{root['digest'].replace(':', '-')}.sig")
    part.archive(tmp_path / "in.tar")
    result = done("load", tmp_path / "in.tar", "--to", f"oci:{tmp_path}/out")
    assert "2 referrers, 2 of them left" in result.output
    for each in (signature, by_cosign):
        said = (
            f"left: {each['digest']} of oci:{tmp_path}/out:library/app:1: its subject is not at the target,"
        )
        assert f"{said} another manifest was made of it" in result.output
    assert roots(tmp_path / "out").keys() == {"library/app:1"}
    result = done("load", tmp_path / "in.tar", "--to", f"oci:{tmp_path}/off", "--referrers", "off")
    assert "referrer" not in result.output


@pytest.mark.parametrize("form", ["layout", "archive"])
def test_of_an_index_what_is_there_goes_on_and_the_index_stays(
    tmp_path: Path, part: Content, form: str
) -> None:
    place = part.layout(tmp_path / "in") if form == "layout" else part.archive(tmp_path / "in.tar")
    result = done("copy", place, f"oci:{tmp_path}/out:1")
    root = part.entries[0]["digest"]
    said = (
        f"{place} has only a part of its index {root}, linux/amd64 goes on: a manifest that it does not have"
    )
    assert result.stderr.count(f"warning: {said} is left out") == 1
    assert roots(tmp_path / "out") == {"1": root}
    done("copy", "--verify", "content", f"oci:{tmp_path}/out:1", f"oci-archive:{tmp_path}/again.tar:1")
    done("export", place, "-o", f"type=tar,dest={tmp_path}/rootfs.tar")
    done("copy", place, f"docker-archive:{tmp_path}/d.tar:app:1")
    pruned = done("copy", "--platform", "linux/amd64", "--index", "prune", place, f"oci:{tmp_path}/p:1")
    assert "warning" not in pruned.stderr  # what was not asked for is not missed
    assert roots(tmp_path / "p")["1"] != root


def test_load_takes_what_is_there_as_well(tmp_path: Path, part: Content) -> None:
    part.archive(tmp_path / "in.tar")
    result = done("load", tmp_path / "in.tar", "--to", f"oci:{tmp_path}/out")
    assert result.output.count("has 1 of the 2 images in the index of library/app:1") == 1


def test_attestations_go_with_their_images(tmp_path: Path) -> None:
    content = Content()
    here, gone = content.image("amd64"), content.image("arm64")
    proofs = [content.image("unknown"), content.image("none")]
    mentions = [
        proof | {"annotations": {"vnd.docker.reference.digest": image["digest"]}}
        for proof, image in zip(proofs, (here, gone), strict=True)
    ]
    content.name(content.index(for_platform(here, "amd64"), for_platform(gone, "arm64"), *mentions), "app:1")
    del content.blobs[gone["digest"]]
    done("copy", content.layout(tmp_path / "in"), f"oci:{tmp_path}/out:1")
    assert (tmp_path / "out/blobs/sha256" / proofs[0]["digest"][7:]).exists()
    assert not (tmp_path / "out/blobs/sha256" / proofs[1]["digest"][7:]).exists()


@pytest.mark.parametrize("lost", ["all images", "a layer", "what was asked for"])
def test_what_has_nothing_left_of_it_fails(tmp_path: Path, part: Content, lost: str) -> None:
    root = json.loads(part.blobs[part.entries[0]["digest"]])
    image = root["manifests"][0]["digest"]
    if lost == "all images":
        del part.blobs[image]
    elif lost == "a layer":
        del part.blobs[json.loads(part.blobs[image])["layers"][0]["digest"]]
    asked = ("--platform", "linux/arm64") if lost == "what was asked for" else ()
    result = run("copy", *asked, part.layout(tmp_path / "in"), f"oci:{tmp_path}/out:1")
    assert (result.exit_code, "has no" in result.stderr) == (5, True), result.output


# docker-archive


def listed(path: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    with tarfile.open(path) as tar:
        found = [tar.extractfile(name) for name in ("manifest.json", "repositories")]
        return tuple(json.load(file) for file in found if file)


def test_repositories_tell_the_top_layer_of_each_tag(tmp_path: Path) -> None:
    content = Content()
    one, two = content.image("amd64"), content.image("arm64")
    names = {
        "docker.io/library/app:1": one,
        "app:2": two,
        "docker.io/team/web:1": one,
        "127.0.0.1:5000/x/y:1": two,
    }
    for name, root in names.items():
        content.name(root, name)
    place = content.layout(tmp_path / "in")
    (tmp_path / "list").write_text("\n".join(names))
    done(
        "sync",
        "--any-host",
        "--from",
        place,
        "--to",
        f"docker-archive:{tmp_path}/d.tar",
        "--images",
        tmp_path / "list",
    )
    _, repositories = listed(tmp_path / "d.tar")
    top = digest(gzip.compress(LAYER, mtime=0))[7:]
    assert all(layer == top for tags in repositories.values() for layer in tags.values())
    assert {"1", "2"} == set(repositories["app"]) and set(repositories["team/web"]) == {"1"}
    with tarfile.open(tmp_path / "d.tar") as tar:
        assert f"blobs/sha256/{top}" in tar.getnames()


def test_a_bare_word_is_a_repository_for_docker(tmp_path: Path, two_tags: Content) -> None:
    done("copy", two_tags.layout(tmp_path / "in"), f"docker-archive:{tmp_path}/d.tar:mine")
    [image], repositories = listed(tmp_path / "d.tar")
    assert image["RepoTags"] == ["docker.io/library/mine:latest"] and set(repositories) == {"mine"}


@pytest.mark.parametrize("name", ["UPPER", "a//b:1", "app:-x"])
def test_a_name_that_docker_does_not_take_is_refused(tmp_path: Path, two_tags: Content, name: str) -> None:
    result = run("copy", two_tags.layout(tmp_path / "in"), f"docker-archive:{tmp_path}/d.tar:{name}")
    assert result.exit_code == 2 and f"d.tar:{name} is no name for docker" in result.stderr, result.output
    assert not (tmp_path / "d.tar").exists()


def test_an_image_without_layers_has_no_top_one(tmp_path: Path) -> None:
    content = Content()
    about = content.blob(config_of(), media.OCI_CONFIG)
    content.name(content.manifest(about), "app:1")
    done("copy", content.layout(tmp_path / "in"), f"docker-archive:{tmp_path}/d.tar")
    catalogue, repositories = listed(tmp_path / "d.tar")
    assert (len(catalogue), repositories) == (1, {})


NOT_DOCKERS = {
    "an artifact": "it is an artifact, no image that docker can load (its config is application/vnd.x)",
    "an index of artifacts": "it is an index of which docker can load nothing",
    "an attestation": "it is an artifact, no image that docker can load (a layer is application/in-toto+json"
    ")",
    "an index of attestations": "it is an index of which docker can load nothing",
    "a foreign layer": "a layer of it is kept elsewhere (urls)",
}


def not_dockers(content: Content, case: str) -> Descriptor:
    if case == "a foreign layer":
        kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        return content.image(mediaType=kind, urls=["https://elsewhere.example/layer"])
    attests = "attestation" in case
    artifact = content.image(
        **({"mediaType": "application/in-toto+json"} if attests else {"config": "application/vnd.x"})
    )
    return content.index(artifact) if case.startswith("an index") else artifact


@pytest.mark.parametrize("case", NOT_DOCKERS)
def test_what_docker_can_not_load_is_refused_before_anything_is_written(tmp_path: Path, case: str) -> None:
    content = Content()
    root = not_dockers(content, case)
    content.name(root, "x:1")
    place, target = content.layout(tmp_path / "in"), tmp_path / "out" / "d.tar"
    target.parent.mkdir()
    result = run("copy", place, f"docker-archive:{target}")
    assert result.exit_code == 7
    assert (
        f"docker-archive:{target} can't hold {root['digest']}: {NOT_DOCKERS[case]}; write it to"
        in result.stderr
    )
    assert list(target.parent.iterdir()) == []
    done("copy", place, f"oci-archive:{target}")


def test_of_a_set_the_others_go_on_and_a_plan_says_so(tmp_path: Path) -> None:
    content = Content()
    content.name(not_dockers(content, "an artifact"), "chart:1")
    content.name(content.image(), "app:1")
    (tmp_path / "list").write_text("chart:1\napp:1\n")
    ends = ("--from", content.layout(tmp_path / "in"), "--to", f"docker-archive:{tmp_path}/d.tar")
    planned = run("plan", *ends, "--images", tmp_path / "list")
    assert planned.exit_code == 3
    assert planned.output.count("it is an artifact, no image that docker can load") == 1
    assert not (tmp_path / "d.tar").exists()
    result = run("sync", *ends, "--images", tmp_path / "list")
    assert (result.exit_code, "1 done, 1 failed" in result.output) == (3, True), result.output
    assert [image["RepoTags"] for image in listed(tmp_path / "d.tar")[0]] == [["docker.io/library/app:1"]]


# manifest.json


def catalogued(entry: str | Mapping[str, object]) -> bytes:
    return (f"[{entry}]" if isinstance(entry, str) else json.dumps([entry])).encode()


@pytest.mark.parametrize(
    "entry",
    [
        {"Config": "c", "RepoTags": ["app:1"], "Layers": ["l"]},
        {"config": "c", "repoTags": ["app:1"], "layers": ["l"]},
        {
            "CONFIG": "c",
            "REPOTAGS": ["app:1"],
            "LAYERS": ["l"],
            "Parent": None,
            "LayerSources": {"x": {"Size": 1}},
        },
        {"config": "c", "repotags": ["app:1", None, "app:1"], "layer\u017f": ["l"], "signature": "x"},
    ],
)
def test_keys_are_read_in_any_case(entry: Mapping[str, object]) -> None:
    [image] = parse_manifest_json(catalogued(entry), "a.tar")
    assert (image.names, image.config, image.layers) == (("app:1",), "c", ("l",))


@pytest.mark.parametrize("absent", ['"RepoTags":null', '"repoTags":null,"layers":null', '"x":{"Config":1}'])
def test_a_null_is_an_absent_field(absent: str) -> None:
    [image] = parse_manifest_json(catalogued(f'{{"Config":"c",{absent}}}'), "a.tar")
    assert (image.names, image.layers) == ((), ())
    assert parse_manifest_json(b"null", "a.tar") == []


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'[{"Config":"c","config":"d"}]', "has 'Config' and 'config'"),
        (b'[{"layers":[],"Config":"c","Layers":["l"]}]', "has 'layers' and 'Layers'"),
        (b'[{"Config":"c","Config":"c"}]', "has 'Config' and 'Config'"),
        (b'[{"repotags":null,"Config":"c","RepoTags":["x:1"]}]', "has 'repotags' and 'RepoTags'"),
        (b'[{"Config":null}]', "missing required field `Config`"),
        (b"[null]", "no object"),
        (b'{"Config":"c"}', "no list"),
        (b'[{"Config":"c","Layers":[null]}]', "Expected `str`"),
        (b'[{"Config":"\xff"}]', "manifest.json is not"),
        (b'[{"Config":"\\ud800"}]', "manifest.json is not"),
        ("\ufeff[]".encode(), "manifest.json is not"),
        (b'[{"Config":NaN}]', "manifest.json is not"),
    ],
)
def test_what_could_mean_two_things_is_refused(raw: bytes, words: str) -> None:
    with pytest.raises(UnsupportedContent, match=words) as raised:
        parse_manifest_json(raw, "a.tar")
    assert "a.tar" in str(raised.value) and "\n" not in str(raised.value)


def test_an_archive_with_lower_case_keys_is_read_by_every_verb(tmp_path: Path) -> None:
    raw = catalogued({"config": "c.json", "repoTags": ["me/app:1", "me/app:2"], "layers": ["l.tar"]})
    entries = [("c.json", config_of(LAYER)), ("manifest.json", raw), ("l.tar", LAYER)]
    (tmp_path / "a.tar").write_bytes(tar_of(entries))
    place = f"docker-archive:{tmp_path}/a.tar"
    for name in ("", ":me/app:1", ":me/app:2"):
        done("inspect", f"{place}{name}")
    done("copy", place, f"oci:{tmp_path}/out:x")
    done("load", tmp_path / "a.tar", "--to", f"oci:{tmp_path}/out")
    assert set(roots(tmp_path / "out")) == {"x", "me/app:1", "me/app:2"}


# Layers as umoci and others write them


def bare_layer(*, padded: bool = False, ended: bool = False, size: int = 700) -> bytes:
    """A tar of one file, whose last block may not be filled up, and that may have no end."""
    out = io.BytesIO()
    info = tarfile.TarInfo("etc/name")
    info.size = size
    out.write(info.tobuf(tarfile.PAX_FORMAT) + b"x" * size)
    out.write(bytes(-size % 512) if padded else b"")
    out.write(bytes(1024) if ended else b"")
    return out.getvalue()


@pytest.mark.parametrize("form", ["oci", "docker", "docker.gz"])
@pytest.mark.parametrize(
    "layer",
    [
        bare_layer(),
        bare_layer(padded=True),
        bare_layer(size=512),
        bare_layer(size=0),
        bare_layer(padded=True, ended=True),
    ],
    ids=["neither", "no end", "exact", "empty file", "both"],
)
def test_a_layer_without_padding_and_end_is_unpacked(tmp_path: Path, layer: bytes, form: str) -> None:
    content = Content()
    if form == "oci":
        about = content.blob(config_of(layer), media.OCI_CONFIG)
        content.name(content.manifest(about, content.blob(gzip.compress(layer))), "app:1")
        place = content.layout(tmp_path / "in")
    else:
        raw = catalogued({"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l.tar"]})
        tar = tar_of([("l.tar", layer), ("c.json", config_of(layer)), ("manifest.json", raw)])
        (tmp_path / "in.tar").write_bytes(gzip.compress(tar) if form == "docker.gz" else tar)
        place = f"docker-archive:{tmp_path}/in.tar"
        done("load", tmp_path / "in.tar", "--to", f"oci:{tmp_path}/loaded")
    done("export", place, "-o", f"type=tar,dest={tmp_path}/rootfs.tar")
    with tarfile.open(tmp_path / "rootfs.tar") as tar_made:
        assert tar_made.getnames()[-1] == "etc/name"
    done("export", place, "-o", tmp_path / "rootfs")
    assert (tmp_path / "rootfs/etc/name").is_file()


@pytest.mark.parametrize("cut", [300, 512 + 600])
def test_a_layer_that_is_cut_inside_is_still_an_error(tmp_path: Path, cut: int) -> None:
    """Its digest is that of what is there, so only the tar tells."""
    layer = bare_layer(padded=True)[:cut]
    raw = catalogued({"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["l.tar"]})
    (tmp_path / "in.tar").write_bytes(
        tar_of([("l.tar", layer), ("c.json", config_of(layer)), ("manifest.json", raw)])
    )
    result = run("export", f"docker-archive:{tmp_path}/in.tar", "-o", f"type=tar,dest={tmp_path}/rootfs.tar")
    assert result.exit_code in (7, 8) and not (tmp_path / "rootfs.tar").exists(), result.output
