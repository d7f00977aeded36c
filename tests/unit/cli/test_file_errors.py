"""All that is wrong with a file is told at once: each with its line, typing mistakes first, and not without
end."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.cli.inputs.expansion import expand
from blobflow.cli.inputs.image_list import parse_image_list
from blobflow.cli.inputs.manifest_tool import parse_manifest_tool
from blobflow.cli.inputs.requests import RegistryPrefix
from blobflow.cli.inputs.selection import read_request
from blobflow.cli.inputs.spec_formats import read_spec
from blobflow.cli.options.images import SelectionOptions
from blobflow.config_file import parse_config
from blobflow.errors import InvalidFile, UsageError
from blobflow.file_errors import MAX_LISTED

OURS = """\
version: 1
defualts: {targets: ['bad host', 't:1'], backup: 'a/b'}
imagez:
- A/b:1
- {image: a/b, tag: [1.10]}
- {image: a/b:1, tags: [x]}
- {image: a/b, every: soon}
- a/c:1
"""
SKOPEO = """\
r.example.com:
  images:
    a: [b/c, '1']
    B: ['1']
  images-by-semverr: {c: new}
'r r':
  tls-verfy: true
  images: {d: 3}
"""
REGSYNC = """\
version: 2
creds:
- {registry: 'o o'}
- {registry: r.example.com, tls: maybe, mirors: [x]}
sync:
- {source: A, target: 't:1/a', type: image}
- {source: a, target: 't:1/a', type: imag, bakcup: x}
- {source: a, type: image}
- {source: a, target: 't:1/a', type: image, backup: '{{.Ref.Tga}}'}
"""
MANIFEST_TOOL = """\
image: h:1/A
tags: [a b, ok]
manifests:
- {image: h:1/a, platform: {archtecture: amd64}}
- {image: h:1/B}
- {platform: {os: linux}}
"""
CONFIG = """\
[registry."docker.io"]
mirors = ["https://x"]
connections = 0

[registry."a b"]

[registry."r.example"]
http = true
ca = ["x"]
profile = {rungs = [], chunk_bytez = 3}
keypair = [
  {key = "k"},
]
"""


def spec(text: str) -> object:
    return read_spec(text, "f", (RegistryPrefix("t:1"),) if text is SKOPEO else ())


FILES: dict[str, tuple[Callable[[str], object], str, list[str]]] = {
    "ours": (
        spec,
        OURS,
        [
            "f line 2: unknown key `defualts`; did you mean `defaults`?",
            "f line 3: unknown key `imagez`; did you mean `images`?",
            "f line 5: unknown key `tag`; did you mean `tags`?",
            "f line 2: defaults: backup: 'a/b' is a place",
            "f line 2: defaults.targets: 'bad host' is not a registry host",
            "f line 4: 'A/b:1' is not a reference",
            "f line 5: imagez[1].tag[0] is 1.10, which YAML reads as a number; quote it: '1.10'",
            "f line 6: a/b:1 has `tags` as well as a tag",
            "f line 7: 'soon' is no span of time",
        ],
    ),
    "skopeo's": (
        spec,
        SKOPEO,
        [
            "f line 5: unknown key `images-by-semverr`; did you mean `images-by-semver`?",
            "f line 7: unknown key `tls-verfy`; did you mean `tls-verify`?",
            "f line 3: 'b/c' is not a reference: bad tag",
            "f line 4: 'B' is not a reference",
            "f line 5: 'new' is no range",
            "f line 6: 'r r' is not a registry host",
            "f line 8: images.d: expected `list`, got `text`",
        ],
    ),
    "regsync's": (
        spec,
        REGSYNC,
        [
            "f has version 2; of regsync's, blobflow reads version 1",
            "f line 4: unknown key `mirors`; did you mean `mirrors`?",
            "f line 7: unknown key `bakcup`; did you mean `backup`?",
            "f line 3: 'o o' is not a registry host",
            "f line 4: tls of r.example.com is enabled, insecure or disabled",
            "f line 6: 'A' is not a reference",
            "f line 7: the type 'imag' is none",
            "f line 8: sync[2]: it misses the field `target`",
            "f line 9: the template `{{.Ref.Tga}}` can't be filled in",
        ],
    ),
    "manifest-tool's": (
        lambda text: parse_manifest_tool(text, "f"),
        MANIFEST_TOOL,
        [
            "f line 4: unknown key `archtecture`; did you mean `architecture`?",
            "f line 1: image: 'h:1/A' is not a reference",
            "f line 2: tags[0]: 'a b' is not a reference",
            "f line 5: manifests[1].image: 'h:1/B' is not a reference",
            "f line 6: manifests[2]: it misses the field `image`",
        ],
    ),
    "the configuration": (
        lambda text: parse_config(text, "f", Path("/etc")),
        CONFIG,
        [
            'f line 2: [registry."docker.io"]: unknown key `mirors`; did you mean `mirrors`?',
            'f line 10: [registry."r.example"] profile: unknown key `chunk_bytez`; did you mean',
            "f line 2: [registry.\"docker.io\"] mirrors: 'https://x' is a URL; write 'x'",
            'f line 3: [registry."docker.io"] connections: expected `int` >= 1',
            "f line 5: [registry.\"a b\"]: 'a b' is not a registry host",
            'f line 8: [registry."r.example"]: `http` goes without TLS',
            'f line 10: [registry."r.example"] profile: `rungs` is empty',
            'f line 11: [registry."r.example"] keypair[0]: it misses the field `cert`',
        ],
    ),
}


@pytest.mark.parametrize(("read", "text", "sentences"), FILES.values(), ids=FILES)
def test_a_file_is_read_to_its_end_whatever_is_wrong_with_it(
    read: Callable[[str], object], text: str, sentences: list[str]
) -> None:
    with pytest.raises(InvalidFile) as caught:
        read(text)
    assert caught.value.exit_code == 2
    assert len(caught.value.errors) == len(sentences), caught.value.errors
    for said, sentence in zip(caught.value.errors, sentences, strict=True):
        assert said.startswith(sentence)
        assert "\n" not in said


@pytest.mark.parametrize("count", [MAX_LISTED, MAX_LISTED + 1, 5000])
def test_only_so_many_errors_are_listed(count: int) -> None:
    text = "version: 1\ndefaults: {targets: ['t:1']}\nimages:\n" + "- A/b\n" * count
    with pytest.raises(InvalidFile) as caught:
        read_spec(text, "f")
    more = caught.value.errors[MAX_LISTED:]
    assert more == ((f"and {count - MAX_LISTED} more like these",) if count > MAX_LISTED else ())


def test_typing_mistakes_are_listed_whatever_comes_before_them() -> None:
    wrong, misspelt = "- {image: a, platforms: 5}\n" * 30, "- {image: b, tagz: ['1']}\n" * 4
    with pytest.raises(InvalidFile) as caught:
        read_spec("version: 1\ndefaults: {targets: ['t:1']}\nimages:\n" + wrong + misspelt, "f")
    said = caught.value.errors
    assert [each.partition(": ")[2][:18] for each in said[:4]] == ["unknown key `tagz`"] * 4
    lines = [each.partition(": ")[0] for each in said[4:MAX_LISTED]]
    assert lines == [f"f line {4 + at}" for at in range(16)]
    assert said[MAX_LISTED:] == ("and 14 more like these",)


def test_a_file_of_mistakes_alone_is_not_read_for_ever() -> None:
    with pytest.raises(InvalidFile) as caught:
        read_spec("version: 1\nimages:\n" + "- 1\n" * 5000, "f")
    assert len(caught.value.errors) == MAX_LISTED + 1


def test_a_key_that_is_misspelt_beside_the_right_one_is_not_taken_for_it() -> None:
    text = "version: 1\ndefaults: {targets: ['t:1']}\nimages: [a]\nimage: [A]"
    with pytest.raises(UsageError) as caught:
        read_spec(text, "f")
    assert str(caught.value) == "f line 4: unknown key `image`; did you mean `images`?"


def blobflow(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def test_the_command_line_prints_a_line_for_each_and_no_advice_before_them(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(OURS)
    done = blobflow("sync", str(file), "--to", "t:1", "--scoped")
    assert done.exit_code == 2
    lines = done.stderr.splitlines()
    assert len(lines) == len(FILES["ours"][2])
    assert all(line.startswith(f"blobflow: {file} line ") for line in lines)
    assert "--to" not in done.stderr


def test_json_logs_have_all_of_it_in_one_event(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("version: 1\nimagez: [A/b]\n")
    done = blobflow("plan", str(file), "--log-format", "json")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert "imagez" in line
    assert "A/b:" not in line
    assert "'A/b' is not a reference" in line


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "version: 1\nimages: [a]\ntargest: [r:1]\n",
            "3: unknown key `targest`; did you mean `targets` under",
        ),
        (
            "synk: [{source: a, target: 't:1/b', type: image}]\n",
            "1: unknown key `synk`; did you mean `sync`?",
        ),
        ("version: 1\nimages: [a]\nzzz: 1\n", "3: unknown key `zzz`; known are version, images, defaults"),
    ],
)
def test_a_key_that_is_known_elsewhere_is_sent_there(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_spec(text, "f")
    assert str(caught.value).startswith(f"f line {sentence}")


def test_each_part_of_an_entry_is_looked_at_by_itself() -> None:
    entry = (
        "{image: b, backup: '{{tag}}', platforms: [linux], every: x, source: 'b b', tags: [A B, ok, 'md5:1']}"
    )
    with pytest.raises(InvalidFile) as caught:
        read_spec(f"version: 1\ndefaults: {{targets: ['t:1']}}\nimages: [{entry}]", "f")
    said = [each.partition("line 3: ")[2][:9] for each in caught.value.errors]
    assert said == ["'b b' is ", "'linux' i", "'x' is no", "backup: {", "'A B' is ", "'md5:1' h"]


def test_a_list_is_read_to_its_end_too() -> None:
    with pytest.raises(InvalidFile) as caught:
        parse_image_list("A/b:1\na/b:1\nc d\nquay.io\n", "L", RegistryPrefix("docker.io"))
    assert [each.partition(":")[0] for each in caught.value.errors] == ["L line 1", "L line 3", "L line 4"]


def test_all_images_that_are_there_twice_are_told() -> None:
    text = "version: 1\ndefaults: {targets: ['t:1', 't:2']}\nimages:\n- a\n- b\n- a\n- b\n- c\n"
    request = read_spec(text, "f")
    with pytest.raises(InvalidFile) as caught:
        expand(request, {})
    assert caught.value.errors == (
        "f line 6: docker.io/library/a:latest is listed already, at f line 4",
        "f line 7: docker.io/library/b:latest is listed already, at f line 5",
    )


def test_an_archive_a_saved_plan_or_a_lock_file_in_place_of_a_spec_is_told_from_one(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bundle.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("oci-layout"))
    (tmp_path / "bundle.tar").write_bytes(
        (tmp_path / "bundle.tar").read_bytes().replace(b"\0" * 8, b"\xff" * 8)
    )
    (tmp_path / "bundle.tgz").write_bytes(gzip.compress(b"bundle"))
    (tmp_path / "plan.lock").write_text('{"version":2,"sum":"sha256:00",\n"plan":{}}')
    for name in ("bundle.tar", "bundle.tgz"):
        with pytest.raises(UsageError, match="is an archive, and text is needed here; `blobflow load`"):
            read_request(SelectionOptions(spec=tmp_path / name))
    with pytest.raises(UsageError, match="is a saved plan, not a spec; `blobflow apply "):
        read_request(SelectionOptions(spec=tmp_path / "plan.lock"))
    lock = tmp_path / "images.lock"
    lock.write_text("# Made by a run\nlock: 1\nimages: []\n")
    with pytest.raises(
        UsageError, match=f"is a lock file, not a spec; --images-from {lock} takes its images"
    ):
        read_request(SelectionOptions(spec=lock))
