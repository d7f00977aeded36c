"""Origins that earlier runs left, over places in memory: whose they are, and what a failing mount costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from blobflow.content import Site
from blobflow.engine.pairs import Pair
from blobflow.engine.plan.steps import Mount
from blobflow.engine.targets.mount_origins import MOUNTS, OriginRecorder, refuses_mounts
from blobflow.errors import BlobflowError, ConnectFailed, ConnectionLost, Denied, StorageFull, Unavailable
from blobflow.oci import Reference
from tests.fakes.memory_registry import MemoryRegistry
from tests.library import plan_pairs
from tests.scenarios.mirror import MirrorScenario

Logins = Callable[[str], str | None]


def target(bench: MirrorScenario, logins: Logins = lambda repository: "joe") -> MemoryRegistry:
    bench.targets["target"] = MemoryRegistry("target", logins=logins)
    return bench.targets["target"]


def under(prefix: str, bench: MirrorScenario) -> list[Pair]:
    return [
        Pair(pair.source, Reference("target", f"{prefix}/{pair.target.repository}", pair.target.tag))
        for pair in bench.pairs
    ]


async def test_a_second_prefix_is_mounted_alone(bench: MirrorScenario) -> None:
    registry = target(bench)
    await bench.mirror()
    bench.forget_calls()
    report = await bench.mirror(pairs=under("two", bench))
    assert report.ok
    assert (registry.count("push"), bench.source.count("open")) == (0, 0)


async def test_what_one_login_put_is_not_named_to_another(bench: MirrorScenario) -> None:
    registry = target(bench, lambda repository: "ann" if repository.startswith("two/") else "joe")
    await bench.mirror()
    for prefix, pushes in (("two", len(bench.blobs())), ("two/again", 0), ("three", 0)):
        bench.forget_calls()
        assert (await bench.mirror(pairs=under(prefix, bench))).ok
        assert registry.count("push") == pushes, prefix


async def test_a_login_that_can_not_be_told_is_offered_nothing(bench: MirrorScenario) -> None:
    registry = target(bench, lambda repository: None)
    await bench.mirror()
    bench.forget_calls()
    assert (await bench.mirror(pairs=under("two", bench))).ok
    assert registry.count("push") == len(bench.blobs())


@pytest.mark.parametrize(
    "error", [Unavailable("500 to a mount", status=500), Denied("no", status=403), ConnectionLost("cut")]
)
async def test_whatever_a_guess_is_answered_the_blob_is_pushed(
    bench: MirrorScenario, error: BlobflowError
) -> None:
    registry = target(bench)
    await bench.mirror()
    bench.forget_calls()
    guessed: set[str] = set()

    def first_only(call: str, site: Site, name: str) -> BlobflowError | None:
        if call != "mount" or name in guessed:
            return None
        guessed.add(name)
        return error

    registry.fault = first_only
    assert (await bench.mirror(pairs=under("two", bench))).ok
    assert registry.count("push") == len(bench.blobs()) == bench.source.count("open")


async def test_a_guess_without_a_connection_is_not_followed_by_an_upload(bench: MirrorScenario) -> None:
    registry = target(bench)
    await bench.mirror()
    bench.forget_calls()
    registry.fault = lambda call, site, name: ConnectFailed("refused") if call == "mount" else None
    assert not (await bench.mirror(pairs=under("two", bench))).ok
    assert registry.count("push") == 0


async def test_guesses_end_where_mounts_are_refused_and_none_was_ever_granted(bench: MirrorScenario) -> None:
    registry = target(bench)
    registry.mounts = False
    await bench.mirror()
    assert refuses_mounts(bench.journal, "target")
    bench.forget_calls()
    await bench.mirror(pairs=under("two", bench))
    within = registry.count("mount")
    registry.mounts = True
    await bench.mirror(pairs=under("three", bench))
    assert not refuses_mounts(bench.journal, "target"), "it granted some"
    bench.forget_calls()
    await bench.mirror(pairs=under("four", bench))
    assert registry.count("push") == 0
    assert registry.count("mount") == within + len(bench.blobs())


async def test_a_refusal_is_believed_for_a_week(
    bench: MirrorScenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    for note, seconds, refuses in [("100", 100, True), ("100", 100 + 7 * 86400, False), ("?", 100, False)]:
        bench.journal.record_note("target", "mounts refused", note)
        monkeypatch.setattr("time.time", lambda seconds=seconds: float(seconds))
        assert refuses_mounts(bench.journal, "target") is refuses
    bench.journal.record_note("target", "mounts refused", "100")
    bench.journal.record_note("target", MOUNTS, "yes")
    assert not refuses_mounts(bench.journal, "target")


async def test_what_was_put_is_recorded_also_where_the_run_fails(bench: MirrorScenario) -> None:
    registry = target(bench)
    registry.fault = lambda call, site, name: StorageFull("no") if call == "put" else None
    assert not (await bench.mirror()).ok
    registry.fault = lambda call, site, name: None
    bench.forget_calls()
    assert (await bench.mirror(pairs=under("two", bench))).ok
    assert registry.count("push") == 0


async def test_a_long_run_writes_while_it_goes_on(bench: MirrorScenario) -> None:
    registry = target(bench)
    recorder = OriginRecorder(bench.journal, registry.at)
    site = registry.site("app")
    blob = next(iter(bench.source.blobs.values())).keys()
    recorder.found(site, blob)
    await recorder.write(at_least=len(blob) + 1)
    assert bench.journal.mount_origins("target", "joe", blob) == {}
    await recorder.write(at_least=len(blob))
    assert bench.journal.mount_origins("target", "joe", blob) == dict.fromkeys(blob, ("app",))


async def test_what_is_written_while_logins_are_found_out_is_not_lost(bench: MirrorScenario) -> None:
    registry = target(bench)
    answer = asyncio.Event()

    async def login(self: object) -> str:
        await answer.wait()
        return "joe"

    one, two = [digest for blobs in bench.source.blobs.values() for digest in blobs][:2]
    recorder = OriginRecorder(bench.journal, registry.at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fakes.memory_registry.MountingPlace.login", login)
        recorder.found(registry.site("app"), [one])
        first = asyncio.create_task(recorder.write())
        await asyncio.sleep(0)
        recorder.found(registry.site("app"), [two])
        second = asyncio.create_task(recorder.write())
        await asyncio.sleep(0)
        answer.set()
        await asyncio.gather(first, second)
    assert bench.journal.mount_origins("target", "joe", [one, two]).keys() == {one, two}


async def test_the_nearest_repository_is_offered_first(bench: MirrorScenario) -> None:
    registry = target(bench)
    for prefix in ("team-a", "team-b"):
        await bench.mirror(pairs=under(prefix, bench))
    asked: list[Site] = []
    mount = type(registry.at(registry.site("x"))).mount

    async def watched(self: object, blob: object, origin: Site) -> bool:
        asked.append(origin)
        return await mount(self, blob, origin)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.fakes.memory_registry.MountingPlace.mount", watched, raising=False)
        await bench.mirror(pairs=under("team-a/again", bench))
    assert {origin.repository.partition("/")[0] for origin in asked} == {"team-a"}


async def test_one_repository_that_has_most_is_offered_for_all_it_has(bench: MirrorScenario) -> None:
    """Each origin costs a token."""
    registry = target(bench)
    pair = bench.pairs[0]
    blobs = sorted(bench.source.blobs[Site("source", pair.source.repository)])
    journal = bench.journal
    journal.record_mount_origins("target", "joe", [("all", blob) for blob in blobs])
    for number, blob in enumerate(blobs):
        journal.record_mount_origins("target", "joe", [(f"some-{number}", blob)])
    services = bench.services()
    planned = await plan_pairs([Pair(pair.source, Reference("target", "app", "1"))], services)
    origins = {step.origin for step in planned.plan.steps if isinstance(step, Mount)}
    assert origins == {registry.site("all")}
