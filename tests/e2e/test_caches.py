"""Caches between us and a registry: what was put is there, and moves once, whatever a cache still says.

nginx keeps whatever it is told to and says nothing of it; Varnish as it comes keeps a 404 for two minutes,
and tells its age.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import StartsRegistries
from tests.e2e.servers.caches import CACHES, nginx
from tests.e2e.servers.locked_registry import nginx_program
from tools import imageset
from tools.processes import Registry, blobflow, skopeo

pytestmark = pytest.mark.e2e
ACCEPT = {"Accept": "application/vnd.oci.image.index.v1+json,application/vnd.oci.image.manifest.v1+json"}
TEN_MINUTES = "proxy_cache kept; proxy_cache_valid 200 10m;"


@pytest.fixture
def registry(start_registry: StartsRegistries) -> Registry:
    return start_registry("registry")


@pytest.fixture(params=CACHES)
def cache(request: pytest.FixtureRequest, registry: Registry, tmp_path: Path) -> Iterator[str]:
    """The host of a cache before the registry."""
    program, start = CACHES[request.param]
    if program() is None:
        pytest.skip(f"needs {request.param} (Debian: apt-get install {request.param})")
    with start(tmp_path / "cache", registry.host) as host:
        yield host


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Two images of a layout, as they are named on the command line."""
    layout = imageset.synthetic(tmp_path / "set", seed=3, images=2)
    return [f"oci:{layout.path}:{name}" for name in sorted(layout.images)]


def test_what_was_put_through_a_cache_is_there_and_is_put_once(
    registry: Registry, cache: str, images: list[str], home: Path
) -> None:
    first, second = images
    seed = blobflow("copy", "--quiet", first, f"{registry.host}/app:seed", home=home)
    assert seed.code == 0, seed.err  # so that the survey asks for blobs and manifests one by one
    run = blobflow("copy", second, f"{cache}/app:1", "--verify", "blobs", home=home)
    assert run.code == 0, run.err
    assert "is behind a cache that keeps answers for too long" in run.err
    registry.forget()
    again = blobflow("copy", second, f"{cache}/app:1", "--verify", "blobs", "--audit", "all", home=home)
    assert again.code == 0, again.err
    asked = registry.requests()
    assert not asked.uploads() and not asked.opened_uploads()
    assert not asked.counts()["PUT manifests"]
    # The same blobs under another tag: none of them moves again.
    other = blobflow("copy", second, f"{cache}/app:2", home=home)
    assert other.code == 0, other.err
    assert not registry.requests().uploads()


def test_what_a_cold_repository_got_is_not_uploaded_again_under_another_tag(
    registry: Registry, cache: str, images: list[str], home: Path
) -> None:
    """A cache has kept that there is no such repository, too."""
    run = blobflow("copy", images[0], f"{cache}/app:1", home=home)
    assert run.code == 0, run.err
    registry.forget()
    # Nor by a process that remembers nothing of it.
    for tag, where in (("2", home), ("3", home / "another"), ("1", home / "third")):
        again = blobflow("copy", images[0], f"{cache}/app:{tag}", home=where)
        assert again.code == 0, again.err
    asked = registry.requests()
    assert not asked.uploads() and not asked.opened_uploads()
    assert asked.counts()["PUT manifests"] == 2


def test_a_tag_that_moves_through_a_cache_is_where_it_was_put(
    registry: Registry, cache: str, images: list[str], home: Path
) -> None:
    for image in images:
        run = blobflow("copy", image, f"{cache}/app:1", "--report", home / "report.json", home=home)
        assert run.code == 0, run.err
        (told,) = json.loads((home / "report.json").read_text())["images"]
        assert registry.digest_of("app", "1") == told["digest"]
    (home / "list").write_text("app:1\n")
    ends = ["--from", registry.host, "--to", cache, "--images", str(home / "list")]
    checked = blobflow("verify", *ends, "--verify", "content", home=home / "another")
    assert checked.code == 0, checked.err


def test_what_a_registry_lacks_in_spite_of_its_cache_is_brought_once(
    registry: Registry, images: list[str], home: Path, tmp_path: Path
) -> None:
    if nginx_program() is None:
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    with nginx(tmp_path / "cache", registry.host, TEN_MINUTES) as host:
        copied = blobflow("copy", images[0], f"{host}/app:1", "--verify", "blobs", home=home / "a")
        assert copied.code == 0, copied.err
        _, _, raw = registry.ask("GET", "/v2/app/manifests/1", ACCEPT)
        children = [each["digest"] for each in json.loads(raw)["manifests"]]
        through = Registry(host, registry.root, registry.root, registry.process)
        for digest in children:
            assert through.digest_of("app", digest) == digest
            status, _, _ = registry.ask("DELETE", f"/v2/app/manifests/{digest}")
            assert status == 202
        registry.forget()
        again = blobflow("copy", images[0], f"{host}/app:2", home=home / "b")
    assert again.code == 0, again.err
    assert "it was taken to have that, and gets it now" in again.err
    asked = registry.requests()
    puts = [each.path.rpartition("/")[2] for each in asked if each.method == "PUT" and each.status == 201]
    assert sorted(puts) == sorted([*children, "2"]), "each child once, and the tag"
    refused = [each for each in asked if each.method == "PUT" and each.status == 404]
    assert len(refused) <= 1
    assert all(registry.digest_of("app", digest) == digest for digest in children)


def test_what_a_cache_gives_as_another_client_wanted_it_is_read(
    registry: Registry, images: list[str], home: Path, tmp_path: Path
) -> None:
    if nginx_program() is None:
        pytest.skip("needs nginx (Debian: apt-get install nginx-light)")
    pushed = blobflow("copy", images[0], f"{registry.host}/app:1", home=home)
    assert pushed.code == 0, pushed.err
    packs = "gzip on; gzip_types *;"
    with (
        nginx(tmp_path / "packs", registry.host, packs) as inner,
        nginx(tmp_path / "keeps", inner, f"{TEN_MINUTES} proxy_http_version 1.1;") as host,
    ):
        # skopeo takes gzip, and what it is given is everybody's from then on.
        where = f"docker://{host}/app:1"
        taken = skopeo(
            "copy", "--all", "--src-tls-verify=false", where, f"oci:{tmp_path}/skopeo:1", home=home
        )
        assert taken.code == 0, taken.err
        copied = blobflow("copy", f"{host}/app:1", f"oci:{tmp_path}/out:1", home=home)
        assert copied.code == 0, copied.err
        through = Registry(host, registry.root, registry.root, registry.process)
        _, headers, _ = through.ask("GET", "/v2/app/manifests/1", ACCEPT)
        assert headers["content-encoding"] == "gzip"
    (entry,) = json.loads((tmp_path / "out/index.json").read_text())["manifests"]
    assert entry["digest"] == registry.digest_of("app", "1")
