"""The benchmarks' own arithmetic and words: medians, goals, tables, plots, and how peers are called."""

from __future__ import annotations

import json
import shlex
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench.chart import plot
from bench.contest import Contest, Entry, in_turns
from bench.ends import new_folder
from bench.goals import GOALS, Goal, judge
from bench.measurements import Measured, differences, medians, ratios_by_round
from bench.named_runs import RUNS
from bench.path_floor import SOURCE_TRIPS, TARGET_TRIPS, floor_seconds
from bench.peers import EARLIER, RAW, TOOLS, Scene, Work, last_part, tools_of
from bench.ranged_pump import RANGE, ranges_of
from bench.record import BEGIN, END, anonymous, between_marks
from bench.scenarios import KIB, MIB, SCENARIOS, Layers, following, generate, layout_of
from bench.tables import barred, failures, plain, ratios, rows_of
from tools.checkout import TOP
from tools.imageset import Image, Layout
from tools.network_path import Shape
from tools.processes import empty

LAYOUT = Layout(
    Path("/set"),
    {
        name: Image(name, "sha256:0", "index", 1, {}, {f"sha256:{name}": size})
        for name, size in (("a/b:1", 1000), ("a/b:2", 3000), ("c:1", 500))
    },
)


def row(run: str, subject: str, wall: float, failed: str = "", **more: float) -> Measured:
    return Measured(run, subject, {"wall": wall, "cpu": wall / 2, **more}, f"run {subject}", failed)


def test_medians_are_of_each_figure_by_itself_and_leave_failed_rounds_out() -> None:
    rows = [row("cold", "us", wall) for wall in (3.0, 1.0, 2.0)]
    rows.append(row("cold", "us", 99.0, failed="ended with 1"))
    [found] = medians(rows)["cold"].values()
    assert found.figures == {"wall": 2.0, "cpu": 1.0}
    assert found.rounds == 4
    assert found.failed == "1 of 4: ended with 1"


def test_a_run_that_always_failed_has_no_figures_and_is_told() -> None:
    found = medians([row("cold", "us", 1.0, failed="no")])
    assert found["cold"]["us"].figures == {}
    assert list(failures(found)) == ["cold: us failed in 1 of 1: no"]
    assert list(rows_of(found))[1][1:3] == ["us (failed)", "1"]


def test_only_noticeable_differences_to_an_earlier_record_are_told() -> None:
    earlier = medians([row("cold", "us", 2.0), row("gone", "us", 1.0)])
    lines = list(differences(medians([row("cold", "us", 1.0), row("new", "us", 1.0)]), earlier))
    assert lines == [
        "cold, us: wall 0.50 times what it was, 2 to 1",
        "cold, us: cpu 0.50 times what it was, 1 to 0.5",
        "0 figures as they were, within 5%",
    ]
    assert list(differences(earlier, earlier)) == ["4 figures as they were, within 5%"]


def test_a_goal_is_held_against_the_best_of_those_that_took_part() -> None:
    goal = Goal("cold", "cold", "wall", theirs=("slow", "fast", "absent"), bound=0.5)
    found = medians([row("cold", "blobflow", 1.0), row("cold", "slow", 4.0), row("cold", "fast", 2.5)])
    [verdict] = judge(found, [goal])
    assert (verdict.against, verdict.value, verdict.met) == ("fast", 0.4, True)
    assert verdict.shown == "0.40 x (1 / 2.5 s)"
    assert verdict.commands == ("run blobflow", "run fast")


def test_a_missed_goal_says_by_how_much() -> None:
    goal = Goal("tags", "tags", "rate", bound=1000, at="least", suffix="/s")
    [verdict] = judge(medians([row("tags", "blobflow", 1.0, rate=800.0)]), [goal])
    assert (verdict.met, verdict.word, verdict.shown) == (False, "missed, by 25 %", "800/s")


def test_a_goal_of_nothing_is_met_by_nothing_and_else_missed() -> None:
    goal = Goal("second", "second", "bytes", bound=0.0, unit=1e6, suffix=" MB")
    verdicts = [
        verdict
        for size in (0.0, 1.5e6)
        for verdict in judge(medians([row("second", "blobflow", 1.0, bytes=size)]), [goal])
    ]
    assert [(each.shown, each.word) for each in verdicts] == [("0 MB", "met"), ("1.5 MB", "missed")]


def test_goals_without_figures_are_left_out() -> None:
    assert list(judge({}, GOALS)) == []
    assert {goal.run for goal in GOALS} <= RUNS.keys()


def test_the_floor_is_the_largest_blob_or_all_bytes_and_the_round_trips() -> None:
    path, trips = Shape(rtt=0.1, rate=100.0), (len(SOURCE_TRIPS) + len(TARGET_TRIPS)) * 0.1
    assert floor_seconds(LAYOUT, path, path, 8) == pytest.approx(30.0 + trips)
    assert floor_seconds(LAYOUT, path, path, 1) == pytest.approx(45.0 + trips)


def test_a_blob_that_is_read_may_come_by_many_connections_and_one_that_is_pushed_not() -> None:
    path = Shape(rtt=0.1, rate=100.0)
    assert floor_seconds(LAYOUT, path, None, 9) == pytest.approx(5.0 + len(SOURCE_TRIPS) * 0.1)
    assert floor_seconds(LAYOUT, None, path, 9) == pytest.approx(30.0 + len(TARGET_TRIPS) * 0.1)


def test_what_follows_on_a_state_is_run_after_what_leaves_it() -> None:
    assert following(["unchanged", "second-prefix"]) == [("cold", ["unchanged", "second-prefix"])]
    assert following(["unchanged", "faults", "cold"]) == [("cold", ["unchanged"]), ("faults", [])]
    assert {each.after for each in SCENARIOS.values() if each.after} <= SCENARIOS.keys()


def test_what_a_run_leaves_is_emptied_and_never_another_runs_start(tmp_path: Path) -> None:
    """Not removed: ext4 makes the run after pay for that."""
    first = new_folder(tmp_path)
    kept = first / "storage" / "blobs" / "data"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x" * 100)
    empty(first / "storage")
    assert kept.stat().st_size == 0
    second = new_folder(tmp_path)
    assert second != first
    assert list(second.iterdir()) == []


def test_a_generated_set_is_what_its_description_says(tmp_path: Path) -> None:
    layout = generate(tmp_path / "set", Layers(3, 2, shared=(KIB,), own=(KIB, KIB), tags=2))
    assert len(layout.images) == 6
    assert len({image.digest for image in layout.images.values()}) == 3
    layers = {digest for image in layout.images.values() for digest in image.blobs}
    assert len(layers) == 2 + 3 * 2 * 2 + 3 * 2, "shared, own, configs"
    assert all(layout.blob(digest).stat().st_size == size for digest, size in layout.blobs.items())


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_is_asked_for_every_image_at_every_target(name: str, tuned: bool, tmp_path: Path) -> None:
    scene = Scene(LAYOUT, "source:1", ("here:1", "there:1"), tmp_path, tuned=tuned)
    work = TOOLS[name].work(scene)
    told = "\n".join(shlex.join(command) for command in work.commands)
    files = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    everything = "\n".join([told, *files])
    for target in scene.targets:
        assert target in everything
    if name != "blobflow":  # it reads the set's own list
        assert all(image.repository in everything for image in LAYOUT.images.values())
        assert everything.count("source:1") > 0
    if name in ("crane", "regctl", "oras", "docker"):
        assert len(work.commands) == 2 * len(LAYOUT.images)
    assert (work.at_once > 1 or len(work.commands) == 1) == (tuned or len(work.commands) == 1)


def test_concurrency_is_the_scenarios_for_every_tuned_tool_and_ours_at_our_defaults(tmp_path: Path) -> None:
    scene = Scene(LAYOUT, "source:1", ("here:1",), tmp_path, tuned=True, at_once=64)
    assert TOOLS["crane"].work(scene).at_once == 64
    TOOLS["regsync"].work(scene)
    config = json.loads((tmp_path / "regsync.yml").read_text())
    assert config["defaults"]["parallel"] == config["creds"][0]["reqConcurrent"] == 64
    contest = Contest([], {name: TOOLS[name] for name in ("blobflow", "crane")}, 1, (False,), (True,))
    entries = contest.entries(SCENARIOS["giant-layer"])
    assert [entry.subject for entry in entries] == ["blobflow", "crane, tuned", "8 raw connections"]


def test_another_one_begins_each_round_and_who_is_finished_has_no_further_turn() -> None:
    entries = [Entry(name, TOOLS["crane"]) for name in "abc"]
    finished = set[str]()
    turns = in_turns(entries, 3, finished)
    assert [next(turns).name for _ in range(6)] == ["a", "b", "c", "b", "c", "a"]
    finished.add("a")
    assert [entry.name for entry in turns] == ["c", "b"]


def test_an_earlier_build_is_run_by_its_own_environment_right_after_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make one there"):
        tools_of(["blobflow"], tmp_path)
    interpreter = tmp_path / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.touch()
    tools = tools_of(["blobflow", "skopeo"], tmp_path)
    assert list(tools) == ["blobflow", EARLIER, "skopeo"]
    [command] = tools[EARLIER].work(Scene(LAYOUT, "source:1", ("here:1",), tmp_path)).commands
    assert command[:4] == [str(interpreter), "-P", "-m", "blobflow"]
    assert list(tools_of(["skopeo"], tmp_path)) == ["skopeo"]


def test_a_second_prefix_is_where_every_tool_goes(tmp_path: Path) -> None:
    scene = Scene(LAYOUT, "source:1", ("here:1",), tmp_path, prefix="second")
    for name, tool in TOOLS.items():
        command = " ".join(tool.work(scene).commands[0])
        spec = (tmp_path / "regsync.yml").read_text() if name == "regsync" else command
        assert "here:1/second" in spec


def test_the_raw_connections_move_the_largest_blob(tmp_path: Path) -> None:
    [command] = RAW["8 raw connections"].work(Scene(LAYOUT, "source:1", ("here:1",), tmp_path)).commands
    assert command[command.index("--digest") + 1] in next(iter(LAYOUT.images.values())).blobs


@pytest.mark.parametrize("size", [1, 7, 8, 9, RANGE * 8 - 1, RANGE * 8, RANGE * 9 + 1])
def test_ranges_cover_a_blob_once_and_are_one_a_connection_or_all_as_long(size: int) -> None:
    ranges = ranges_of(size, 8)
    assert [begin for begin, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert ranges[-1][1] == size
    lengths = {end - begin for begin, end in ranges[:-1]}
    assert len(ranges) <= 8 or lengths == {RANGE}


def test_a_part_of_a_set_has_its_first_images_and_their_blobs(tmp_path: Path) -> None:
    whole = generate(tmp_path / "set", Layers(4, 1, own=(KIB,)))
    part = layout_of(SCENARIOS["cold"], whole, tmp_path, 0.5)
    assert list(part.images) == list(whole.images)[:2]
    assert all(part.blob(digest).stat().st_size == size for digest, size in part.blobs.items())
    assert layout_of(SCENARIOS["cold"], whole, tmp_path, 1.0) is whole
    assert layout_of(SCENARIOS["cold"], whole, tmp_path, 0.5) == part, "it is made once"


def test_who_has_no_set_gets_one_of_its_size(tmp_path: Path) -> None:
    made = layout_of(SCENARIOS["cold"], None, tmp_path, 0.01)
    assert len(made.images) == 15
    assert 5 * MIB < made.unique_bytes < 6 * MIB


def test_builds_are_compared_round_by_round() -> None:
    walls = [("us", 1.0), ("them", 2.0), ("them", 4.0), ("us", 3.0), ("us", 9.0)]
    lines = list(ratios_by_round([row("cold", subject, wall) for subject, wall in walls], "us", "them"))
    assert lines[0] == "cold, wall: 0.625 x them (rounds 0.500 to 0.750)"


def test_several_commands_are_made_one_that_runs_them_all(tmp_path: Path) -> None:
    work = Work([["touch", str(tmp_path / name)] for name in ("a b", "c'd", "e")], at_once=2)
    subprocess.run(work.one(tmp_path), check=True)
    assert {file.name for file in tmp_path.iterdir()} == {"a b", "c'd", "e", "commands.txt"}
    assert work.told().endswith("# and 2 more, 2 at a time")


def test_a_command_among_several_that_fails_fails_them_all(tmp_path: Path) -> None:
    work = Work([["true"], ["false"], ["true"]])
    assert subprocess.run(work.one(tmp_path), check=False, capture_output=True).returncode


def test_skopeo_drops_all_but_the_last_part_of_a_name() -> None:
    assert last_part("a/b/c") == "c"


def test_tables_have_a_row_for_each_subject_and_a_ratio_to_the_first() -> None:
    found = medians([row("cold", "us", 1.0), row("cold", "a|b", 2.0)])
    rows = list(rows_of(found))
    assert rows[0] == ["run", "subject", "rounds", "wall s", "CPU s"]
    assert list(plain(rows))[2] == "cold  a|b           1    2.00   1.00"
    assert list(barred(rows))[3] == "| cold | a\\|b | 1 | 2.00 | 1.00 |"
    assert list(ratios(found)) == ["cold: a|b takes 2.00 times the wall and 2.00 times the CPU of us"]


def test_a_plot_is_well_formed_and_its_bars_are_as_long_as_their_values() -> None:
    document = plot("a < b & c", "s", {"cold": {"us": 1.0, "<them>": 2.0}, "none": {}})
    root = ElementTree.fromstring(document)
    bars = [bar for bar in root.iter("{http://www.w3.org/2000/svg}rect") if bar.get("x")]
    lengths = [float(bar.attrib["width"]) for bar in bars]
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=0.2)


def test_a_record_is_written_between_its_marks_and_nowhere_else() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert between_marks(text, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="no <!-- record"):
        between_marks("nothing here", "new")


def test_a_record_names_no_folder_of_the_machine_that_made_it() -> None:
    made = Measured("cold", "us", {}, "sync --images /x/set/images.txt", "no /tmp/y/file")
    assert anonymous(made, {"/x/set": "SET", "/tmp/y": "DIR"}) == Measured(
        "cold", "us", {}, "sync --images SET/images.txt", "no DIR/file"
    )


def test_the_readme_has_the_marks() -> None:
    readme = (TOP / "bench" / "README.md").read_text()
    assert readme.count(BEGIN) == readme.count(END) == 1
