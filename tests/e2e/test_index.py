"""`blobflow index` beside docker's own client: images made of Debian packages, Debian's docker-registry.

The clients are Debian's docker (20.10 in Debian 12: schema 2 only), fetched as a package and not installed,
and the machine's own, if it is another (OCI from 23 on).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.oci import Descriptor, parse_manifest
from tools import debianset, imagepush, imageset
from tools.processes import Registry, docker_registry, environment, run, skopeo

SCHEMA2, OCI = "rancher/library-busybox:1.32.1", "rancher/pause:3.1"
ARCHITECTURES = ("amd64", "arm64", "arm")
ACCEPT = {
    "Accept": "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.index.v1+json"
}
FIRST_WITH_OCI = 23

pytestmark = pytest.mark.timeout(600)  # the set and the client may have to be downloaded first


@pytest.fixture(scope="session")
def debian_docker() -> Path:
    """Debian's docker client, kept in the user's cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "blobflow-tests" / "debian-docker"
    program = folder / "usr" / "bin" / "docker"
    if not program.exists():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            package = debianset.Apt(folder / "apt", print).download([("docker.io", "amd64")])
        except imageset.ImageSetError as error:
            pytest.skip(f"needs Debian's docker client: {error}")
        subprocess.run(["dpkg-deb", "-x", str(*package.values()), str(folder)], check=True)
        shutil.rmtree(folder / "apt")
    return program


def version_of(program: str) -> int:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"^Docker version (\d+)\.", done.stdout)
    return int(found[1]) if found else 0


def own_docker() -> str:
    """The machine's own client, "" unless it knows OCI."""
    program = shutil.which("docker")
    return program if program and version_of(program) >= FIRST_WITH_OCI else ""


OWN = own_docker()
CASES = [("debian", "docker"), *([("own", "docker"), ("own", "oci")] if OWN else [])]


class Bench:
    """A registry with `docker/app:1-ARCH`, `oci/app:1-ARCH`, and `other/app:1-arm`, which is for arm64."""

    def __init__(self, registry: Registry, home: Path) -> None:
        self.registry = registry
        self.home = home

    def images(self, kind: str) -> list[str]:
        return [f"{self.registry.host}/{kind}/app:1-{architecture}" for architecture in ARCHITECTURES]

    def index(self, *words: str | Path, code: int = 0) -> Result:
        """`blobflow index` in this process, as the user whose home it is."""
        done = CliRunner(env=environment(self.home)).invoke(cli, ["index", *map(str, words)])
        assert done.exit_code == code, done.output
        return done

    def raw(self, repository: str, tag: str) -> bytes:
        status, _, raw = self.registry.ask("GET", f"/v2/{repository}/manifests/{tag}", ACCEPT)
        assert status == 200, raw
        return raw

    def docker(self, client: str, *words: str) -> str:
        done = run([client, "manifest", *words], self.home)
        assert done.code == 0, done.err
        return done.out


@pytest.fixture(scope="module")
def stocked(
    programs: None, debian_set: imageset.Layout, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    with docker_registry(tmp_path_factory.mktemp("by-hand")) as registry:
        pushing = imagepush.Registry(registry.host)
        for kind, name in (("docker", SCHEMA2), ("oci", OCI)):
            index = parse_manifest(debian_set.blob(debian_set.images[name].digest).read_bytes())
            for child in index.manifests:
                assert child.platform is not None
                architecture = child.platform.architecture
                push_image(pushing, debian_set, child, f"{kind}/app", f"1-{architecture}")
                if (kind, architecture) == ("oci", "arm64"):
                    push_image(pushing, debian_set, child, "other/app", "1-arm")
        pushing.close()
        yield registry


def push_image(
    registry: imagepush.Registry, layout: imageset.Layout, image: Descriptor, repository: str, tag: str
) -> None:
    """One image of the set under a tag of its own, without blobflow."""
    path = layout.blob(image.digest)
    for blob in parse_manifest(path.read_bytes(), image.media_type).blobs:
        registry.push(repository, blob.digest, layout.blob(blob.digest))
    registry.put(imagepush.Put(repository, tag, image.digest, image.media_type), path)


@pytest.fixture
def bench(stocked: Registry, home: Path) -> Bench:
    stocked.forget()
    return Bench(stocked, home)


@pytest.fixture
def client(request: pytest.FixtureRequest) -> str:
    return OWN if request.param == "own" else str(request.getfixturevalue("debian_docker"))


def words(raw: bytes | str) -> tuple[str, list[tuple[str, str, int, str]]]:
    """An index as its content: its kind and its images, in any order."""
    index = parse_manifest(raw.encode() if isinstance(raw, str) else raw)
    found = [(str(c.platform), c.digest, c.size, c.media_type) for c in index.manifests]
    return index.descriptor.media_type, sorted(found)


@pytest.mark.parametrize(("client", "kind"), CASES, indirect=["client"])
def test_an_index_is_the_one_that_docker_makes_of_the_images(bench: Bench, client: str, kind: str) -> None:
    host, images = bench.registry.host, bench.images(kind)
    ours, theirs = f"{host}/{kind}/app:ours", f"{host}/{kind}/app:theirs"
    bench.docker(client, "create", "--insecure", theirs, *images)
    pushed = bench.docker(client, "push", "--insecure", theirs).split()[-1]
    bench.index("create", ours, *images)
    put = bench.index("push", ours).stdout.strip()
    assert words(bench.raw(f"{kind}/app", "ours")) == words(bench.raw(f"{kind}/app", "theirs"))
    assert bench.registry.digest_of(f"{kind}/app", "ours") == put

    # docker puts them in the order of their names: in that order it is the same index, byte for byte.
    bench.index("create", ours + "-sorted", *sorted(images), "--push")
    assert bench.registry.digest_of(f"{kind}/app", "ours-sorted") == pushed

    seen = bench.docker(client, "inspect", "--insecure", ours)
    assert words(seen) == words(bench.raw(f"{kind}/app", "ours"))


def test_an_index_in_another_repository_is_mounted_and_whole_for_skopeo(bench: Bench) -> None:
    target = f"{bench.registry.host}/group/all:1"
    bench.index("create", target, *bench.images("oci"), "--push")
    requests = bench.registry.requests()
    assert requests.uploads().total() == 0
    assert {repository for repository, _ in requests.mounts_201()} == {"group/all"}
    copied = skopeo(
        "copy",
        "--all",
        "--src-tls-verify=false",
        f"docker://{target}",
        f"dir:{bench.home}/all",
        home=bench.home,
    )
    assert copied.code == 0, copied.err


def test_the_specs_and_templates_of_manifest_tool_work(bench: Bench, tmp_path: Path) -> None:
    host = bench.registry.host
    spec = tmp_path / "someimage.yml"
    entries = [
        f"  -\n    image: {host}/docker/app:1-{arch}\n"
        f"    platform:\n      architecture: {arch}\n      os: linux\n"
        for arch in ("arm64", "amd64")
    ]
    spec.write_text(
        f'image: {host}/docker/app:spec\ntags: ["1.0.0", "1.0", "1"]\nmanifests:\n{"".join(entries)}'
    )
    digest = bench.index("create", "--from-spec", spec, "--push").stdout.strip()
    tags = ("spec", "1.0.0", "1.0", "1")
    assert {bench.registry.digest_of("docker/app", tag) for tag in tags} == {digest}

    arguments = (
        *("--from-args", "--platforms", "linux/arm64,linux/amd64", "--template", f"{host}/docker/app:1-ARCH"),
        *("--target", f"{host}/docker/app:args", "--tags", "v1.0,v1", "--push"),
    )
    assert bench.index("create", *arguments).stdout.strip() == digest
    assert bench.registry.digest_of("docker/app", "v1") == digest

    missing = [arguments[0], arguments[1], "linux/arm64,linux/amd64,linux/s390x", *arguments[3:]]
    assert "has no manifest docker/app:1-s390x" in bench.index("create", *missing, code=5).stderr
    done = bench.index("create", *missing, "--ignore-missing")
    assert done.stdout.strip() == digest
    assert f"warning: {host}/docker/app:1-s390x is left out" in done.stderr


def test_a_spec_with_annotations_makes_an_oci_index_only_if_asked(bench: Bench, tmp_path: Path) -> None:
    spec = tmp_path / "annotated.yml"
    target, images = f"{bench.registry.host}/annotated/app:1", bench.images("docker")
    entries = "".join(f"  - {{image: {image}}}\n" for image in images)
    spec.write_text(f"image: {target}\nannotations: {{title: My Image}}\nmanifests:\n{entries}")
    refused = bench.index("create", "--from-spec", spec, "--push", code=2).stderr
    assert f"{target} has annotations, and a Docker list has no place for them" in refused
    bench.index("create", "--from-spec", spec, "--push", "--format", "oci")
    assert parse_manifest(bench.raw("annotated/app", "1")).annotations == {"title": "My Image"}


def mislabelled(host: str) -> list[tuple[str, Sequence[str], str]]:
    """The three ways in which scripts get it wrong: the image, what it is put in by, and the sentence."""
    own, wrong = f"{host}/oci/app:1-arm64", f"{host}/other/app:1-arm"
    return [
        (own, ("annotate", "--arch", "amd64"), "linux/amd64"),
        (wrong, ("create",), "linux/arm by its tag"),
        (wrong, ("create", "--from-args", "--platforms", "linux/arm"), "linux/arm"),
    ]


@pytest.mark.parametrize("way", range(3))
def test_mislabelled_images_are_refused_with_image_label_and_config(bench: Bench, way: int) -> None:
    host = bench.registry.host
    image, (verb, *options), label = mislabelled(host)[way]
    target = f"{host}/new/app:{way}"
    if verb == "annotate":
        bench.index("create", target, image)
        command = [verb, target, image, *options]
    elif options:
        command = [verb, *options, "--template", f"{host}/other/app:1-ARCH", "--target", target, "--push"]
    else:
        command = [verb, target, image, "--push"]
    refused = bench.index(*command, code=2)
    [line] = refused.stderr.splitlines()
    sentence = f"blobflow: {image} is labelled {label}, but its config says linux/arm64"
    assert line.startswith(sentence), line
    assert bench.registry.digest_of("new/app", str(way)) is None
    assert bench.index(*command, "--force").exit_code == 0


def test_what_is_staged_is_shown_corrected_amended_and_purged(bench: Bench) -> None:
    host = bench.registry.host
    target, (amd64, arm64, arm) = f"{host}/oci/app:staged", bench.images("oci")
    assert bench.index("create", target, amd64, arm64).stdout == f"Staged {target}: 2 images\n"
    assert "is staged already; --amend adds to it" in bench.index("create", target, arm, code=2).stderr
    bench.index("create", target, arm, "--amend", "--tags", "more")
    bench.index("annotate", target, amd64, "--variant", "v2", "--annotation", "a=b=c")
    shown = bench.index("inspect", target).stdout
    assert "linux/amd64/v2" in shown
    assert "a=b=c" in shown
    [first, *_] = json.loads(bench.index("inspect", target, "--json").stdout)["members"]
    assert (first["config"]["variant"], first["label"]["variant"]) == ("", "v2")
    raw = bench.index("inspect", target, "--raw").stdout
    assert bench.registry.digest_of("oci/app", "staged") is None, "nothing is put before push"

    put = bench.index("push", target, "--purge").stdout.strip()
    assert bench.raw("oci/app", "staged") == bench.raw("oci/app", "more") == raw.encode()
    assert put == bench.registry.digest_of("oci/app", "more")
    assert "is not staged (nothing is)" in bench.index("inspect", target, code=2).stderr
    assert "not staged" in bench.index("rm", target, code=2).stderr
    bench.index("create", target, amd64)
    bench.index("rm", target)


def test_docker_and_oci_are_not_mixed_unless_asked(bench: Bench) -> None:
    host = bench.registry.host
    images = [bench.images("docker")[0], bench.images("oci")[1]]
    target = f"{host}/mixed/app:1"
    refused = bench.index("create", target, *images, "--push", code=2).stderr
    assert f"{images[0]} is a Docker image and {images[1]} is an OCI image; say --format" in refused
    bench.index("create", target, *images)
    bench.index("push", target, code=2)
    bench.index("push", target, "--format", "oci")
    kind, entries = words(bench.raw("mixed/app", "1"))
    assert kind == "application/vnd.oci.image.index.v1+json"
    assert len({media_type for *_, media_type in entries}) == 2
