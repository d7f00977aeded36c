"""From a folder of deployment files to machines behind an air gap that pull what these name.

On the side with a network the files are locked and saved into one bundle. On the other side nothing but the
bundle and its list of digests is there: the bundle is loaded into a registry, or served as it is, and podman
pulls every image, by the names in the files as they were, which its configuration sends to the mirror, and by
those in the files that were rewritten. All of it has the digests that it had at first.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from tools import imageset
from tools.processes import Registry, Run, blobflow, blobflow_serve, docker_registry, run

# What is pulled, by the names in the files, and of which image of the small set each is made.
IMAGES = {
    "docker.io/library/web:2": "shop/gateway:1.0",
    "quay.io/team/api:3": "shop/cart:1.2",
    "registry.k8s.io/pause:3.9": "shop/catalog:1.1",
    "quay.io/team/tools": "shop/search:1.4",
}
SIGNED = "docker.io/library/web:2"
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  template:
    spec:
      initContainers:
      - {{name: wait, image: "quay.io/team/tools@{tools}"}}   # by its digest alone
      containers:
      - name: web
        image: web:2
      - name: api
        image: 'quay.io/team/api:3'
"""
JOB = """\
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec: {template: {spec: {containers: [{name: once, image: registry.k8s.io/pause:3.9}]}}}
"""
COMPOSE = "services:\n  web: {image: 'docker.io/library/web:2'}\n  other: {image: '${OTHER}'}\n"
# What is asked of a host beyond loopback goes to a proxy that is not there.
NO_WAY_OUT = ("env", "HTTPS_PROXY=http://127.0.0.1:1")


class Carried(NamedTuple):
    """What crosses the gap, and the digests that the images had before."""

    bundle: Path
    digests: dict[str, str]

    @property
    def pulled(self) -> list[str]:
        """The images as the files name them, whole."""
        return [f"{name}@{self.digests[name]}" if name.endswith("tools") else name for name in IMAGES]


def done(*words: str | Path, home: Path) -> Run:
    result = blobflow(*words, home=home)
    assert result.code == 0, result.err
    return result


@contextmanager
def upstreams(folder: Path, home: Path) -> Iterator[Registry]:
    """A registry that is all the hosts that the files name: what is asked of them goes through a proxy, and
    the proxy is this registry."""
    with docker_registry(folder / "upstream") as registry:
        hosts = {name.partition("/")[0] for name in IMAGES}
        config = home / "config" / "blobflow" / "config.toml"
        config.parent.mkdir(parents=True)
        config.write_text(
            "".join(
                f'[registry."{host}"]\nhttp = true\nproxy = "http://{registry.host}"\n'
                for host in sorted(hosts)
            )
        )
        yield registry


@pytest.fixture(scope="module")
def carried(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carried]:
    folder = tmp_path_factory.mktemp("gap")
    home, deploy = folder / "home", folder / "deploy"
    deploy.mkdir()
    layout = imageset.synthetic(folder / "set", seed=1)
    with upstreams(folder, home) as upstream:
        digests = {}
        for name, image in IMAGES.items():
            place = f"{upstream.host}/{name.partition('/')[2]}"
            done("copy", f"oci:{layout.path}:{image}", place, home=home)
            digests[name] = layout.images[image].digest
        (folder / "sbom.json").write_text("{}")
        signed = f"{upstream.host}/{SIGNED.partition('/')[2]}"
        done("attach", signed, folder / "sbom.json", "--artifact-type", "application/spdx+json", home=home)
        (deploy / "web.yaml").write_text(DEPLOYMENT.format(tools=digests["quay.io/team/tools"]))
        (deploy / "job.yaml").write_text(JOB)
        (deploy / "compose.yaml").write_text(COMPOSE)
        lock, bundle = folder / "images.lock", folder / "bundle.tar"
        done("images", deploy, "--lock", "-o", lock, home=home)
        told = done(
            *("save", "--images-from", lock, "--images-from", deploy, "--file", lock),
            *("-o", bundle, "--digests", "--split-size", "1MB"),
            home=home,
        )
        assert "'${OTHER}'" in told.err, "what can't be told is told"
    yield Carried(bundle, digests)


class Side(NamedTuple):
    """The other side: a registry, or a bundle that is served, and a home that knows of nothing else."""

    mirror: str
    registry: Registry
    home: Path
    folder: Path


@pytest.fixture(scope="module", params=["docker-registry", "embedded", "stick"])
def side(
    request: pytest.FixtureRequest, carried: Carried, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Side]:
    """The mirror, filled, and what belongs on its machines and in its clusters."""
    folder = tmp_path_factory.mktemp("side")
    home = folder / "home"
    home.mkdir()
    digests = carried.bundle.with_name("bundle.tar.sha256")
    checked = run(["sh", "-c", f"cd {carried.bundle.parent} && sha256sum -c {digests.name}"], home)
    assert checked.code == 0 and checked.out.count(": OK\n") > 1
    if request.param == "stick":
        with blobflow_serve(folder / "registry", bundles=[carried.bundle]) as registry:
            files = folder / "files"
            done("load", carried.bundle, "--files-to", files, "--digests", digests, home=home)
            deployments = [*files.glob("*.yaml")]
            done("rewrite", *deployments, "--to", registry.host, "-o", folder / "mirrored", home=home)
            named = ("--images-from", files / "images.lock", "--to", registry.host, "--no-upstream")
            done("nodes", *named, "--format", "podman", "-o", folder / "node", home=home)
            yield Side(registry.host, registry, home, folder)
        return
    starts = docker_registry if request.param == "docker-registry" else blobflow_serve
    with starts(folder / "registry") as registry:
        mirror = f"{registry.host}/mirror"
        done(
            *("load", carried.bundle, "--to", mirror, "--digests", digests, "--files-to", folder / "files"),
            *("--rewrite", folder / "mirrored", "--nodes", f"podman:{folder / 'node'}"),
            home=home,
        )
        yield Side(mirror, registry, home, folder)


def rewritten(side: Side) -> dict[str, str]:
    """What the rewritten files name, by what they named before."""
    found = done("images", side.folder / "mirrored", "--plain", home=side.home).out.split()
    last = {_without_tag(name).rpartition("/")[2]: name for name in found}
    return {name: last[_without_tag(name).rpartition("/")[2]] for name in IMAGES}


def _without_tag(name: str) -> str:
    bare = name.partition("@")[0]
    above, slash, last = bare.rpartition("/")
    return above + slash + last.partition(":")[0]


def test_podman_pulls_every_image_by_both_names(side: Side, carried: Carried) -> None:
    program = shutil.which("podman")
    if program is None:
        pytest.skip("needs podman (Debian: apt-get install podman)")
    home = side.home
    (home / "docker").mkdir(exist_ok=True)
    (home / "docker" / "config.json").write_text("{}")  # podman 4.3.1 wants to find one
    shutil.copytree(side.folder / "node" / "etc" / "containers", home / ".config" / "containers")
    (home / ".config" / "containers" / "registries.conf").write_text("")
    by_place = rewritten(side)
    assert all(name.startswith(f"{side.mirror}/") for name in by_place.values())
    with TemporaryDirectory(prefix="podman") as place:  # podman takes no long names
        storage = ("--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs")
        podman = [*NO_WAY_OUT, program, *storage]
        pulled = run([*podman, "pull", "--quiet", *carried.pulled], home)
        assert pulled.code == 0, pulled.err
        pulled = run([*podman, "pull", "--quiet", "--tls-verify=false", *by_place.values()], home)
        assert pulled.code == 0, pulled.err
        names = [*carried.pulled, *by_place.values()]
        known = "{{range .RepoDigests}}{{.}}\n{{end}}"
        told = run([*podman, "image", "inspect", "--format", known, *names], home)
    there = {f"{_without_tag(name)}@{carried.digests[name]}" for name in IMAGES}
    there |= {f"{_without_tag(by_place[name])}@{carried.digests[name]}" for name in IMAGES}
    assert there <= set(told.out.split()), told.out + told.err


def test_digests_are_those_of_the_other_side_and_referrers_are_found(side: Side, carried: Carried) -> None:
    by_place = rewritten(side)
    for name, place in by_place.items():
        repository = _without_tag(place).partition("/")[2]
        tag = place.removeprefix(f"{_without_tag(place)}:") if "@" not in place else carried.digests[name]
        assert side.registry.digest_of(repository, tag) == carried.digests[name]
    found = done("referrers", by_place[SIGNED], "--json", home=side.home)
    assert '"application/spdx+json"' in found.out


def test_files_come_out_as_they_went_in(side: Side, carried: Carried) -> None:
    before = carried.bundle.parent / "deploy"
    files = {path.name: path.read_bytes() for path in (side.folder / "files").iterdir()}
    assert {name: files[name] for name in ("web.yaml", "job.yaml", "compose.yaml")} == {
        path.name: path.read_bytes() for path in before.iterdir()
    }
    lock = (carried.bundle.parent / "images.lock").read_bytes()
    assert hashlib.sha256(files["images.lock"]).digest() == hashlib.sha256(lock).digest()
    text = (side.folder / "mirrored" / "web.yaml").read_text()
    assert "   # by its digest alone\n" in text and f"image: {side.mirror}/library/web:2\n" in text
