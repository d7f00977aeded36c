"""A bundle without what an older one had, loaded where the older one was."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from blobflow import cli
from blobflow.oci.sample_images import sample_set
from tests.scenarios.registries import blobs_of, fill, registries
from tools.registry.faults import Fault, RefuseMount
from tools.registry.journal import Journal


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))


async def run(*arguments: str | Path, code: int = 0) -> str:
    """Run a verb in a thread, on a loop of its own; what it said."""
    result = await asyncio.to_thread(CliRunner().invoke, cli.cli, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return result.output


async def saved(host: str, names: Sequence[str], path: Path, *options: str | Path) -> Path:
    images = path.with_suffix(".txt")
    images.write_text("\n".join(names))
    await run("save", "--from", host, "--images", images, "-o", path, *options)
    return path


def uploaded(journal: Journal, digests: set[str]) -> set[str]:
    return {digest for digest in digests if journal.uploads_of(digest)}


async def test_what_an_older_bundle_brought_elsewhere_is_mounted_from_there(tmp_path: Path) -> None:
    images = sample_set(seed=3, images=4, layer_size=4_000)
    names = list(images.images)
    old_blobs = {digest for name in names[:2] for digest in blobs_of(images, name)}
    shared = old_blobs & {digest for name in names[2:] for digest in blobs_of(images, name)}
    assert shared
    async with registries(tmp_path, ["source", "target"]) as (source, target):
        fill(source.store, images)
        old = await saved(source.host, names[:2], tmp_path / "old.tar")
        new = await saved(source.host, names, tmp_path / "new.tar", "--since", old)
        await run("load", old, "--to", target.host)
        target.journal.clear()
        await run("load", new, "--to", target.host)
        assert uploaded(target.journal, old_blobs) == set()
        for digest in shared:
            assert target.journal.mounts(digest=digest) == 2  # into both repositories that are new
        for name, index in images.images.items():
            repository, _, tag = name.partition(":")
            assert target.store.repositories.resolve(repository, tag) == index.digest


async def test_where_mounts_are_refused_it_is_read_from_there(tmp_path: Path) -> None:
    images = sample_set(seed=3, images=3, layer_size=4_000)
    names = list(images.images)
    refused = Fault("POST", "mount=", times=0, act=RefuseMount(405))
    async with registries(tmp_path, ["source", "target"]) as (source, target):
        fill(source.store, images)
        old = await saved(source.host, names[:2], tmp_path / "old.tar")
        new = await saved(source.host, names, tmp_path / "new.tar", "--since", old)
        await run("load", old, "--to", target.host)
        target.faults.add(refused)
        await run("load", new, "--to", target.host)
        for name, index in images.images.items():
            repository, _, tag = name.partition(":")
            assert target.store.repositories.resolve(repository, tag) == index.digest


@pytest.mark.parametrize("judged", ["root", "images", "all"])
async def test_nothing_is_mounted_for_what_a_policy_rejects(tmp_path: Path, judged: str) -> None:
    images = sample_set(seed=3, images=3, layer_size=4_000)
    names = list(images.images)
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "reject"}]}')
    async with registries(tmp_path, ["source", "target"]) as (source, target):
        fill(source.store, images)
        old = await saved(source.host, names[:2], tmp_path / "old.tar")
        new = await saved(source.host, names, tmp_path / "new.tar", "--since", old)
        await run("load", old, "--to", target.host)
        target.journal.clear()
        options = ("--policy", policy, "--policy-for", judged)
        await run("load", new, "--to", target.host, *options, code=3)
        assert sum(target.journal.count(method) for method in ("POST", "PATCH", "PUT")) == 0
