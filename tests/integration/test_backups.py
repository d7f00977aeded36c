"""Backups: what a target's tag names is kept under another tag before it names something else."""

from __future__ import annotations

import msgspec
import pytest

from blobflow.content import Site
from blobflow.engine.backups import WORDS, backup_tag, backup_words, is_backup
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.preview import preview_images
from blobflow.engine.plan.steps import Backup, Put
from blobflow.engine.policy import Policy
from blobflow.errors import BlobflowError, Denied, InvalidConfig
from blobflow.oci import Digest, Reference, digest_of
from blobflow.planfile import load_plan, save_plan
from tests.fakes.memory_registry import MemoryRegistry
from tests.library import plan_pairs
from tests.scenarios.mirror import MirrorScenario
from tests.scenarios.saved_plans import applied, moved, put_something, saved_by, statuses

KEPT = "{tag}-old"


def kept_pairs(bench: MirrorScenario, template: str = KEPT) -> list[Pair]:
    return [msgspec.structs.replace(pair, backup=template) for pair in bench.pairs]


def site_of(pair: Pair) -> Site:
    return Site(pair.target.host, pair.target.repository)


def named(registry: MemoryRegistry, pair: Pair, tag: str = "") -> Digest | None:
    return registry.tags.get((site_of(pair), tag or pair.target.tag))


async def test_what_is_overwritten_is_kept_and_nothing_else_is(bench: MirrorScenario) -> None:
    """The tag of one image names something else, of one it is right, and two have none."""
    target, (first, second, *rest) = bench.target(), kept_pairs(bench)
    await bench.mirror(pairs=[second])
    old = put_something(target, first.target)
    bench.forget_calls()
    report = await bench.mirror(pairs=[first, second, *rest])
    assert statuses(report) == ["done", "present", "done", "done"]
    assert named(target, first, f"{first.target.tag}-old") == old
    assert named(target, first) not in (None, old)
    assert [tag for _, tag in target.tags if tag.endswith("-old")] == [f"{first.target.tag}-old"]
    assert target.calls["put", old] == 1
    assert target.calls["read", old] == 1

    bench.forget_calls()
    again = await bench.mirror(pairs=[first, second, *rest])
    assert statuses(again) == ["present"] * 4
    assert moved(target) == 0
    assert named(target, first, f"{first.target.tag}-old") == old


async def test_a_backup_is_a_step_that_the_plan_prices_and_shows(bench: MirrorScenario) -> None:
    target, pairs = bench.target(), kept_pairs(bench)
    old = put_something(target, pairs[0].target)
    plain = (await plan_pairs(bench.pairs, bench.services())).cost
    planned = await plan_pairs(pairs, bench.services())
    (step,) = [each for each in planned.plan.steps if isinstance(each, Backup)]
    tag = pairs[0].target.tag
    assert (step.manifest.digest, step.tag, step.kept) == (old, tag, f"{tag}-old")
    assert planned.cost.manifests == plain.manifests + 1
    assert planned.cost.bytes_to_write == plain.bytes_to_write + step.manifest.size
    assert planned.cost.requests["target"] == plain.requests["target"] + 3
    assert [each.backup for each in preview_images(planned)] == [f"{tag}-old", "", "", ""]
    assert old not in [each.manifest.digest for each in planned.plan.steps if isinstance(each, Put)]


@pytest.mark.parametrize("call", ["read", "put"])
async def test_where_the_backup_fails_the_tag_is_not_overwritten(bench: MirrorScenario, call: str) -> None:
    target, pairs = bench.target(), kept_pairs(bench)
    old = put_something(target, pairs[0].target)

    def fault(made: str, site: Site, name: str) -> BlobflowError | None:
        return Denied("no backups here", status=403) if (made, name) == (call, old) else None

    target.fault = fault
    report = await bench.mirror(pairs=pairs)
    assert statuses(report) == ["failed", "done", "done", "done"]
    assert report.images[0].error == "target: no backups here"
    assert named(target, pairs[0]) == old


async def test_where_nothing_is_overwritten_nothing_is_kept(bench: MirrorScenario) -> None:
    target, pairs = bench.target(), kept_pairs(bench)
    old = put_something(target, pairs[0].target)
    report = await bench.mirror(Policy(no_overwrite=True), pairs)
    assert statuses(report) == ["failed", "done", "done", "done"]
    assert (named(target, pairs[0]), target.count("put") > 0) == (old, True)
    assert not [tag for _, tag in target.tags if tag.endswith("-old")]


async def test_what_the_tag_names_at_the_time_of_the_step_is_kept(bench: MirrorScenario) -> None:
    """A plan is applied after the tag moved on: what would be lost is what it names now."""
    target, pairs = bench.target(), kept_pairs(bench)
    await bench.mirror(pairs=pairs[1:2])
    put_something(target, pairs[0].target)
    saved = await saved_by(bench, pairs=pairs)
    assert any(isinstance(step, Backup) for step in saved.steps)
    raw = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[ ]}'
    now = digest_of(raw)
    target.manifests[site_of(pairs[0])][now] = ("application/vnd.oci.image.index.v1+json", raw)
    target.tags[site_of(pairs[0]), pairs[0].target.tag] = now
    assert "failed" not in statuses(await applied(bench, saved))
    assert named(target, pairs[0], f"{pairs[0].target.tag}-old") == now

    assert statuses(await applied(bench, saved)) == ["present"] * 4
    assert moved(target) == 0
    assert named(target, pairs[0], f"{pairs[0].target.tag}-old") == now


async def test_a_saved_plan_keeps_nothing_where_the_tag_is_gone_or_right_by_now(
    bench: MirrorScenario,
) -> None:
    target, pairs = bench.target(), kept_pairs(bench)
    for pair in pairs[:2]:
        put_something(target, pair.target)
    saved = await saved_by(bench, pairs=pairs)
    del target.tags[site_of(pairs[0]), pairs[0].target.tag]
    await bench.mirror(pairs=bench.pairs[1:2])
    assert "failed" not in statuses(await applied(bench, saved))
    assert not [tag for _, tag in target.tags if tag.endswith("-old")]


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("old", "the backup of target/{two} would be old, as that of {one}; put {{{{tag}}}} into it"),
        ("{tag}x", "the backup of target/{app}:1 would be 1x, which is mirrored itself"),
    ],
)
async def test_a_backup_that_another_image_would_overwrite_fails_its_image(
    bench: MirrorScenario, template: str, sentence: str
) -> None:
    target = bench.target()
    name = bench.pairs[0].source
    pairs = [
        Pair(name, Reference("target", "app", tag), backup=template)
        for tag in (("1", "2") if template == "old" else ("1", "1x"))
    ]
    old = put_something(target, pairs[0].target)
    if template == "old":
        raw = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[ ]}'
        target.manifests[Site("target", "app")][digest_of(raw)] = (
            "application/vnd.oci.image.index.v1+json",
            raw,
        )
        target.tags[Site("target", "app"), "2"] = digest_of(raw)
    report = await bench.mirror(pairs=pairs)
    (failed,) = [image for image in report.images if image.status == "failed"]
    assert sentence.format(one="1", two="app:2", app="app") in failed.error
    assert target.tags[Site("target", "app"), "1"] != old or template != "old"


async def test_a_backup_with_a_word_that_stands_for_nothing_fails_its_image(bench: MirrorScenario) -> None:
    target, (first, second, *_) = bench.target(), kept_pairs(bench, "{host}-old")
    old = put_something(target, first.target)
    report = await bench.mirror(pairs=[first, msgspec.structs.replace(second, backup="")])
    assert statuses(report) == ["failed", "done"]
    assert report.images[0].error == "target: {host} in the backup '{host}-old' stands for nothing"
    assert named(target, first) == old


async def test_a_plan_that_keeps_what_no_image_says_is_refused(bench: MirrorScenario) -> None:
    target, pairs = bench.target(), kept_pairs(bench)
    put_something(target, pairs[0].target)
    planned = await plan_pairs(pairs, bench.services())

    def saved_with(**changes: object) -> bytes:
        steps = tuple(
            msgspec.structs.replace(step, **changes) if isinstance(step, Backup) else step
            for step in planned.plan.steps
        )
        plan = msgspec.structs.replace(planned.plan, steps=steps)
        return save_plan(msgspec.structs.replace(planned, plan=plan))

    load_plan(saved_with(), "p")
    for changes in ({"kept": "elsewhere"}, {"tag": "other"}, {"kept": "a/b"}):
        with pytest.raises(InvalidConfig, match="which no image of it says"):
            load_plan(saved_with(**changes), "p")


def test_words_are_filled_in_and_known_again() -> None:
    words = backup_words("1.0", Digest("sha256:" + "ab" * 32), 1_795_000_000.0)
    assert words == {"tag": "1.0", "digest": "ab" * 6, "date": "20261118", "time": "110640"}
    assert set(words) == set(WORDS)
    for template in ("{tag}-old", "old", "{tag}-{digest}", "{date}.{time}-{tag}"):
        made = backup_tag(template, words)
        assert is_backup(made, template, "1.0")
        assert is_backup(made, template, "1.1") is ("{tag}" not in template)
        assert not is_backup(f"{made}x", template, "1.0")
