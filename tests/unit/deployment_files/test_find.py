"""Files, folders and a stream: what is read, what is passed over, and what is refused in a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blobflow.deployment_files import find, formats, yaml_tree
from blobflow.deployment_files.find import find_images
from blobflow.deployment_files.source_text import SourceText
from blobflow.errors import InvalidConfig, UsageError

POD = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - image: registry.example.com/app:1\n"
CUSTOM = "apiVersion: example.com/v1\nkind: Database\nspec:\n  image: registry.example.com/db:1\n"


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def names(folder: Path, *, custom_resources: bool = False) -> list[str]:
    found = find_images([str(folder)], custom_resources=custom_resources)
    return [f"{Path(image.path).relative_to(folder)}:{image.line}" for image in found.images]


def refused(text: str, name: str = "file.yaml") -> str:
    with pytest.raises(InvalidConfig) as refusal:
        find_images(["-"], stdin=text.encode()) if name == "-" else read(name, text)
    assert "\n" not in refusal.value.message
    return refusal.value.message


def read(name: str, text: str) -> None:
    source = SourceText(name, text)
    formats.Reading(source, custom_resources=True, env=dict).read()


def test_a_folder_is_read_in_order_without_what_is_not_deployed(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "b/pod.yaml": POD,
            "a.yml": POD,
            "Dockerfile": "FROM alpine\n",
            ".github/workflows/ci.yml": "jobs:\n  a:\n    runs-on: x\n    container: alpine:3\n",
            ".git/pod.yaml": POD,
            "node_modules/x/pod.yaml": POD,
            "vendor/pod.yaml": POD,
            "notes.md": POD,
            "images.txt": "alpine\n",
            "requirements.txt": "alpine:3\n",
        },
    )
    assert names(tmp_path) == [
        "Dockerfile:1",
        "a.yml:5",
        "images.txt:1",
        ".github/workflows/ci.yml:4",
        "b/pod.yaml:5",
    ]


def test_a_link_out_of_the_folder_is_passed_over_and_one_in_it_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"outside/pod.yaml": POD, "folder/real.yaml": POD})
    (tmp_path / "folder" / "in.yaml").symlink_to("real.yaml")
    (tmp_path / "folder" / "out.yaml").symlink_to(tmp_path / "outside" / "pod.yaml")
    (tmp_path / "folder" / "more").symlink_to(tmp_path / "outside")
    assert names(tmp_path / "folder") == ["in.yaml:5", "real.yaml:5"]
    [(path, why)] = find_images([str(tmp_path / "folder")]).passed_over
    assert (Path(path).name, why) == ("out.yaml", "is a link out of the folder")


def test_what_cant_be_read_in_a_folder_is_passed_over_and_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, {"bad.yaml": "a: [b\n", "good.yaml": POD, "other.yaml": "a: b\n"})
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    found = find_images([str(tmp_path)])
    assert len(found.images) == 1
    assert [Path(path).name for path, _ in found.passed_over] == ["bad.yaml", "latin.yaml", "other.yaml"]
    assert found.passed_over[0][1].startswith("line 2 is not YAML")
    for name, why in (("bad.yaml", "line 2 is not YAML"), ("latin.yaml", "is no text in UTF-8")):
        with pytest.raises(InvalidConfig, match=why):
            find_images([str(tmp_path / name)])


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file or folder"):
        find_images([str(tmp_path / "missing.yaml")])
    with pytest.raises(InvalidConfig, match="can't read"):
        find_images(["a\0b"])
    with pytest.raises(UsageError, match="stdin"):
        find_images(["-"])


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        (POD, "registry.example.com/app:1"),
        ("FROM alpine:3\nRUN x\n", "docker.io/library/alpine:3"),
        ("services:\n  a:\n    image: alpine:3\n", "docker.io/library/alpine:3"),
        ("alpine:3\nregistry.example.com/b:1\n", "docker.io/library/alpine:3"),
        ("jobs:\n  a:\n    runs-on: x\n    container: alpine:3\n", "docker.io/library/alpine:3"),
        ("a:\n  image: alpine:3\n  script: [x]\n", "docker.io/library/alpine:3"),
        ("spec:\n  template:\n    spec:\n      containers: [{image: a:3}]\n", "docker.io/library/a:3"),
        ("steps:\n  - image: alpine:3\n", "docker.io/library/alpine:3"),
        ("image:\n  repository: alpine\n  tag: 3\n", "docker.io/library/alpine:3"),
        ("#!/bin/bash\ndocker run alpine:3\n", "docker.io/library/alpine:3"),
        ("- hosts: a\n  tasks:\n    - docker_container: {image: 'alpine:3'}\n", "docker.io/library/alpine:3"),
        ("[" + '{"kind":"Pod","apiVersion":"v1","spec":{"containers":[{"image":"alpine:3"}]}}' + "]",
         "docker.io/library/alpine:3"),
    ],
)  # fmt: skip
def test_a_stream_is_known_by_what_stands_in_it(text: str, reference: str) -> None:
    found = find_images(["-"], stdin=text.encode())
    assert str(found.images[0].reference) == reference
    assert found.images[0].path == find.STDIN


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "a: b\n", "just some words\n", "{}", "---\n---\n", "- 1\n- 2\n"]
)
def test_a_stream_without_images_is_passed_over(text: str) -> None:
    found = find_images(["-"], stdin=text.encode())
    assert (found.images, found.untold) == ((), ())


def test_utf_16_with_a_mark_is_read_as_powershell_writes_it(tmp_path: Path) -> None:
    (tmp_path / "pod.yaml").write_bytes(POD.replace("\n", "\r\n").encode("utf-16"))
    [image] = find_images([str(tmp_path)]).images
    text = (tmp_path / "pod.yaml").read_bytes().decode("utf-16-le")
    assert text[image.parts[0].start : image.parts[0].end] == "registry.example.com/app:1"


def test_custom_resources_are_read_on_request_and_hinted_at_else(tmp_path: Path) -> None:
    write(tmp_path, {"db.yaml": CUSTOM, "none.yaml": CUSTOM.replace("image: ", "text: ").replace(":1", "")})
    assert names(tmp_path, custom_resources=True) == ["db.yaml:4"]
    found = find_images([str(tmp_path)])
    assert found.images == ()
    [(path, why)] = found.passed_over
    assert (Path(path).name, why) == (
        "db.yaml",
        "has custom resources whose fields may name images: Database",
    )


def test_containers_of_custom_resources_are_read_without_request() -> None:
    rollout = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nspec:\n  template:\n    spec:\n"
    found = find_images(["-"], stdin=f"{rollout}      containers: [{{image: 'alpine:3'}}]\n".encode())
    assert [image.field for image in found.images] == ["container"]
    assert found.passed_over == ()


def test_the_env_beside_a_compose_file_is_read_with_it_alone(tmp_path: Path) -> None:
    write(
        tmp_path,
        {".env": "TAG=9\n", "compose.yaml": "services:\n  a:\n    image: app:${TAG}\n", "other.yaml": POD},
    )
    [place] = find_images([str(tmp_path / "compose.yaml")]).untold
    assert place.likely == "docker.io/library/app:9"
    assert "the .env beside the file sets TAG" in place.reason


def test_a_login_in_front_of_a_host_is_not_shown() -> None:
    text = POD.replace("registry.example.com", "ann:secret@registry.example.com")
    [place] = find_images(["-"], stdin=text.encode()).untold
    assert place.written == "***@registry.example.com/app:1"
    assert "secret" not in repr(place)


# Bounds


def test_a_file_of_100_mb_is_refused_after_its_first_16(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(100 * 1000**2)
    with pytest.raises(InvalidConfig, match="has more than 16 MiB; is it a deployment file"):
        find_images([str(large)])
    [(_, why)] = find_images([str(tmp_path)]).passed_over
    assert "16 MiB" in why
    with pytest.raises(InvalidConfig, match="stdin has more than 16 MiB"):
        find_images(["-"], stdin=bytes(find.MAX_BYTES + 1))


def test_a_pipe_that_nobody_writes_to_is_not_read_in_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert find_images([str(tmp_path)]).files == ()


def test_a_million_aliases_end_in_a_sentence() -> None:
    assert refused("a: &a x\nb: [" + "*a, " * 1_000_000 + "]").endswith("has over 100000 aliases")


def test_bounds_are_told_of_a_stream_too_whose_format_is_not_known() -> None:
    with pytest.raises(InvalidConfig, match="stdin line 2 has over 100000 aliases"):
        find_images(["-"], stdin=b"a: &a x\nb: [" + b"*a, " * 100_001 + b"]")


def test_text_in_a_value_that_is_no_yaml_does_not_end_the_file() -> None:
    values = ("image: *.log", "image: [" + "[" * 200, "image: a: b", "image: @x")
    data = "".join(f"  k{number}: |\n    {value}\n" for number, value in enumerate(values))
    text = f"kind: ConfigMap\napiVersion: v1\ndata:\n{data}---\n{POD}"
    assert len(find_images(["-"], stdin=text.encode()).images) == 1


def test_aliases_that_stand_for_ever_more_are_read_once() -> None:
    levels = ["a0: &a0 {image: 'registry.example.com/once:1'}"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    found = find_images(["-"], stdin=("apiVersion: example.com/v1\nkind: X\n" + "\n".join(levels)).encode(),
                        custom_resources=True)  # fmt: skip
    assert len(found.images) == 1


def test_mappings_that_merge_each_other_without_end_are_bounded() -> None:
    merged = "".join(f"m{n}: &m{n} {{<<: *m{n - 1}}}\n" for n in range(1, 90))
    text = f"services:\n  z: {{image: 'alpine:3'}}\nm0: &m0 {{image: 'alpine:2'}}\n{merged}"
    assert len(find_images(["-"], stdin=text.encode()).images) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 200, "file.yaml line 1 is nested over 100 levels deep"),
        ("a: &a [*a]\n", "file.yaml line 1 has an alias that stands inside what it names: *a"),
        ("a: *b\n", "file.yaml line 1 has an alias that names no anchor before it: *b"),
        ("a: \x01\n", "file.yaml has a character that YAML forbids"),
        ("a: b: c\n", "file.yaml line 1 is not YAML"),
        ("a0: &a0 x\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 120)), "nested over 100"),
    ],
)  # fmt: skip
def test_what_no_reader_should_follow_is_refused(text: str, sentence: str) -> None:
    assert sentence in refused(text)


def test_more_values_lines_and_images_than_are_held_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_tree, "MAX_NODES", 1000)
    assert "has over 1000 values" in refused("- a\n" * 1001)
    monkeypatch.setattr(formats, "MAX_LINES", 1000)
    assert "has over 1000 lines" in refused("alpine:3\n" * 1002, "images.txt")
    monkeypatch.setattr("blobflow.deployment_files.findings.MAX_PLACES", 10)
    assert "names over 10 images" in refused("alpine:3\n" * 100, "images.txt")


def test_a_folder_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "MAX_FILES", 3)
    write(tmp_path, {f"{number}.yaml": POD for number in range(5)})
    with pytest.raises(InvalidConfig, match="has over 3 files"):
        find_images([str(tmp_path)])


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("images.txt", "", "is empty"),
        ("images.txt", "# later\n", "has nothing but comments"),
        ("a.yaml", "---\n# later\n---\n", "has nothing but comments"),
        ("note.md", "# Title\n", "is of no format that is read"),
    ],
)
def test_a_file_with_nothing_in_it_is_told_as_such(tmp_path: Path, name: str, text: str, why: str) -> None:
    file = write(tmp_path, {name: text}) / name
    assert find_images([str(file)]).passed_over == ((str(file), why),)


def test_what_skaffold_builds_is_pulled_by_nobody(tmp_path: Path) -> None:
    pod = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: shop\n  - image: redis:7\n"
    files = {
        "app/skaffold.yaml": "apiVersion: skaffold/v4\nkind: Config\nbuild: {artifacts: [{image: shop}]}\n",
        "app/k8s/pod.yaml": pod,
        "other/pod.yaml": pod,
    }
    found = find_images([str(write(tmp_path, files))])
    names = [(Path(image.path).parent.name, image.written) for image in found.images]
    assert names == [("k8s", "redis:7"), ("other", "shop"), ("other", "redis:7")]
    (untold,) = found.untold
    assert (untold.line, untold.reason) == (5, f"is built by {tmp_path}/app/skaffold.yaml")
    assert [(image.written, image.line) for image, _ in found.matched] == [("shop", 5)]
