"""`config REF` and `digest`: which image of an index is meant, and exactly what is printed of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.cli.commands.image_config import config_lines
from blobflow.oci import media
from blobflow.transports.local import host_platform
from tests.fakes.layouts import Layout

OWN = host_platform().architecture
OTHER = "s390x" if OWN != "s390x" else "arm64"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def blobflow(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == code, done.output
    return done


def place(layout: Layout) -> str:
    return f"oci:{layout.folder}:x"


def config_of(layout: Layout, image: dict[str, object]) -> bytes:
    manifest = json.loads(layout.path(str(image["digest"])).read_bytes())
    return layout.path(manifest["config"]["digest"]).read_bytes()


def test_the_config_is_printed_byte_for_byte(layout: Layout) -> None:
    image = layout.image(OTHER)
    layout.tag(image)
    assert blobflow("config", place(layout)).stdout_bytes == config_of(layout, image)


def test_of_an_index_it_is_this_machines_or_the_one_that_is_chosen(layout: Layout) -> None:
    other, own = layout.image(OTHER), layout.image(OWN)
    layout.tag(layout.index(other, own))
    assert blobflow("config", place(layout)).stdout_bytes == config_of(layout, own)
    for words in (["--platform", f"linux/{OTHER}"], ["--override-arch", OTHER]):
        assert blobflow("config", *words, place(layout)).stdout_bytes == config_of(layout, other)
        assert blobflow("config", place(layout), *words).stdout_bytes == config_of(layout, other)


def test_an_index_of_one_image_needs_no_choice(layout: Layout) -> None:
    image = layout.image(OTHER)
    layout.tag(layout.index(image))
    assert blobflow("config", place(layout)).stdout_bytes == config_of(layout, image)
    missing = blobflow("config", "--platform", f"linux/{OWN}", place(layout), code=5).stderr
    assert f"has no image for linux/{OWN}" in missing
    assert f"it is for linux/{OTHER}" in missing


def test_an_index_that_tells_no_platforms_is_asked_through_its_configs(layout: Layout) -> None:
    images = [layout.image(name) for name in (OTHER, OWN)]
    for image in images:
        del image["platform"]
    layout.tag(layout.index(layout.index(images[0]), layout.index(images[1])))
    wanted = ["--platform", f"linux/{OTHER}"]
    assert blobflow("config", *wanted, place(layout)).stdout_bytes == config_of(layout, images[0])
    assert blobflow("digest", *wanted, place(layout)).stdout == f"{images[0]['digest']}\n"


def test_a_build_caches_blobs_and_attestations_are_no_images(layout: Layout) -> None:
    image = layout.image(OTHER)
    blob = layout.put(b"cached", media.OCI_LAYER_GZIP)
    attested = layout.image("unknown") | {
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.digest": image["digest"]},
    }
    layout.tag(layout.index(blob, attested, image))
    assert blobflow("config", place(layout)).stdout_bytes == config_of(layout, image)


def test_the_digest_is_one_line_of_what_the_name_means(layout: Layout) -> None:
    own, other = layout.image(OWN), layout.image(OTHER)
    root = layout.index(own, other)
    layout.tag(root)
    assert blobflow("digest", place(layout)).stdout == f"{root['digest']}\n"
    assert blobflow("digest", "--platform", "all", place(layout)).stdout == f"{root['digest']}\n"
    assert blobflow("digest", place(layout), "--platform", "system").stdout == f"{own['digest']}\n"
    assert blobflow("digest", "--platform", f"linux/{OTHER}", place(layout)).stdout == f"{other['digest']}\n"


@pytest.mark.parametrize("verb", ["config", "digest"])
def test_what_is_no_platform_is_bad_usage(verb: str, layout: Layout) -> None:
    layout.tag(layout.image(OWN))
    assert (
        "write os/architecture[/variant]" in blobflow(verb, place(layout), "--platform", "x", code=2).stderr
    )


def test_on_a_terminal_a_config_is_indented_and_one_that_is_no_json_is_shown_as_text() -> None:
    assert config_lines(b'{"os":"linux"}') == ["{", '  "os": "linux"', "}"]
    assert config_lines(b"no\nJSON \xff") == ["no", "JSON �"]
    assert config_lines(b"[" * 100_000) == ["[" * 100_000]


def test_the_config_group_shows_its_help_and_takes_an_image_with_options_first(layout: Layout) -> None:
    assert "blobflow config alpine:3" in blobflow("config", "--help").stdout
    image = layout.image(OTHER)
    layout.tag(image)
    assert blobflow("config", "-q", place(layout)).stdout_bytes == config_of(layout, image)
    assert blobflow("config", "image", place(layout)).stdout_bytes == config_of(layout, image)


def test_inspect_shows_the_image_for_one_platform(layout: Layout) -> None:
    own, other = layout.image(OWN), layout.image(OTHER)
    layout.tag(layout.index(own, other))
    wanted = ("inspect", place(layout), "--platform", f"linux/{OTHER}")
    assert other["digest"] in blobflow(*wanted).stdout
    assert own["digest"] not in blobflow(*wanted).stdout
    assert blobflow(*wanted, "--raw").stdout_bytes == layout.path(other["digest"]).read_bytes()


def test_skopeos_inspect_config_is_answered_with_the_verb_for_it() -> None:
    said = " ".join(blobflow("inspect", "--config", "alpine:3", code=2).stderr.split())
    assert "an image's config is `blobflow config alpine:3`" in said
    assert "Missing argument 'REF'" in blobflow("inspect", code=2).stderr
