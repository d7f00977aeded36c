"""The short form of tools/fuzz_files: no file ends its reader with a traceback, or keeps it busy for long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.fuzz import Parser, feed, fuzz
from tools.fuzz_files import file_parsers, main, read_file

PARSERS = file_parsers()
NAMES = (
    "a.yaml",
    "values.yaml",
    "compose.yaml",
    ".gitlab-ci.yml",
    "Dockerfile",
    "images.txt",
    "a.sh",
    "a.json",
    "x",
    "a.yaml.j2",
    "Dockerfile.j2",
    "a.tf",
    "a.nomad",
    "docker-bake.hcl",
    "MODULE.bazel",
    "a.container",
    "a.service",
    "docker-bake.json",
    "cloudbuild.yaml",
    "devcontainer.json",
)
SIZE = 1 << 14  # of what is repeated; what is quadratic takes minutes for it
REPEATED = (
    *("a", " ", "\n", "\t", "-", "- ", "$", "${", "${A:-", "$A", "{{", "{{ a }}\n", "'", '"', "\\", "#", ":"),
    *("/", "@", "a: ", "image: a/b:1\n", "FROM a:1\n", "COPY --from=a b c\n", "RUN <<A\n", "docker run "),
    *("$(", "`", "A=$B\n", "<<A\n", 'if [ "$A" != b ]\n', "image: {", "x=(", "- image: $A\n", "\r", "\u2028"),
    *("- &a x\n- *a\n", "a: |\n  b\n", "{#", "{%", "{% a %}\n", "{image: a/b:1, "),
    *("oci.pull(\n", "/*", "//", '"\\'),
    *("task { config { image = ", 'resource "docker_image" "a" { name = "', "a = <<A\n"),
    *("[Container]\nImage=a\n", "a=b ", "ExecStart=docker run \\\n", "Mount=type=image,", "aImage: b/c\n"),
    *("steps: [{name: a/b, image: c, args: []}]\n", 'variable "a" {\n  default = "b"\n}\n', "- image: a\n"),
)  # fmt: skip


def test_mutated_files_are_read_or_refused_in_a_sentence() -> None:
    outcomes = fuzz(PARSERS, seed=1, rounds=60)
    assert all(sum(counts.values()) == 60 and counts["ok"] for counts in outcomes.values())
    assert any(counts["InvalidConfig"] for counts in outcomes.values())


@settings(max_examples=150)
@given(
    name=st.sampled_from(PARSERS),
    text=st.text(max_size=300) | st.lists(st.sampled_from(REPEATED)).map("".join),
)
def test_any_text_is_read_or_refused_in_a_sentence(name: Parser, text: str) -> None:
    feed(name, text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", NAMES)
def test_work_grows_with_the_size_and_not_faster(name: str) -> None:
    parser = Parser(name, lambda given: read_file(name, given), ())
    for text in REPEATED:
        feed(parser, (text * (SIZE // len(text))).encode())


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("a.yaml", "image: {{ a }}\n- --image="),
        ("a.yaml", "{{ a }}\n{{ with .Values"),
        ("a.yaml", "kind: ConfigMap\napiVersion: v1\ndata:\n  image: x\n  a: |\n    "),
        ("ci.gitlab-ci.yml", "a:\n  script: [x]\n  image: "),
        ("Dockerfile", "# syntax = "),
        ("Dockerfile", "FROM "),
        ("compose.yaml", "services:\n  a:\n    image: "),
    ],
)
def test_work_grows_no_faster_inside_of_a_file(name: str, before: str) -> None:
    parser = Parser(name, lambda given: read_file(name, given), ())
    for text in (
        " ",
        "-",
        ".",
        "$",
        "${A:-",
        "$[[inputs.a",
        "{{ ",
        "a ",
        "- ",
        "@",
        ":",
        "/a",
        "'",
        "a|default('b')",
    ):
        feed(parser, f"{before}{text * (SIZE // len(text))}x\n".encode())


@pytest.mark.soak
def test_many_mutated_files_are_read_or_refused_in_a_sentence() -> None:
    assert main(["--seconds", "600", "--seed", "7"]) == 0


def test_the_command_tells_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "0.01"]) == 0
    assert "kubernetes/workloads.yaml" in capsys.readouterr().out
