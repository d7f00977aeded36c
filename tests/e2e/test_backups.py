"""Backups at a real registry: what a moving tag named is kept, at the cost that the plan says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from tests.e2e.pushed_images import put_image, tags_of
from tools.processes import Registry, docker_registry


@pytest.fixture(scope="module")
def registries(
    programs: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Registry, Registry]]:
    folder = tmp_path_factory.mktemp("backups")
    with docker_registry(folder / "source") as source, docker_registry(folder / "target") as target:
        yield source, target


def run(home: Path, *words: object) -> Result:
    return CliRunner(env={"HOME": str(home), "XDG_CACHE_HOME": ""}).invoke(cli, [str(word) for word in words])


def test_the_image_before_is_kept_the_first_one_is_not_and_pruning_leaves_it(
    registries: tuple[Registry, Registry], tmp_path: Path
) -> None:
    source, target = registries
    file = tmp_path / "regsync.yml"
    entry = {"source": f"{source.host}/app:1", "target": f"{target.host}/app:1", "type": "image"}
    file.write_text(json.dumps({"sync": [{**entry, "backup": "{{.Ref.Tag}}-old"}]}))
    seen: list[str | None] = []
    for text in ("first", "second", "third"):
        put_image(source, "app", "1", text=text)
        planned = run(tmp_path, "plan", file)
        assert ("1 kept as 1-old" in planned.stdout) is bool(seen), planned.stdout
        target.forget()
        assert run(tmp_path, "sync", file).exit_code == 0
        counts = target.requests().counts()
        assert counts["PUT manifests"] == (2 if seen else 1)
        assert counts["GET manifests"] == (1 if seen else 0)
        assert target.digest_of("app", "1-old") == (seen[-1] if seen else None)
        seen.append(target.digest_of("app", "1"))
    assert len(set(seen)) == 3

    target.forget()
    assert run(tmp_path, "sync", file, "--delete-extra-tags").exit_code == 0
    assert target.requests().counts()["PUT manifests"] == 0
    assert tags_of(target, "app") == ["1", "1-old"]


def test_copy_keeps_one_for_each_day_and_a_saved_plan_does_what_it_says(
    registries: tuple[Registry, Registry], tmp_path: Path
) -> None:
    source, target = registries
    copy = ("copy", f"{source.host}/tool:2", f"{target.host}/tool:2", "--backup", "{{tag}}-{{digest}}")
    put_image(source, "tool", "2", text="a")
    assert run(tmp_path, *copy).exit_code == 0
    first = target.digest_of("tool", "2")
    put_image(source, "tool", "2", text="b")
    assert run(tmp_path, *copy).exit_code == 0
    assert first is not None
    assert target.digest_of("tool", f"2-{first.partition(':')[2][:12]}") == first

    second = target.digest_of("tool", "2")
    put_image(source, "tool", "2", text="c")
    (tmp_path / "l").write_text("tool:2\n")
    words = ("--from", source.host, "--to", target.host, "--images", tmp_path / "l")
    assert run(tmp_path, "plan", *words, "--backup", "kept-{tag}", "--out", tmp_path / "p").exit_code == 0
    applied = run(tmp_path, "apply", tmp_path / "p")
    assert applied.exit_code == 0, applied.stderr
    assert target.digest_of("tool", "kept-2") == second
    assert target.digest_of("tool", "2") not in (first, second)


@pytest.mark.parametrize("template", ["{{tag}}", "{{tga}}-old", "other.example/app:old", "-old"])
def test_a_template_that_makes_no_backup_is_refused_before_anything_is_asked(
    template: str, tmp_path: Path
) -> None:
    done = run(tmp_path, "copy", "127.0.0.1:1/a:1", "127.0.0.1:1/b:1", "--backup", template)
    assert done.exit_code == 2
    assert done.stderr.startswith("blobflow: backup: ")
