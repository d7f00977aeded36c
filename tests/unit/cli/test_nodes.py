"""`blobflow nodes` at the door: which images, which files, and what is told."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.cli.inputs.mirrors import mirrors_of
from blobflow.cli.options.nodes import NodeSelection
from blobflow.engine.results.report import ImageRecord, Report, Status, Totals
from blobflow.errors import UsageError
from blobflow.oci import parse_reference
from blobflow.oci.tag_selection.rules import TagRules
from blobflow.operations.airgap.load import ARCHIVES
from blobflow.operations.tags.search import ChosenTags, TagSearch
from tools.certificates import self_signed

SPEC = """\
version: 1
defaults: {source: docker.io, targets: [one.example.com/mirror, "http://two.example.com:5000"]}
images:
  - alpine:3.22
  - rancher/pause:3.1
  - {image: quay.io/team/app, tags: {semver: ">=1"}}
"""
ONE_TARGET = SPEC.replace('one.example.com/mirror, "http://two.example.com:5000"', "m.example")


@pytest.fixture(autouse=True)
def no_machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["nodes", *map(str, arguments)])


def spec(text: str = SPEC) -> Path:
    file = Path("mirror.yaml")
    file.write_text(text)
    return file


def no_tags(searches: object) -> dict[TagSearch, list[ChosenTags]]:
    raise AssertionError("a registry was asked for tags")


def test_a_spec_says_where_its_images_are_at_all_its_targets_in_order() -> None:
    done = run(spec(), "--format", "podman")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line.startswith(("prefix", "location"))] == [
        'prefix = "docker.io"',
        'location = "docker.io"',
        'location = "one.example.com/mirror"',
        'location = "two.example.com:5000"',
        'prefix = "quay.io"',
        'location = "quay.io"',
        'location = "one.example.com/mirror"',
        'location = "two.example.com:5000"',
    ]
    assert done.stdout.count("insecure = true") == 2, "the target that the spec gives as http://"


def mirrors_at(text: str, *targets: str) -> list[str]:
    selection = NodeSelection(spec=spec(text), targets=targets)
    return [mirror.rules[0].target for mirror in mirrors_of(selection, no_tags).mirrors]


def test_of_a_specs_targets_those_count_that_are_named() -> None:
    assert mirrors_at(SPEC) == ["one.example.com/mirror", "two.example.com:5000"]
    assert mirrors_at(SPEC, "two.example.com:5000", "one.example.com/mirror") == [
        *("two.example.com:5000", "one.example.com/mirror")
    ]
    assert mirrors_at(SPEC, "two.example.com:5000") == ["two.example.com:5000"]
    with pytest.raises(UsageError, match=r"m\.example is no target of mirror\.yaml, which has one\.example"):
        mirrors_at(SPEC, "m.example")
    assert mirrors_at(SPEC.replace(", targets: [one.example.com/mirror", "} #"), "m.example") == ["m.example"]


def test_what_a_format_can_not_say_is_left_out_on_request() -> None:
    done = run(spec(ONE_TARGET), "--format", "docker", "--partial")
    assert json.loads(done.stdout) == {"registry-mirrors": ["https://m.example"]}
    assert "warning: left out: docker has mirrors of docker.io alone" in done.stderr


def test_a_list_has_the_places_that_sync_gives_it() -> None:
    Path("list.txt").write_text("alpine:3.22\nteam/app:1\n")
    options = ("--images", "list.txt", "--to", "one.example.com/mirror", "--format", "containerd")
    done = run("--from", "quay.io/hub", *options)
    assert done.exit_code == 2
    assert "containerd mirrors whole registries alone, and quay.io/hub is at" in done.stderr
    done = run(*options)
    assert done.exit_code == 0
    assert "docker.io/hosts.toml" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "image", "place"),
    [
        (["--to", "m.example"], "quay.io/a/b:1", "m.example/a/b:1"),
        (["--from", "quay.io", "--to", "m.example/x"], "quay.io/a/b:1", "m.example/x/a/b:1"),
        (["--from", "quay.io/a", "--to", "m.example"], "quay.io/a/b:1", "m.example/b:1"),
        (
            ["--from", "quay.io", "--from", "docker.io", "--to", "m.example"],
            "nginx",
            "m.example/library/nginx:latest",
        ),
        (["--from", "quay.io", "--from", "quay.io/a", "--to", "m.example"], "quay.io/a/b:1", "m.example/b:1"),
        (
            ["--from", "docker.io", "--to", "m.example", "--scoped"],
            "nginx:1",
            "m.example/docker.io/library/nginx:1",
        ),
        (
            ["--from", "r.example:5000/a", "--to", "m.example", "--scoped"],
            "r.example:5000/a/b:1",
            "m.example/r.example_5000/a/b:1",
        ),
    ],
)
def test_places_alone_are_rules(arguments: list[str], image: str, place: str) -> None:
    given = [*zip(arguments[::2], arguments[1::2], strict=False)]
    selection = NodeSelection(
        sources=tuple(word for option, word in given if option == "--from"),
        targets=tuple(word for option, word in given if option == "--to"),
        scoped="--scoped" in arguments,
    )
    [mirror] = mirrors_of(selection, no_tags).mirrors
    assert str(mirror.place_of(parse_reference(image))) == place


def test_a_registry_is_asked_for_tags_only_where_a_tag_decides_the_place() -> None:
    [mirror] = mirrors_of(NodeSelection(spec=spec(ONE_TARGET)), no_tags).mirrors
    assert str(mirror.place_of(parse_reference("quay.io/team/app:7"))) == "m.example/team/app:7"

    renaming = (
        ONE_TARGET + '  - {image: quay.io/team/tool, tags: {include: ["1.*"]}, rename: {tag: "{tag}-x"}}\n'
    )
    asked: list[TagSearch] = []

    def find(searches: list[TagSearch]) -> dict[TagSearch, list[ChosenTags]]:
        asked.extend(searches)
        return {search: [ChosenTags("team/tool", ("1.1",))] for search in searches}

    selection = NodeSelection(spec=spec(renaming))
    [mirror] = mirrors_of(selection, find).mirrors  # type: ignore[arg-type]
    assert asked == [TagSearch("quay.io", "team/tool", TagRules(include=("1.*",)))]
    assert str(mirror.place_of(parse_reference("quay.io/team/tool:1.1"))) == "m.example/team/tool:1.1-x"


def report(*images: tuple[str, str, Status]) -> Path:
    records = [ImageRecord(source, target, "", "", (), status) for source, target, status in images]
    file = Path("run.json")
    file.write_bytes(msgspec.json.encode(Report(Totals(), tuple(records))))
    return file


def test_a_report_says_where_a_run_put_its_images() -> None:
    """Also where it read them from a bundle, under the names that they had."""
    bundle = "oci-archive:bundle.tar:docker.io/library/nginx:1"
    told = report(
        (bundle, "one.example.com/mirror/library/nginx:1", "done"),
        ("quay.io/a/b:1", "one.example.com/other:1", "failed"),
        ("docker.io/rancher/pause:3", "two.example.com/rancher/pause:3", "present"),
    )
    first, second = mirrors_of(NodeSelection(report=told), no_tags).mirrors
    assert str(first.place_of(parse_reference("nginx:1"))) == "one.example.com/mirror/library/nginx:1"
    assert first.place_of(parse_reference("quay.io/a/b:1")) is None
    assert str(second.place_of(parse_reference("rancher/pause:3"))) == "two.example.com/rancher/pause:3"

    done = run("--from-report", told, "--format", "containerd")
    assert (done.exit_code, done.stdout.count("[host.")) == (0, 2)
    done = run("--from-report", told, "--to", "m.example", "--format", "containerd")
    assert (done.exit_code, "leave all else" in done.stderr) == (2, True)


def test_a_report_of_a_run_that_failed_has_no_mirror() -> None:
    done = run("--from-report", report(("a.example/a:1", "m.example/a:1", "failed")), "--format", "k3s")
    assert (done.exit_code, "brought no image to its place" in done.stderr) == (2, True)


def test_a_report_of_load_does_not_say_what_nodes_pull() -> None:
    told = report((f"{ARCHIVES}/library/nginx:1", "m.example/library/nginx:1", "done"))
    done = run("--from-report", told, "--format", "k3s")
    assert (done.exit_code, "no registry that nodes know it by" in done.stderr) == (2, True)


def test_the_files_are_written_as_they_belong_on_a_node_with_certificates(tmp_path: Path) -> None:
    tls = self_signed(tmp_path / "tls")
    done = run(
        *("--from", "docker.io", "--to", "one.example.com/mirror", "--format", "containerd"),
        *("--ca", tls.cert, "--output", "node"),
    )
    assert (done.exit_code, done.stderr) == (0, "")
    folder = Path("node/etc/containerd/certs.d/docker.io")
    assert done.stdout.split() == [str(folder / "hosts.toml"), str(folder / "one.example.com.crt")]
    assert 'ca = "one.example.com.crt"' in (folder / "hosts.toml").read_text()
    assert tls.cert.read_text().strip() in (folder / "one.example.com.crt").read_text()


def test_a_key_beside_a_certificate_stays_where_it_is(tmp_path: Path) -> None:
    tls = self_signed(tmp_path / "tls")
    both = tmp_path / "both.pem"
    both.write_text(tls.key.read_text() + tls.cert.read_text())
    done = run(
        *("--from", "docker.io", "--to", "one.example.com", "--format", "podman", "--ca", both, "-o", "node")
    )
    assert done.exit_code == 0, done.stderr
    written = [file.read_text() for file in Path("node").rglob("*") if file.is_file()]
    assert len(written) == 2
    assert "PRIVATE KEY" not in "".join(written)
    assert "BEGIN CERTIFICATE" in "".join(written)


def test_what_somebody_else_wrote_is_not_replaced() -> None:
    daemon = Path("node/etc/docker/daemon.json")
    daemon.parent.mkdir(parents=True)
    daemon.write_text('{"log-driver": "journald"}')
    done = run("--from", "docker.io", "--to", "one.example.com", "--format", "docker", "-o", "node")
    assert done.exit_code == 2
    assert "not made by blobflow nodes" in done.stderr
    assert daemon.read_text() == '{"log-driver": "journald"}'


def test_what_blobflow_wrote_is_replaced() -> None:
    places = ("--from", "docker.io", "--format", "containerd", "-o", "node")
    assert run(*places, "--to", "one.example.com").exit_code == 0
    assert run(*places, "--to", "two.example.com").exit_code == 0
    text = Path("node/etc/containerd/certs.d/docker.io/hosts.toml").read_text()
    assert "two.example.com" in text and "one.example.com" not in text


def test_what_can_be_said_is_told_without_what_can_not() -> None:
    moved = spec(ONE_TARGET + "  - {image: library/nginx, tags: ['1'], target: base/nginx}\n")
    done = run(moved, "--format", "containerd")
    assert done.exit_code == 2
    assert "docker.io/library/nginx is at m.example/base/nginx" in done.stderr
    assert "--partial" in done.stderr
    done = run(moved, "--format", "containerd", "--partial")
    assert done.exit_code == 0
    assert done.stdout.count("hosts.toml") == 2
    assert "nginx" not in done.stdout
    assert "warning: left out: containerd mirrors whole registries alone" in done.stderr


def test_digests_that_a_mirror_may_not_have_are_told() -> None:
    some = ", platforms: [linux/arm64]"
    for more, told in ((some, True), (f"{some}, index: keep", False), ("", False)):
        text = ONE_TARGET.replace("{source: docker.io", "{source: docker.io" + more)
        done = run(spec(text), "--format", "podman")
        assert (done.exit_code, "with another digest" in done.stderr) == (0, told)


def test_warnings_are_events_where_these_are_asked_for() -> None:
    words = ("--format", "docker", "--partial", "--log-format", "json")
    done = run(spec(ONE_TARGET), *words)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(events) == 2
    assert "left out: docker has mirrors of docker.io alone" in events[0]["message"]
    assert "sends its login for docker.io to no mirror" in events[1]["message"]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("containerd", ["--from", "quay.io/a", "--to", "m.example/b"]),
        ("docker", ["--from", "quay.io", "--to", "m.example"]),
        ("podman", ["--to", "m.example"]),
        ("openshift", ["--to", "m.example"]),
        ("kyverno", ["--from", "quay.io", "--to", "registry/mirror"]),
    ],
)
def test_where_nothing_is_left_it_is_an_error(form: str, words: list[str]) -> None:
    done = run(*words, "--format", form, "--partial")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "nothing is left" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--format", "k3s"], "say where the images are"),
        (["--to", "m.example", "--format", "nomad"], "'nomad' is not one of"),
        (["--to", "m.example"], "Missing option '--format'"),
        (["--to", "oci:folder", "--format", "k3s"], "only a registry is a mirror"),
        (["--to", "m.example", "--to", "m.example", "--format", "k3s"], "given twice"),
        (["--to", "m.example", "--scoped", "--format", "k3s"], "--scoped keeps the host of --from"),
        (
            ["--images", "l", "--from", "a.io", "--from", "b.io", "--to", "m.io", "--format", "k3s"],
            "its host",
        ),
        (["--to", "m.example/UPPER", "--format", "k3s"], "lower case"),
        (["--from", "a.example", "--to", "m.example", "--ca", "none.pem", "--format", "k3s"], "none.pem"),
        (["none.yaml", "--format", "k3s"], "none.yaml"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], sentence: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_spec_whose_targets_are_folders_has_no_mirror() -> None:
    text = SPEC.replace('one.example.com/mirror, "http://two.example.com:5000"', '"oci:folder"')
    with pytest.raises(UsageError, match="only a registry is a mirror"):
        mirrors_of(NodeSelection(spec=spec(text)), no_tags)
    both = SPEC.replace('"http://two.example.com:5000"', '"oci:folder"')
    assert len(mirrors_of(NodeSelection(spec=spec(both)), no_tags).mirrors) == 1
