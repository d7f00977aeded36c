"""`blobflow warm` and a sync that stays, at the door: what is asked for, and what can't be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.cli.expand_request import expand_request
from blobflow.cli.inputs.requests import MirrorRequest, RegistryPrefix, parse_registry_prefix
from blobflow.cli.inputs.warm_request import request_at_edges
from blobflow.cli.options.images import SelectionOptions
from blobflow.cli.options.output import OutputOptions
from blobflow.cli.options.platforms import PlatformOptions
from blobflow.cli.runtime.cron import Cron, Interval
from blobflow.cli.runtime.daemon import ScheduleOptions, parse_schedule, run_scheduled
from blobflow.client import Client
from blobflow.engine.results.report import ImageRecord, Report, Totals
from blobflow.errors import ConnectFailed, RunIncomplete, UsageError
from blobflow.settings import Settings

SPEC = """\
version: 1
defaults: {source: src.example, targets: [elsewhere.example/mirror]}
images:
  - team/app:1
  - {image: team/app, tags: ["1"], target: renamed/app, platforms: [linux/arm64]}
  - {image: team/tool, tags: ["2"], rename: {tag: "{tag}-here"}, platforms: [linux/amd64]}
  - {image: team/tool, tags: ["2"], target: again/tool, platforms: [linux/arm64]}
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


async def pairs_of(asked: MirrorRequest) -> list[tuple[str, str, int]]:
    """Sources, edges, and how many platforms are chosen (0: all)."""
    async with Client(Settings()) as client:
        expanded = await expand_request(client, asked, PlatformOptions())
    return [(str(pair.source), str(pair.target), len(pair.choice.platforms)) for pair in expanded.pairs]


async def test_a_spec_is_warmed_under_its_own_names_each_image_once_with_all_its_platforms(
    tmp_path: Path,
) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC)
    asked = request_at_edges(
        SelectionOptions(spec=file),
        [parse_registry_prefix("edge-1.example"), parse_registry_prefix("edge-2.example/hub")],
    )
    assert await pairs_of(asked) == [
        ("src.example/team/app:1", "edge-1.example/team/app:1", 0),
        ("src.example/team/app:1", "edge-2.example/hub/team/app:1", 0),
        ("src.example/team/tool:2", "edge-1.example/team/tool:2", 2),
        ("src.example/team/tool:2", "edge-2.example/hub/team/tool:2", 2),
    ]


async def test_what_docker_hub_calls_library_is_asked_for_so(tmp_path: Path) -> None:
    file = tmp_path / "images.txt"
    file.write_text("alpine:3\n")
    asked = request_at_edges(
        SelectionOptions(source="docker.io", images=file), [RegistryPrefix("edge.example")]
    )
    assert [edge for _, edge, _ in await pairs_of(asked)] == ["edge.example/library/alpine:3"]


async def test_a_file_of_skopeo_is_warmed_too(tmp_path: Path) -> None:
    file = tmp_path / "sync.yml"
    file.write_text("src.example: {images: {team/app: ['1']}}\n")
    asked = request_at_edges(SelectionOptions(spec=file), [RegistryPrefix("edge.example")])
    assert [edge for _, edge, _ in await pairs_of(asked)] == ["edge.example/team/app:1"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("warm", "spec.yaml"), "--edge HOST, once or several times, or --into-cache"),
        (("warm", "spec.yaml", "--edge", "a.example", "--into-cache"), "or --into-cache"),
        (("warm", "spec.yaml", "--edge", "oci:folder"), "is no registry; an edge is a pull-through cache"),
        (("warm", "--edge", "a.example"), "give a spec file, or"),
        (("warm", "no-such.yaml", "--edge", "a.example"), "can't read no-such.yaml"),
        (("sync", "spec.yaml", "--every", "6h", "--cron", "@daily"), "give one"),
        (("sync", "spec.yaml", "--every", "soon"), "'soon' is no span of time"),
        (("sync", "spec.yaml", "--cron", "0 0 30 2 *"), "never comes"),
        (("sync", "spec.yaml", "--metrics-listen", "127.0.0.1:0"), "add --every or --cron"),
        (("sync", "spec.yaml", "--every", "6h", "--dry-run"), "leave --every and --cron out"),
        (("sync", "spec.yaml", "--metrics-file", "no/such/b.prom"), "there is no folder no/such"),
    ],
)
def test_what_can_not_be_meant_is_a_sentence(
    arguments: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(SPEC)
    done = run(*arguments)
    assert done.exit_code == 2
    assert why in done.output
    assert "Traceback" not in done.output


def test_a_timetable_is_what_was_said() -> None:
    assert parse_schedule(ScheduleOptions()) is None
    assert isinstance(parse_schedule(ScheduleOptions(every="6h")), Interval)
    assert isinstance(parse_schedule(ScheduleOptions(cron="@daily")), Cron)


REPORT = Report(Totals(1, 1), (ImageRecord("a/x:1", "b/x:1", "", "", (), "failed", "no"),))


def kept(file: Path, run: Callable[[Callable[[Report], None]], None]) -> str:
    """What the metrics file says of how one run ended; what the run raises is passed over."""
    with pytest.raises((RunIncomplete, ConnectFailed, KeyboardInterrupt)):
        run_scheduled(ScheduleOptions(metrics_file=file), OutputOptions(quiet=True), run, lambda: None)
    ends = [line for line in file.read_text().splitlines() if line.startswith("blobflow_runs_total")]
    return next(line.partition('"')[2].partition('"')[0] for line in ends if not line.endswith(" 0.0"))


@pytest.mark.parametrize(
    ("raised", "end"),
    [
        (RunIncomplete("1 of 1"), "incomplete"),
        (ConnectFailed("no way"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_a_run_is_entered_as_what_ended_it(raised: BaseException, end: str, tmp_path: Path) -> None:
    def fail(told: Callable[[Report], None]) -> None:
        told(REPORT)
        raise raised

    assert kept(tmp_path / "b.prom", fail) == end
    assert 'blobflow_images{status="failed"} 1.0' in (tmp_path / "b.prom").read_text()


def test_a_metrics_file_that_can_not_be_written_hides_no_interrupt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()

    def fail(told: Callable[[Report], None]) -> None:
        folder.rmdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_scheduled(ScheduleOptions(metrics_file=folder / "b.prom"), OutputOptions(), fail, lambda: None)
    assert "can't write" in capsys.readouterr().err


def test_what_was_started_wrongly_ends_at_once_also_where_it_should_stay() -> None:
    def fail(told: Callable[[Report], None]) -> None:
        raise UsageError("no such certificate")

    with pytest.raises(UsageError, match="certificate"):
        run_scheduled(ScheduleOptions(every="6h"), OutputOptions(quiet=True), fail, lambda: None)
