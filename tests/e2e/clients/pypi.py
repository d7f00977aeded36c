"""Clients from PyPI: how each pushes and pulls, by its command where it has one, else by some Python."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path

from tests.e2e.clients.bench import (
    Bench,
    Client,
    Content,
    Json,
    Pushed,
    by_digest,
    divided,
    layers_at,
    manifest_at,
)

NOISE = random.Random(12).randbytes(5_000_000)
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
EMPTY = {"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": 0}


# python-dxf: blobs under an alias


def _dxf(bench: Bench, *arguments: str) -> bytes:
    where = {"DXF_HOST": bench.registry.host, "DXF_INSECURE": "1"}
    return bench.run(bench.program / "dxf", *arguments, variables=where)


def _push_dxf(bench: Bench) -> Pushed:
    bench.folder.mkdir(parents=True)
    (bench.folder / "noise").write_bytes(NOISE)
    _dxf(bench, "push-blob", "team/noise", "noise", "@one")
    return Pushed(("team/noise:one",), {"noise": NOISE})


def _pull_dxf(bench: Bench) -> Content:
    return {"noise": _dxf(bench, "pull-blob", "team/noise", "@one")}


# oras: files and folders as an artifact, in chunks

_ORAS_PUSH = """
import sys
from oras.client import OrasClient
OrasClient(insecure=True).push(target=sys.argv[1], files=sys.argv[2:], do_chunked=True, chunk_size=100_000)
"""
_ORAS_PULL = """
import sys
from oras.client import OrasClient
OrasClient(insecure=True).pull(target=sys.argv[1], outdir="pulled")
"""


def _push_oras(bench: Bench) -> Pushed:
    files = {"notes": "x" * 250_000, "folder/greeting": "hello\n"}
    bench.write(files)
    bench.python(_ORAS_PUSH, f"{bench.registry.host}/team/artifact:1", "notes", "folder")
    return Pushed(("team/artifact:1",), {name: text.encode() for name, text in files.items()})


def _pull_oras(bench: Bench) -> Content:
    bench.python(_ORAS_PULL, f"{bench.registry.host}/team/artifact:1")
    return files_below(bench.folder / "pulled")


# crpy: images as docker's archives


def _crpy(bench: Bench, verb: str, *arguments: str) -> None:
    bench.run(bench.program / "crpy", verb, *arguments)


def _layers_in(archive: Path) -> Content:
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.name.endswith("/layer.tar")]
        return by_digest([(tar.extractfile(member) or io.BytesIO()).read() for member in members])


def _push_crpy(bench: Bench) -> Pushed:
    base = f"http://{bench.registry.host}/shop/gateway:1.0"
    _crpy(bench, "pull", "--architecture", "linux/amd64", "--no-cache", base, "base.tar")
    _crpy(bench, "push", "base.tar", f"http://{bench.registry.host}/team/copy:1")
    return Pushed(("team/copy:1",), _layers_in(bench.folder / "base.tar"))


def _pull_crpy(bench: Bench) -> Content:
    _crpy(bench, "pull", "--no-cache", f"http://{bench.registry.host}/team/copy:1", "pulled.tar")
    return _layers_in(bench.folder / "pulled.tar")


# containerimage-py: images of several platforms between registries; in chunks, and whole

_CONTAINERIMAGE_PUSH = """
import sys
from image.containerimage import ContainerImage
for target, chunked in (("chunks", True), ("whole", False)):
    ContainerImage(sys.argv[1] + "/shop/cart:1.2").copy(
        f"{sys.argv[1]}/team/{target}:1", auth={}, chunked=chunked, chunk_size=50_000, parallel=False,
        src_http=True, dest_http=True)
"""
_CONTAINERIMAGE_PULL = """
import sys
from image.containerimage import ContainerImage
for name in ("chunks", "whole"):
    ContainerImage(f"{sys.argv[1]}/team/{name}:1").download("pulled", auth={}, http=True)
"""


def _push_containerimage(bench: Bench) -> Pushed:
    bench.python(_CONTAINERIMAGE_PUSH, bench.registry.host)
    listed = manifests_of(bench, "shop/cart:1.2")
    layers = [content for digest in listed for content in layers_at(bench.registry, digest).values()]
    return Pushed(("team/chunks:1", "team/whole:1"), by_digest(layers))


def _pull_containerimage(bench: Bench) -> Content:
    (bench.folder / "pulled").mkdir(parents=True, exist_ok=True)
    bench.python(_CONTAINERIMAGE_PULL, bench.registry.host)
    files = files_below(bench.folder / "pulled")
    return by_digest([content for name, content in files.items() if not name.endswith(".json")])


# appendlayer: one layer more; reads images only to append to them


def _append(bench: Bench, base: str, image: str) -> None:
    bench.write({"app/greeting": f"hello from {image}\n"})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(bench.folder / "app", "app")
    (bench.home / "docker" / "config.json").write_text("{}")  # where DOCKER_CONFIG is set it opens this
    bench.run(bench.program / "appendlayer", bench.registry.host, base, image, given=packed.getvalue())


def _push_appendlayer(bench: Bench) -> Pushed:
    _append(bench, "docker:1", "docker:2")
    return Pushed(("docker:2",), layers_at(bench.registry, "docker:2"))


def _pull_appendlayer(bench: Bench) -> Content:
    """Into another repository it copies what is missing there."""
    _append(bench, "docker:2", "moved:3")
    return dict(list(layers_at(bench.registry, "moved:3").items())[:-1])


# pyoci: Python programs as images upon a base


def _build(bench: Bench, base: str, image: str) -> Path:
    project = f'[project]\nname = "demo"\nversion = "1"\ndescription = "{image}"\n'
    bench.write({"pyproject.toml": project, "main.py": "print('hello')\n"})
    host, layout = bench.registry.host, bench.folder / "dist" / "image"
    names = ("--base-image", f"{host}/{base}", "--tag", f"{host}/{image}")
    bench.run(bench.program / "pyoci", "build", *names, "--no-cache", "--clean-output-dir", "--push")
    return layout


def _push_pyoci(bench: Bench) -> Pushed:
    _build(bench, "shop/gateway:1.0", "team/demo:1")
    return Pushed(("team/demo:1",), layers_at(bench.registry, "team/demo:1"))


def _pull_pyoci(bench: Bench) -> Content:
    layout = _build(bench, "team/demo:1", "team/demo-more:1")
    *below, _ = layers_at(bench.registry, "team/demo-more:1")
    return {digest: (layout / "blobs" / digest.replace(":", "/")).read_bytes() for digest in below}


# conda-oci-mirror: conda packages of both formats under one tag; its command wants conda's own hosts

_CONDA_PUSH = """
import json, os, sys
from conda_oci_mirror.package import Package
from conda_package_handling import api
source, made = os.path.abspath("source"), os.path.abspath("made")
os.mkdir(made)
for name in ("hello-1.0-0.conda", "hello-1.0-0.tar.bz2"):
    api.create(source, None, name, made)
    package = Package("team", "noarch", name, made, sys.argv[1], existing_file=os.path.join(made, name))
    package.upload()
"""
_CONDA_PULL = """
import sys
from conda_oci_mirror.oras import get_oras_client
name = sys.argv[1].partition("//")[2] + "/team/noarch/hello:1.0-0"
get_oras_client(sys.argv[1]).pull_by_media_type(name, "pulled")
"""


def _push_conda(bench: Bench) -> Pushed:
    index = {"name": "hello", "version": "1.0", "build": "0", "build_number": 0, "subdir": "noarch"}
    bench.write({"source/info/index.json": json.dumps(index), "source/bin/hello": "echo hello\n"})
    bench.python(_CONDA_PUSH, f"http://{bench.registry.host}")
    return Pushed(("team/noarch/hello:1.0-0",), files_below(bench.folder / "made"))


def _pull_conda(bench: Bench) -> Content:
    bench.python(_CONDA_PULL, f"http://{bench.registry.host}")
    return {name: file for name, file in files_below(bench.folder / "pulled").items() if "/" not in name}


def files_below(folder: Path) -> Content:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifests_of(bench: Bench, index: str) -> list[str]:
    """The images that an index lists."""
    repository, _ = divided(index)
    return [f"{repository}@{each['digest']}" for each in manifest_at(bench.registry, index)["manifests"]]


def _config_is_a_layer(manifest: Json) -> bool:
    return bool(manifest["config"]["digest"] == manifest["layers"][0]["digest"])


def _docker_about_oci(manifest: Json) -> bool:
    kinds = {each["mediaType"].partition("/vnd.")[2].partition(".")[0] for each in manifest["layers"]}
    return manifest["mediaType"] == DOCKER_MANIFEST and kinds == {"docker", "oci"}


PYPI = (
    Client("python-dxf==12.1.1", _push_dxf, _pull_dxf, _config_is_a_layer),
    Client("oras==0.2.43", _push_oras, _pull_oras, lambda made: made["config"]["size"] == len("{}")),
    Client(
        "crpy==0.4.0",
        _push_crpy,
        _pull_crpy,
        lambda made: made["mediaType"] == DOCKER_MANIFEST,
        writes={"docker-archive:pulled.tar": "team/copy:1"},
    ),
    Client(
        "containerimage-py==1.1.4",
        _push_containerimage,
        _pull_containerimage,
        lambda made: len(made["manifests"]) == 3,
        serve=("--public-url", "http://{host}"),
    ),
    Client("appendlayer==2.2", _push_appendlayer, _pull_appendlayer, _docker_about_oci, tls=True),
    Client(
        "pyoci==0.2.1",
        _push_pyoci,
        _pull_pyoci,
        lambda made: made["layers"][-1]["mediaType"].endswith(".tar"),
        writes={"oci:dist/image": "team/demo-more:1"},
        tls=True,
    ),
    Client(
        "conda-oci-mirror==0.3.0",
        _push_conda,
        _pull_conda,
        lambda made: {made["config"]["digest"]: made["config"]["size"]} == EMPTY,
    ),
)
