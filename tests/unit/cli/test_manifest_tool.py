"""manifest-tool's files and templates, as it documents them."""

from __future__ import annotations

import pytest

from blobflow.cli.inputs.manifest_tool import index_spec_from_template, parse_manifest_tool
from blobflow.errors import BlobflowError, InvalidConfig, UsageError
from blobflow.oci import Platform

# The sample of manifest-tool's README.
SAMPLE = """\
image: myprivreg:5000/someimage:latest
tags: ["1.0.0", "1.0", "1"]
manifests:
  -
    image: myprivreg:5000/someimage:arm64
    platform:
      architecture: arm64
      os: linux
  -
    image: myprivreg:5000/someimage:amd64
    platform:
      architecture: amd64
      os: linux
"""
# Of its own tests of a registry, shortened.
ANNOTATED = """\
image: 127.0.0.1:5000/alpine:latest
annotations:
  org.opencontainers.image.title: My Image Title
  org.opencontainers.image.licenses: Apache-2.0
manifests: 
  - 
    image: 127.0.0.1:5000/aarch64_alpine:latest
    platform: 
      architecture: arm64
      os: linux
      variant: v8
"""  # noqa: W291  its own spaces


def test_the_sample_of_its_readme_is_read() -> None:
    spec = parse_manifest_tool(SAMPLE, "sample.yml")
    assert str(spec.target) == "myprivreg:5000/someimage:latest"
    assert spec.tags == ("1.0.0", "1.0", "1")
    assert [(str(wish.image), str(wish.label)) for wish in spec.wishes] == [
        ("myprivreg:5000/someimage:arm64", "linux/arm64"),
        ("myprivreg:5000/someimage:amd64", "linux/amd64"),
    ]


def test_annotations_and_variants_are_read() -> None:
    spec = parse_manifest_tool(ANNOTATED, "test-registry.yml")
    assert spec.annotations["org.opencontainers.image.title"] == "My Image Title"
    assert spec.wishes[0].label == Platform("arm64", "linux", "v8")


def test_words_are_text_as_they_are_written() -> None:
    spec = parse_manifest_tool(
        "{image: h:1/a:1.10, tags: [1.10, 0x1f, yes], manifests: [{image: h:1/a:1.0}]}", "x"
    )
    assert spec.tags == ("1.10", "0x1f", "yes")
    assert spec.wishes[0].label == Platform()


@pytest.mark.parametrize(
    "keys",
    [
        "{os: windows, architecture: amd64, os.version: 10.0.1, os.features: [win32k]}",
        "{os: windows, architecture: amd64, osversion: 10.0.1, osfeatures: [win32k], features: [sse]}",
    ],
)
def test_both_spellings_of_windows_words_are_known(keys: str) -> None:
    spec = parse_manifest_tool(f"image: h:1/a\nmanifests: [{{image: h:1/b, platform: {keys}}}]", "x")
    assert spec.wishes[0].label == Platform("amd64", "windows", "", "10.0.1", ("win32k",))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image: a: b", "l.yml line 1 is not YAML: "),
        (
            "image: h:1/a\nimage: h:1/b",
            "l.yml line 2: `image` is there already, at line 1; l.yml line 1: it misses the field `man",
        ),
        ("- a", "l.yml is not a file of manifest-tool: it has to be a mapping with image and manifests"),
        ("", "l.yml is not a file of manifest-tool: "),
        ("image: h:1/a", "l.yml line 1: it misses the field `manifests`"),
        ("image: h:1/a\nmanifests: []", "l.yml: `manifests` is empty; an index needs an image"),
        ("image: h:1/a\nmanifests: [{}]", "l.yml line 2: manifests[0]: it misses the field `image`"),
        ("image: h:1/a\nmanifests: [x]", "l.yml line 2: manifests[0]: expected `mapping`, got `text`"),
        (
            "image: h:1/a\nmanifests: [{image: h:1/B}]",
            "l.yml line 2: manifests[0].image: 'h:1/B' is not a reference",
        ),
        (
            "image: h:1/a\nmanifest: [{image: h:1/b}]",
            "l.yml line 2: unknown key `manifest`; did you mean `manifests`?",
        ),
        (
            "image: h:1/a\nmanifests: [{image: h:1/b, platform: {arch: arm}}]",
            "l.yml line 2: unknown key `arch`; known are architecture, os, ",
        ),
        (
            "image: h:1/a\ntags: [a b]\nmanifests: [{image: h:1/b}]",
            "l.yml line 2: tags[0]: 'a b' is not a reference",
        ),
        (
            "image: h:1/a\nmanifests: " + "[" * 5000,
            "l.yml is nested too deeply to be a file of manifest-tool",
        ),
    ],
)
def test_a_file_that_can_not_be_used_is_told_in_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(BlobflowError) as refused:
        parse_manifest_tool(text, "l.yml")
    assert refused.value.exit_code == 2
    assert str(refused.value).startswith(sentence)
    assert "\n" not in str(refused.value)


def test_a_template_of_its_readme_is_filled() -> None:
    platforms = ("linux/amd64", "linux/arm/v5", "linux/arm/v7")
    spec = index_spec_from_template(platforms, "foo/bar-ARCHVARIANT:v1", "foo/bar:v1", ["v1.0"])
    assert [str(wish.image) for wish in spec.wishes] == [
        "docker.io/foo/bar-amd64:v1",
        "docker.io/foo/bar-armv5:v1",
        "docker.io/foo/bar-armv7:v1",
    ]
    assert [str(wish.label) for wish in spec.wishes] == list(platforms)
    assert (str(spec.target), spec.tags) == ("docker.io/foo/bar:v1", ("v1.0",))


def test_each_placeholder_is_replaced_once() -> None:
    spec = index_spec_from_template(["linux/arm64"], "h:1/OS-os:ARCH-ARCH", "h:1/a")
    assert str(spec.wishes[0].image) == "h:1/linux-os:arm64-ARCH"


@pytest.mark.parametrize(
    ("platforms", "template", "sentence"),
    [
        ([], "h:1/a:ARCH", "--platforms names no platform"),
        (["linux"], "h:1/a:ARCH", "'linux' is not a platform"),
        (
            ["linux/arm64", "linux/amd64"],
            "h:1/a:1",
            "--template h:1/a:1 names one image for several platforms",
        ),
        (["linux/arm/v6", "linux/arm/v7"], "h:1/a:ARCH", "--template h:1/a:ARCH names one image"),
        (["linux/arm64"], "h:1/ARCH:", "--template for linux/arm64: 'h:1/arm64:' is not a reference"),
    ],
)
def test_a_template_that_can_not_be_used_is_told(platforms: list[str], template: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        index_spec_from_template(platforms, template, "h:1/x")
    assert str(refused.value).startswith(sentence)


def test_a_key_that_is_no_text_is_no_traceback() -> None:
    with pytest.raises(InvalidConfig, match="line 1: a key has to be a word"):
        parse_manifest_tool("? [a]\n: b", "l.yml")
