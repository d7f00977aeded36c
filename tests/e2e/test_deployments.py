"""From deployment files to a mirror, between Debian's registries: locked, mirrored, rewritten, and pulled by
skopeo under the rewritten names."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from blobflow.cli import cli
from tests.deadlines import HANGS_AFTER
from tests.e2e.pushed_images import put_image, put_index
from tools.processes import Registry, docker_registry

POD = """\
apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      initContainers:
      - {{name: wait, image: "{host}/base/tools:1"}}   # waits
      containers:
      - name: web
        image: {host}/shop/web:2
      - name: old
        image: {host}/shop/web@{old}
"""
VALUES = """\
image:
  registry: {host}
  repository: shop/api
  tag: "3"
"""
COMPOSE = """\
services:
  web: {{image: '{host}/shop/web:${{WEB:-2}}'}}
  api: {{image: '${{API}}'}}
"""


@pytest.fixture(scope="module")
def registries(
    programs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Registry, Registry]]:
    folder = tmp_path_factory.mktemp("deployments")
    with docker_registry(folder / "source") as source, docker_registry(folder / "mirror") as mirror:
        yield source, mirror


@pytest.fixture
def source(registries: tuple[Registry, Registry]) -> Registry:
    return registries[0]


@pytest.fixture
def mirror(registries: tuple[Registry, Registry]) -> Registry:
    return registries[1]


@pytest.fixture
def digests(source: Registry) -> dict[str, str]:
    """What the names of the deployment mean at first."""
    amd64, arm64 = (put_image(source, "shop/web", text=each) for each in ("web-amd64", "web-arm64"))
    return {
        "base/tools:1": put_image(source, "base/tools", "1", text="tools"),
        "shop/web:2": put_index(source, "shop/web", (amd64, arm64), "2"),
        "shop/api:3": put_image(source, "shop/api", "3", text="api"),
        "old": put_image(source, "shop/web", text="an old web"),
    }


@pytest.fixture
def folder(
    tmp_path: Path, source: Registry, digests: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The deployment, in the folder where the test is."""
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy").mkdir()
    for name, text in (("pod.yaml", POD), ("values.yaml", VALUES), ("compose.yaml", COMPOSE)):
        (tmp_path / "deploy" / name).write_text(text.format(host=source.host, old=digests["old"]))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def done(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def locked(file: Path) -> dict[str, Any]:
    return {each["image"]: each for each in yaml.safe_load(file.read_text())["images"]}


def pulled_digest(name: str) -> str:
    """What skopeo gets of a name as it stands in a file."""
    whole = name if name.count(":") > 1 or "@" in name else f"{name}:latest"
    asked = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{_for_skopeo(whole)}"],
        capture_output=True,
        timeout=HANGS_AFTER,
        check=True,
    )
    digest = subprocess.run(
        ["skopeo", "manifest-digest", "/dev/stdin"],
        input=asked.stdout,
        capture_output=True,
        timeout=HANGS_AFTER,
        check=True,
    )
    return digest.stdout.decode().strip()


def _for_skopeo(name: str) -> str:
    """Skopeo takes a tag or a digest, not both."""
    before, at, digest = name.partition("@")
    return f"{before[: before.rindex(':')]}{at}{digest}" if at and ":" in before.rpartition("/")[2] else name


def test_what_is_deployed_comes_from_the_mirror_by_the_digests_that_were_locked(
    folder: Path, source: Registry, mirror: Registry, digests: dict[str, str]
) -> None:
    done("images", "deploy", "--lock", "-o", "images.lock")
    first = (folder / "images.lock").read_bytes()
    pins = locked(folder / "images.lock")
    host = source.host
    assert {name: each["digest"] for name, each in pins.items()} == {
        f"{host}/base/tools:1": digests["base/tools:1"],
        f"{host}/shop/web:2": digests["shop/web:2"],
        f"{host}/shop/web@{digests['old']}": digests["old"],
        f"{host}/shop/api:3": digests["shop/api:3"],
    }
    web = pins[f"{host}/shop/web:2"]
    assert web["platforms"] == ["linux/amd64", "linux/arm64"]
    assert web["places"] == ["deploy/compose.yaml:2", "deploy/pod.yaml:10"]
    done("images", "deploy", "--lock", "-o", "images.lock")
    assert (folder / "images.lock").read_bytes() == first

    moved = put_image(source, "shop/web", "2", text="a newer web")
    result = done("sync", "--images-from", "images.lock", "--to", f"{mirror.host}/hub")
    assert f"{host}/shop/web:2 is now {moved}; it is locked to {digests['shop/web:2']}" in result.stderr

    right = done("verify", "--images-from", "images.lock", "--to", f"{mirror.host}/hub", "--verify", "blobs")
    assert right.stdout.count("right: ") == 4

    done("rewrite", "deploy/pod.yaml", "deploy/values.yaml", "--to", f"{mirror.host}/hub", "-o", "tags")
    done("rewrite", "deploy", "--to", f"{mirror.host}/hub", "-o", "mirrored")
    names = done("images", "mirrored", "--plain").stdout.split()
    assert len(names) == 4
    assert all(name.startswith(f"{mirror.host}/hub/") for name in names)
    pulled = {name.removeprefix(f"{mirror.host}/hub/"): pulled_digest(name) for name in names}
    assert pulled == {
        "base/tools:1": digests["base/tools:1"],
        "shop/web:2": digests["shop/web:2"],
        f"shop/web@{digests['old']}": digests["old"],
        "shop/api:3": digests["shop/api:3"],
    }
    # By digest, which a lock file and the mirror tell alike.
    by_lock = done("rewrite", "tags", "--to", f"{mirror.host}/hub", "--lock", "images.lock").stdout
    by_mirror = done("rewrite", "tags", "--to", f"{mirror.host}/hub", "--digest").stdout
    assert by_lock == by_mirror
    (folder / "by-digest.yaml").write_text(by_lock)
    assert by_lock.count("@sha256:") == 4
    again = done("rewrite", "by-digest.yaml", "--to", f"{mirror.host}/hub", "--digest")
    assert again.stdout == by_lock


def test_the_same_set_is_planned_saved_and_in_a_spec(
    folder: Path, source: Registry, mirror: Registry, digests: dict[str, str]
) -> None:
    (folder / "spec.yaml").write_text(
        f"version: 1\ndefaults: {{targets: [{mirror.host}/spec]}}\ncollect: [deploy/*.yaml]\n"
    )
    done("images", "deploy", "--lock", "-o", "images.lock")
    planned = json.loads(done("plan", "spec.yaml", "--images-from", "images.lock", "--json").stdout)
    assert sorted(image["target"].removeprefix(f"{mirror.host}/spec/") for image in planned["images"]) == [
        "base/tools:1",
        "shop/api:3",
        "shop/web:2",
        f"shop/web@{digests['old']}",
    ]
    assert {image["digest"] for image in planned["images"]} == set(digests.values())
    result = done("save", "--images-from", "images.lock", "-o", "bundle.tar")
    assert "4 images: 4 done" in result.stdout
    assert f"{source.host}/shop/api:3" in done("bundle", "ls", "bundle.tar").stdout


def test_a_platform_is_locked_and_brought_alone(folder: Path, source: Registry, mirror: Registry) -> None:
    done("images", "deploy/compose.yaml", "--lock", "-o", "whole.lock")
    done("images", "deploy/compose.yaml", "--lock", "--platform", "linux/arm64", "-o", "arm.lock")
    name = f"{source.host}/shop/web:2"
    whole, arm = locked(folder / "whole.lock")[name], locked(folder / "arm.lock")[name]
    assert arm["platforms"] == ["linux/arm64"]
    assert arm["digest"] == whole["digest"]
    assert 0 < arm["size"] < whole["size"]
    planned = json.loads(
        done("plan", "--images-from", "arm.lock", "--to", f"{mirror.host}/arm", "--json").stdout
    )
    assert [image["platforms"] for image in planned["images"]] == [["linux/arm64"]]
    none = run("images", "deploy/compose.yaml", "--lock", "--platform", "linux/riscv64", "-o", "none.lock")
    assert none.exit_code == 3
    assert f"skipped: {name}: " in none.stderr
    assert not (folder / "none.lock").exists()


def test_what_can_not_be_locked_is_told_and_the_rest_is_locked(folder: Path, source: Registry) -> None:
    (folder / "list.txt").write_text(
        f"{source.host}/base/tools:1\n{source.host}/no/such:1\n127.0.0.1:1/x:1\n"
    )
    result = run("images", "list.txt", "--lock", "-o", "images.lock", "--retry-times", "0")
    assert result.exit_code == 3
    failed = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2
    assert list(locked(folder / "images.lock")) == [f"{source.host}/base/tools:1"]
    assert result.stderr.splitlines()[-1] == "blobflow: 2 of 3 images could not be locked"
    before = (folder / "images.lock").read_bytes()
    (folder / "list.txt").write_text(f"{source.host}/no/such:1\n")
    assert run("images", "list.txt", "--lock", "-o", "images.lock").exit_code == 3
    assert (folder / "images.lock").read_bytes() == before


def test_a_digest_that_the_mirror_lacks_leaves_its_image(folder: Path, mirror: Registry) -> None:
    result = run("rewrite", "deploy/values.yaml", "--to", f"{mirror.host}/nowhere", "--digest")
    assert result.exit_code == 3
    assert result.stdout == (folder / "deploy" / "values.yaml").read_text()
    assert "shop/api + 3 can't be asked for at the mirror: " in result.stderr
