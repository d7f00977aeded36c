"""`blobflow images`, lock files, and `--images-from`: what is listed, what is asked for, and what is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.cli.inputs.checked_files import check_file
from blobflow.cli.inputs.collected import collect, images_of
from blobflow.cli.inputs.expansion import expand
from blobflow.cli.inputs.lock_file import LockedImage, lock_lines, make_lock, parse_lock
from blobflow.cli.inputs.requests import MirrorRequest, RegistryPrefix, parse_registry_prefix
from blobflow.cli.inputs.selection import read_request
from blobflow.cli.inputs.warm_request import request_at_edges
from blobflow.cli.options.images import SelectionOptions
from blobflow.deployment_files.lock_mark import is_lock
from blobflow.errors import BlobflowError, InvalidConfig, InvalidReference, UsageError
from blobflow.oci import parse_reference

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
POD = """\
apiVersion: v1
kind: Pod
spec:
  initContainers:
  - image: busybox:1.36
  containers:
  - image: nginx   # the web
  - image: quay.io/org/app:2
"""
COMPOSE = """\
services:
  web: {image: "nginx:latest"}
  app: {image: "${APP}"}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the test is: nothing of the machine's, and paths as a user would see them."""
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "k8s").mkdir()
    (tmp_path / "k8s" / "pod.yaml").write_text(POD)
    (tmp_path / "k8s" / "compose.yaml").write_text(COMPOSE)
    yield tmp_path
    asyncio.set_event_loop(None)


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, input=stdin)


def lines(*arguments: str, stdin: str | None = None) -> list[str]:
    done = run(*arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def lock(*images: tuple[str, str], platforms: tuple[str, ...] = ()) -> str:
    listed = [LockedImage(name, digest, ("linux/amd64",), 7, ("k8s/pod.yaml:5",)) for name, digest in images]
    return "".join(f"{line}\n" for line in lock_lines(make_lock(listed, platforms)))


def asked(request: MirrorRequest) -> list[tuple[str, str]]:
    """Source and target of each image."""
    return [(str(pair.source), str(pair.target)) for pair in expand(request, {}).pairs]


def chosen(*paths: str, **more: object) -> MirrorRequest:
    return read_request(SelectionOptions(images_from=paths, targets=("m.example/hub",), **more))  # type: ignore[arg-type]


# What is listed


def test_each_image_has_a_line_with_its_places_in_a_comment() -> None:
    done = run("images", "k8s")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "docker.io/library/busybox:1.36  # k8s/pod.yaml:5 initContainer",
        "docker.io/library/nginx:latest  # k8s/compose.yaml:2 compose image, k8s/pod.yaml:7 container",
        "quay.io/org/app:2               # k8s/pod.yaml:8 container",
    ]
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: k8s/compose.yaml line 3: '${APP}' (compose image) can't be told: it ")


def test_what_is_listed_is_a_list(folder: Path) -> None:
    (folder / "list").write_text(run("images", "k8s").stdout)
    assert sorted(asked(chosen("list"))) == sorted(asked(chosen("k8s")))
    listed = read_request(SelectionOptions(images=Path("list"), targets=("m.example/hub",)))
    assert sorted(asked(listed)) == sorted(asked(chosen("k8s")))
    assert lines("images", "list", "--plain") == lines("images", "k8s", "--plain")


def test_plain_names_are_alone_on_their_lines() -> None:
    assert lines("images", "k8s", "--plain") == [
        "docker.io/library/busybox:1.36",
        "docker.io/library/nginx:latest",
        "quay.io/org/app:2",
    ]


def test_json_has_every_place_and_what_can_not_be_told() -> None:
    found = json.loads(run("images", "k8s", "--json").stdout)
    nginx = found["images"][1]
    assert (nginx["image"], nginx["repository"]) == ("docker.io/library/nginx:latest", "library/nginx")
    assert nginx["places"] == [
        {"file": "k8s/compose.yaml", "line": 2, "field": "compose image", "written": "nginx:latest"},
        {"file": "k8s/pod.yaml", "line": 7, "field": "container", "written": "nginx"},
    ]
    (untold,) = found["untold"]
    assert (untold["file"], untold["line"], untold["written"]) == ("k8s/compose.yaml", 3, "${APP}")
    assert found["files"] == ["k8s/compose.yaml", "k8s/pod.yaml"]


def test_stdin_is_read_and_a_file_is_written_whole(folder: Path) -> None:
    assert lines("images", "-", "-o", "out", stdin=POD) == []
    assert (folder / "out").read_text() == run("images", "-", stdin=POD).stdout
    assert "stdin:5 initContainer" in (folder / "out").read_text()


def test_a_login_in_front_of_a_host_is_not_repeated(folder: Path) -> None:
    (folder / "k8s" / "pod.yaml").write_text(POD.replace("quay.io", "ann:hunter2@quay.io"))
    for arguments in ((), ("--json",)):
        assert "hunter2" not in run("images", "k8s/pod.yaml", *arguments, "-o", "out").output
        assert "hunter2" not in (folder / "out").read_text()


def test_strict_makes_a_place_that_can_not_be_told_an_error() -> None:
    done = run("images", "k8s", "--strict")
    assert done.exit_code == 3
    assert done.stdout.count("\n") == 3
    assert done.stderr.splitlines()[-1] == "blobflow: 1 place can't be told"
    assert run("images", "k8s/pod.yaml", "--strict").exit_code == 0


def test_events_are_asked_for_as_json() -> None:
    done = run("images", "k8s", "--log-format", "json")
    (event,) = map(json.loads, done.stderr.splitlines())
    assert event["event"] == "warning"


def test_quiet_says_nothing_of_what_can_not_be_told() -> None:
    assert run("images", "k8s", "-q").stderr == ""


def test_that_no_image_is_named_is_said(folder: Path) -> None:
    (folder / "note.md").write_text("# Hello\n")
    done = run("images", "note.md")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == "warning: note.md is of no format that is read\n"


def test_custom_resources_are_read_on_request_and_else_told_of(folder: Path) -> None:
    (folder / "k8s" / "own.yaml").write_text(
        "apiVersion: x.example/v1\nkind: Shop\nspec: {image: 'quay.io/org/shop:1'}\n"
    )
    assert "k8s/own.yaml has custom resources" in run("images", "k8s").stderr
    assert "quay.io/org/shop:1" in lines("images", "k8s", "--custom-resources", "--plain")
    assert ("quay.io/org/shop:1", "m.example/hub/org/shop:1") in asked(chosen("k8s", custom_resources=True))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("images",), "Missing argument"),
        (("images", "nowhere"), "there is no file or folder nowhere"),
        (("images", "k8s", "--plain", "--json"), "--plain prints names alone"),
        (("images", "k8s", "--platform", "linux/amd64"), "--platform says what --lock counts"),
        (("images", "k8s", "--lock", "--platform", "x"), "'x'"),
        (("images", "k8s", "-o", "json"), "--json prints what other tools call json"),
        (("images", "k8s", "-o", "no/such/file"), "there is no folder no/such"),
        (("sync", "--images-from", "nowhere", "--to", "m.example"), "there is no file or folder nowhere"),
        (("sync", "--images-from", "k8s"), "give a spec file, or --from, --to as well"),
        (
            ("plan", "--images-from", "k8s/compose.yaml", "--from", "r.example", "--to", "m.example"),
            "r.example",
        ),
        (("save", "-o", "b.tar"), "--images-from FILE"),
    ],
)
def test_what_can_not_be_asked_for_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert sentence in done.stderr.splitlines()[-1]


# Lock files


def test_a_lock_file_has_an_image_a_line_and_reads_as_it_was_written() -> None:
    text = lock(("quay.io/a/b:2", B), ("docker.io/library/nginx:1", A), platforms=("linux/amd64",))
    assert text.splitlines()[1:] == [
        "lock: 1",
        "platforms: [linux/amd64]",
        "images:",
        f"- {{image: docker.io/library/nginx:1, digest: {A}, platforms: [linux/amd64], size: 7, "
        "places: [k8s/pod.yaml:5]}",
        f"- {{image: quay.io/a/b:2, digest: {B}, platforms: [linux/amd64], size: 7, "
        "places: [k8s/pod.yaml:5]}",
    ]
    assert is_lock(text)
    read, at = parse_lock(text, "x.lock")
    assert ([each.image for each in read.images], at) == (
        ["docker.io/library/nginx:1", "quay.io/a/b:2"],
        [5, 6],
    )
    assert "".join(f"{line}\n" for line in lock_lines(read)) == text


@pytest.mark.parametrize(
    "place", ["a b.yaml:1", "ä/🐳.yaml:2", "x,y: [z].yaml:3", "\x1b[2J.yaml:4", "on", "1:2"]
)
def test_any_place_can_stand_in_a_lock_file(place: str) -> None:
    text = "".join(f"{each}\n" for each in lock_lines(make_lock([LockedImage("a/b:1", A, places=(place,))])))
    (image,) = parse_lock(text, "x")[0].images
    assert image.places == (place.replace("\x1b", "\\x1b"),)


def test_a_lock_file_may_be_formatted_anew() -> None:
    document = {"lock": 1, "images": [{"image": "a/b:1", "digest": A}]}
    for text in (
        json.dumps(document),
        json.dumps(document, indent=4),
        "---\n# of us\n\nlock: 1\nimages: []\n",
    ):
        assert is_lock(text)
        parse_lock(text, "x")


@pytest.mark.parametrize(
    "text", ["", "locked: 1\n", "images: []\nlock: 1\n", "lock: me\n", "# lock: 1\nnginx\n"]
)
def test_other_files_are_no_lock_files(text: str) -> None:
    assert not is_lock(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lock: 2\nimages: []\n", "x is a lock file of version 2; this blobflow reads version 1"),
        ("lock: 1\n", "images"),
        ("lock: 1\nimages:\n- {image: a/b:1, digest: sha256:1}\n", "x line 3"),
        ("lock: 1\nimages:\n- {image: 'A:1', digest: " + A + "}\n", "x line 3"),
        ("lock: 1\nimages:\n- {image: 'oci:here', digest: " + A + "}\n", "an image at a registry is needed"),
        (f"lock: 1\nimages:\n- {{image: 'a@{A}', digest: '{B}'}}\n", "locked to another digest than its own"),
        ("lock: 1\nimages: [\n", "is not YAML"),
        ("lock: 1\nimages:\n- &a {image: 'a/b:1', digest: " + A + "}\n- *a\n", "has an alias of line 3"),
    ],
)
def test_what_is_wrong_with_a_lock_file_is_told_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises((InvalidConfig, InvalidReference), match=sentence):
        parse_lock(text, "x")


# What is asked for


def test_images_of_files_keep_their_paths_as_those_of_a_list_do() -> None:
    assert asked(chosen("k8s")) == [
        ("docker.io/library/nginx:latest", "m.example/hub/library/nginx:latest"),
        ("docker.io/library/busybox:1.36", "m.example/hub/library/busybox:1.36"),
        ("quay.io/org/app:2", "m.example/hub/org/app:2"),
    ]
    (warning,) = chosen("k8s").warnings
    assert "k8s/compose.yaml line 3" in warning


def test_locked_digests_are_asked_for_under_their_tags(folder: Path) -> None:
    (folder / "images.lock").write_text(
        lock(("quay.io/org/app:2", A), platforms=("linux/amd64", "linux/arm64"))
    )
    request = chosen("images.lock")
    assert asked(request) == [(f"quay.io/org/app:2@{A}", "m.example/hub/org/app:2")]
    assert [str(each) for each in request.images[0].choice.platforms] == ["linux/amd64", "linux/arm64"]
    assert request.images[0].locked
    assert lines("images", "images.lock", "--plain") == [f"quay.io/org/app:2@{A}"]


def test_a_lock_file_in_a_folder_is_read_where_it_is_named(folder: Path) -> None:
    (folder / "k8s" / "images.lock.yaml").write_text(lock(("quay.io/org/app:2", A)))
    assert not any(image.locked for image in chosen("k8s").images)
    pinned = dict(asked(chosen("k8s", "k8s/images.lock.yaml")))
    assert pinned[f"quay.io/org/app:2@{A}"] == "m.example/hub/org/app:2"
    assert "quay.io/org/app:2" not in pinned


def test_a_lock_pins_what_other_sources_name(folder: Path) -> None:
    (folder / "images.lock").write_text(lock(("quay.io/org/app:2", A)))
    (folder / "spec.yaml").write_text(
        "version: 1\ndefaults: {targets: [m.example]}\n"
        "images: [{image: 'quay.io/org/app:2', target: x/y}, a/b:1]\n"
    )
    request = read_request(SelectionOptions(spec=Path("spec.yaml"), images_from=("images.lock",)))
    assert asked(request) == [
        (f"quay.io/org/app:2@{A}", "m.example/x/y:2"),
        ("docker.io/a/b:1", "m.example/a/b:1"),
    ]


def test_digests_of_one_tag_are_brought_by_digest_alone(folder: Path) -> None:
    (folder / "list.txt").write_text(f"a/b:1@{A}\na/b:1@{B}\nc/d:1\nc/d:1@{A}\ne/f:1@{A}\ne/f:1@{A}\n")
    assert asked(chosen("list.txt")) == [
        (f"docker.io/a/b@{A}", f"m.example/hub/a/b@{A}"),
        (f"docker.io/a/b@{B}", f"m.example/hub/a/b@{B}"),
        ("docker.io/c/d:1", "m.example/hub/c/d:1"),
        (f"docker.io/c/d@{A}", f"m.example/hub/c/d@{A}"),
        (f"docker.io/e/f:1@{A}", "m.example/hub/e/f:1"),
    ]


def test_what_was_rewritten_is_not_brought_to_where_it_is(folder: Path) -> None:
    (folder / "list.txt").write_text("m.example/hub/a/b:1\nm.example/other/c:1\nnginx\n")
    request = chosen("list.txt")
    assert [source for source, _ in asked(request)] == [
        "m.example/other/c:1",
        "docker.io/library/nginx:latest",
    ]
    (warning,) = request.warnings
    assert warning.endswith("that is there by its name: 1 image named in files: m.example/hub/a/b:1")
    (folder / "list.txt").write_text("m.example/hub/a/b:1\n")
    with pytest.raises(UsageError, match=r"nothing is brought to m\.example/hub"):
        chosen("list.txt")


def test_other_sources_may_name_the_same(folder: Path) -> None:
    (folder / "list").write_text("nginx\na/b:1\n")
    request = chosen("k8s", images=Path("list"))
    sources = [source for source, _ in asked(request)]
    assert len(sources) == len(set(sources)) == 4


def test_from_says_where_the_images_are_now() -> None:
    here = chosen("k8s/pod.yaml", source="r.example/cache", any_host=True)
    assert asked(here)[0] == ("r.example/cache/library/busybox:1.36", "m.example/hub/library/busybox:1.36")
    with pytest.raises(UsageError, match=r"pod.yaml line 5: docker.io/library/busybox:1.36 is of"):
        chosen("k8s/pod.yaml", source="r.example/cache")


def test_warm_takes_the_same() -> None:
    edge = request_at_edges(SelectionOptions(images_from=("k8s",)), [RegistryPrefix("edge.example")])
    assert ("quay.io/org/app:2", "edge.example/org/app:2") in asked(edge)


# Specs


def spec(folder: Path, text: str) -> MirrorRequest:
    (folder / "deploy").mkdir(exist_ok=True)
    (folder / "deploy" / "spec.yaml").write_text(f"version: 1\ndefaults: {{targets: [m.example]}}\n{text}\n")
    return read_request(SelectionOptions(spec=Path("deploy/spec.yaml")))


def test_a_spec_collects_what_files_beside_it_name(folder: Path) -> None:
    request = spec(folder, "collect: [../k8s/pod.yaml]\nimages: [nginx, a/b:1]")
    assert [source for source, _ in asked(request)] == [
        "docker.io/library/nginx:latest",
        "docker.io/a/b:1",
        "docker.io/library/busybox:1.36",
        "quay.io/org/app:2",
    ]
    assert request.images[2].where == "deploy/../k8s/pod.yaml line 5"


def test_patterns_find_files_once(folder: Path) -> None:
    for pattern in ("../k8s/*.yaml", "../**/*.yaml", "../k8s/**", "../k8s", f"{folder}/k8s"):
        request = spec(folder, f"collect: ['{pattern}']")
        assert len(request.images) == 3
        assert len(request.warnings) == 1


def test_what_is_collected_has_the_defaults_of_the_spec(folder: Path) -> None:
    (folder / "deploy").mkdir()
    (folder / "deploy" / "spec.yaml").write_text(
        "version: 1\ncollect: [{path: ../k8s, custom-resources: true}]\n"
        "defaults:\n  targets: [m.example]\n  platforms: [linux/arm64]\n  referrers: always\n"
        "  backup: '{{tag}}-old'\n  policy: policy.json\n  every: 6h\n"
    )
    image = read_request(SelectionOptions(spec=Path("deploy/spec.yaml"))).images[0]
    assert [str(each) for each in image.choice.platforms] == ["linux/arm64"]
    assert (image.referrers, image.backup) == ("always", "{tag}-old")
    assert image.signature_policy == "deploy/policy.json"
    assert image.schedule is not None


@pytest.mark.parametrize(
    ("collect", "sentence"),
    [
        ("[nowhere]", r"deploy/spec.yaml line 3: there is no file or folder deploy/nowhere"),
        ("['no*.yaml']", r"deploy/spec.yaml line 3: nothing matches 'no\*.yaml'"),
        ("['']", "names a file, a folder or a pattern"),
        ("[1]", "collect"),
        ("[{paht: x}]", "path"),
        ("[../empty.yaml]", "line 3: no image is named in what is collected"),
    ],
)
def test_what_can_not_be_collected_is_told_with_its_line(folder: Path, collect: str, sentence: str) -> None:
    (folder / "empty.yaml").write_text("a: 1\n")
    with pytest.raises(UsageError, match=sentence):
        spec(folder, f"collect: {collect}")


def test_a_spec_that_collects_is_checked(folder: Path) -> None:
    spec(folder, "collect: [../k8s]\nimages: [a/b:1]")
    assert check_file(Path("deploy/spec.yaml"), None, {}).summary == "4 images"
    done = run("config", "check", "deploy/spec.yaml")
    assert done.exit_code == 0


def test_nothing_is_collected_twice_or_from_nothing(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match="empty: no image is named there"):
        chosen("empty")
    for more in ({"spec": Path("-")}, {"images": Path("-")}):
        with pytest.raises(UsageError, match="stdin can be read once"):
            chosen("-", **more)
    with pytest.raises(BlobflowError, match="1 place"):
        (folder / "untold.yaml").write_text("services: {a: {image: '${A}'}}\n")
        chosen("untold.yaml")


def test_the_requests_of_a_source_have_its_prefix() -> None:
    source = parse_registry_prefix("quay.io/org")
    (image,) = [each for each in images_of(collect(["k8s"]), source, any_host=True) if each.path == "org/app"]
    assert image.origin == parse_reference("quay.io/org/org/app:2")
