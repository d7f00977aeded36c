"""`blobflow bench`: what it asks of a registry, that it leaves nothing there, and that it tells true."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from blobflow.client import Client
from blobflow.content import Site
from blobflow.errors import ConnectFailed, Denied, NotFound, UsageError
from blobflow.events import Event, Observer, Warned, ignore
from blobflow.operations.measure import Measurements, Recommendation, Trial, TrialMatrix, measure, recommend
from tests.scenarios.registries import registries
from tools.network_path import Shape, long_path
from tools.registry.faulty import Fault, JournallingRegistry, Stall, Status

KIB = 1024
SMALL = TrialMatrix(sizes=(4 * KIB,), at_once=(2,), volume=16 * KIB)
BLOBS = 4  # of SMALL's one lot
PROBES = 1


async def measured(
    target: Site, course: TrialMatrix, *, observer: Observer = ignore, **how: Any
) -> Measurements:
    async with Client(observer=observer) as client:
        return await measure(client, target, course, **how)


def there(registry: JournallingRegistry, repository: str) -> int:
    """How many blobs the repository has."""
    return len(registry.store.repositories.contents(repository))


async def test_each_form_costs_its_requests_and_no_more_and_no_blob_is_left(tmp_path: Path) -> None:
    async with registries(tmp_path, ["target"]) as [target]:
        found = await measured(Site(target.host, "bench/x"), SMALL)
        asked = target.journal
        assert [(leg.way, leg.form, leg.failed) for leg in found.legs] == [
            ("up", "single", ""),
            ("down", "", ""),
            ("up", "stream", ""),
            ("up", "chunked", ""),
        ]
        assert asked.count("POST") == 3 * BLOBS + PROBES
        assert asked.count("PUT") == 3 * BLOBS + PROBES
        assert asked.count("PATCH") == 2 * BLOBS
        assert asked.count("GET", "/blobs/") == BLOBS
        assert asked.count("DELETE", status=202) == 3 * BLOBS + PROBES
        assert sum(each.completes is not None for each in asked) == 3 * BLOBS + PROBES
        assert [leg.requests for leg in found.legs] == [2 * BLOBS, BLOBS, 3 * BLOBS, 3 * BLOBS]
        assert not there(target, "bench/x")
        assert found.left == ()


async def test_with_a_source_blobs_are_copied_and_none_is_left_at_either_end(tmp_path: Path) -> None:
    course = TrialMatrix(sizes=(4 * KIB,), at_once=(2,), volume=16 * KIB, forms=("single",))
    async with registries(tmp_path, ["source", "target"]) as [source, target]:
        found = await measured(Site(target.host, "bench/x"), course, source=Site(source.host, "bench/from"))
        assert [leg.way for leg in found.legs] == ["up", "down", "copy"]
        assert source.journal.count("GET", "/blobs/") == BLOBS
        assert source.journal.count("DELETE", status=202) == BLOBS + PROBES
        assert target.journal.count("DELETE", status=202) == 2 * BLOBS + PROBES
        assert not there(source, "bench/from")
        assert not there(target, "bench/x")


async def test_a_form_that_is_refused_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    faults = [Fault("PATCH", "/blobs/uploads/", times=0, act=Status(405))]
    async with registries(tmp_path, ["target"], faults) as [target]:
        found = await measured(Site(target.host, "bench/x"), SMALL)
        assert [leg.form for leg in found.legs if leg.failed] == ["stream", "chunked"]
        assert all("405" in leg.failed for leg in found.legs if leg.failed)
        assert found.choice is not None
        assert found.choice.forms == ("single",)
        assert not there(target, "bench/x")


async def test_a_registry_that_keeps_what_it_has_is_warned_of_and_what_is_left_is_told(
    tmp_path: Path,
) -> None:
    events: list[Event] = []
    faults = [Fault("DELETE", "/blobs/", times=0, act=Status(405))]
    async with registries(tmp_path, ["target"], faults) as [target]:
        found = await measured(Site(target.host, "bench/x"), SMALL, observer=events.append)
        [left] = found.left
        assert left.blobs == 3 * BLOBS + PROBES == there(target, "bench/x")
        assert left.size == 3 * BLOBS * 4 * KIB + KIB
        assert target.journal.count("DELETE") == PROBES, "who says no is not asked again"
        [warned] = [event for event in events if isinstance(event, Warned)]
        assert "does not let blobs be deleted" in warned.message


async def test_cancelled_in_mid_leg_it_still_takes_its_blobs_out(tmp_path: Path) -> None:
    reached = asyncio.Event()
    faults = [Fault("PUT", "/blobs/uploads/", nth=4, act=Stall(reached=reached))]
    async with registries(tmp_path, ["target"], faults) as [target]:
        task = asyncio.create_task(measured(Site(target.host, "bench/x"), SMALL))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not there(target, "bench/x")


async def test_cancelled_where_blobs_cant_be_deleted_it_warns_of_what_is_left(tmp_path: Path) -> None:
    events: list[Event] = []
    reached = asyncio.Event()
    faults = [
        Fault("DELETE", "/blobs/sha256", times=0, act=Status(405)),
        Fault("GET", "/blobs/", act=Stall(reached=reached)),
    ]
    async with registries(tmp_path, ["target"], faults) as [target]:
        task = asyncio.create_task(measured(Site(target.host, "bench/x"), SMALL, observer=events.append))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        told = [event.message for event in events if isinstance(event, Warned)]
        assert there(target, "bench/x") == BLOBS + PROBES
        assert f"still has {BLOBS + PROBES} of these blobs" in told[-1]


async def at_once(seconds: float) -> None:
    """A pause that takes no time."""


async def test_where_nobody_answers_nothing_is_said_to_be_left() -> None:
    events: list[Event] = []
    with pytest.raises(ConnectFailed):
        await measured(Site("127.0.0.1:1", "bench/x"), SMALL, observer=events.append, sleep=at_once)
    assert not [event for event in events if isinstance(event, Warned)]


async def test_who_may_not_push_is_told_so_before_anything_is_measured(tmp_path: Path) -> None:
    faults = [Fault("POST", "/blobs/uploads/", times=0, act=Status(403))]
    async with registries(tmp_path, ["target"], faults) as [target]:
        with pytest.raises(Denied):
            await measured(Site(target.host, "bench/x"), SMALL)
        assert target.journal.count("POST") == 1


async def test_a_download_that_fails_fails_its_leg_alone(tmp_path: Path) -> None:
    faults = [Fault("GET", "/blobs/", times=0, act=Status(404))]
    async with registries(tmp_path, ["target"], faults) as [target]:
        found = await measured(Site(target.host, "bench/x"), SMALL)
        assert [leg.way for leg in found.legs if leg.failed] == ["down"]
        assert found.choice == Recommendation(2, 2, found.choice.forms if found.choice else ())
        assert NotFound.__name__ not in found.legs[1].failed
        assert not there(target, "bench/x")


def test_a_course_that_moves_nothing_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        TrialMatrix(sizes=(1 << 30,), volume=1 << 20).lots()


def leg(way: str, form: str, size: int, at_once: int, seconds: float) -> Trial:
    return Trial(way, form, size, at_once, 10, seconds=seconds)  # type: ignore[arg-type]


def test_the_fewest_at_once_and_the_fewest_requests_that_are_as_good_as_the_best_are_chosen() -> None:
    legs = [
        leg("up", "single", KIB, 1, 4.0),
        leg("up", "single", KIB, 4, 1.02),
        leg("up", "single", KIB, 16, 1.0),
        leg("up", "stream", KIB, 4, 1.01),
        leg("down", "", KIB, 1, 1.0),
        leg("down", "", KIB, 4, 1.0),
    ]
    assert recommend(legs) == Recommendation(up=4, down=1, forms=("single", "stream"))


def test_a_form_that_is_much_slower_comes_second() -> None:
    legs = [leg("up", "single", KIB, 1, 2.0), leg("up", "chunked", KIB, 1, 1.0)]
    assert recommend(legs) == Recommendation(up=1, down=1, forms=("chunked", "single"))


def test_nothing_is_chosen_where_no_form_worked() -> None:
    assert recommend([Trial("up", "single", KIB, 1, 10, failed="405")]) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["registry.example.com"],
        ["oci:folder:tag"],
        ["r:1/x", "--sizes", "3q"],
        ["r:1/x", "--sizes", "0"],
        ["r:1/x", "--sizes", "1GiB"],
        ["r:1/x", "--forms", "single,double"],
        ["r:1/x", "--concurrency", "0"],
    ],
)
def test_what_cant_be_benched_is_one_sentence_and_exit_2(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, ["bench", *arguments])
    assert done.exit_code == 2
    assert "internal error" not in done.output


def test_the_findings_are_a_table_with_the_settings_to_use_and_json_for_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    legs = (leg("up", "single", 1000, 4, 0.5), leg("down", "", 1000, 4, 0.25))
    found = Measurements("r:1/x", legs, Recommendation(4, 4, ("single", "stream")), ())

    async def canned(*_: object, **__: object) -> Measurements:
        return found

    monkeypatch.setattr("blobflow.operations.measure.measure", canned)
    shown = CliRunner().invoke(cli, ["bench", "r:1/x", "--quiet"])
    assert shown.exit_code == 0
    assert "--concurrency 4" in shown.stdout
    assert 'rungs = ["single", "stream"]' in shown.stdout
    assert "nothing is left" in shown.stdout
    told = json.loads(CliRunner().invoke(cli, ["bench", "r:1/x", "--quiet", "--json"]).stdout)
    assert [each["bytes_per_second"] for each in told["legs"]] == [20_000, 40_000]
    assert told["choice"] == {"up": 4, "down": 4, "forms": ["single", "stream"]}


@pytest.mark.soak
async def test_rates_are_within_a_fifth_of_those_of_a_paced_line(tmp_path: Path) -> None:
    """Two connections, each 4 MB/s each way: 8 MB/s."""
    course = TrialMatrix(sizes=(2_000_000,), at_once=(2,), volume=32_000_000, forms=("single", "stream"))
    async with registries(tmp_path, ["target"]) as [target], long_path(target.host, Shape(rate=4e6)) as path:
        found = await measured(Site(path.host, "bench/x"), course)
        assert found.legs
        for each in found.legs:
            assert 0.8 * 8e6 < each.rate < 1.2 * 8e6, each
