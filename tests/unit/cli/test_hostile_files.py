"""Files that have no end, or say little and mean very much, cost little and end in one sentence."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from blobflow import bounded_file
from blobflow.cli.inputs.image_list import parse_image_list
from blobflow.cli.inputs.requests import parse_place, repository_request
from blobflow.cli.inputs.spec import parse_spec
from blobflow.cli.options.credentials import join_login
from blobflow.cli.runtime.files import read_text
from blobflow.config_file import read_config
from blobflow.errors import InvalidConfig, InvalidReference, UsageError
from blobflow.oci import parse_reference
from blobflow.transports.registry.auth.credential_store import _read


@pytest.mark.parametrize("read", [read_text, read_config, _read])
def test_a_file_without_an_end_is_refused(
    read: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_file, "MAX_BYTES", 2 * 1024**2)
    assert callable(read)
    with pytest.raises(InvalidConfig, match="/dev/zero has more than 2 MiB"):
        read(Path("/dev/zero"))


def test_a_stream_is_bounded_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_file, "MAX_BYTES", 1024**2)
    assert bounded_file.read_stream(io.BytesIO(b"a" * 1024**2), "stdin") == b"a" * 1024**2
    with pytest.raises(InvalidConfig, match="stdin has more than 1 MiB"):
        bounded_file.read_stream(io.BytesIO(b"a" * (1024**2 + 1)), "stdin")


def merges(inner: str) -> str:
    lines = ["a0: &m0 {k: v}"]
    lines += [f"a{at}: &m{at} {inner.format(f'*m{at - 1}')}" for at in range(1, 9)]
    return "\n".join([*lines, "version: 1", "images: [a:1]"])


@pytest.mark.parametrize(
    "inner",
    [
        "{{<<: [" + ",".join(["{0}"] * 10) + "]}}",
        "{{<<: {{<<: [" + ",".join(["{0}"] * 10) + "]}}}}",
    ],
)
def test_merges_of_merges_are_refused_before_they_are_made(inner: str) -> None:
    with pytest.raises(UsageError, match=r"s.yaml line \d: with the keys that `<<` brings in"):
        parse_spec(merges(inner), "s.yaml")


def test_what_merges_as_people_do_is_read() -> None:
    text = (
        "version: 1\ndefaults: {targets: [r.example]}\nimages:\n"
        "  - &a {image: a, tags: ['1']}\n  - {<<: *a, tags: ['2']}\n"
    )
    assert [image.tag for image in parse_spec(text, "s.yaml").images] == ["1", "2"]


@pytest.mark.parametrize("long", ["1" + ":59" * 2000, "9" * 5000, "0x" + "f" * 5000])
def test_no_number_is_computed_that_is_longer_than_any_that_is_meant(long: str) -> None:
    text = f"version: 1\ndefaults: {{targets: [r.example]}}\nimages: [{{image: a, tags: {{newest: {long}}}}}]"
    with pytest.raises(InvalidConfig) as caught:
        parse_spec(text, "s.yaml")
    assert str(caught.value) == "s.yaml line 3: images[0].tags.newest: expected `number`, got `text`"


def test_a_character_that_yaml_forbids_is_told_in_one_line() -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_spec("version: 1\n\0", "s.yaml")
    assert str(caught.value) == "s.yaml line 2 has a character that YAML forbids: U+0000"


def test_a_text_that_is_too_long_for_yaml_is_not_read() -> None:
    with pytest.raises(InvalidConfig, match="has more than 8 MiB, which is too much for a spec"):
        parse_spec("#" * (8 * 1024**2 + 1), "s.yaml")


@pytest.mark.parametrize("there", ["r.example/a", "r.example", "localhost", "localhost:5000", "r:5000/a:1"])
def test_a_login_before_a_host_is_refused_and_not_shown(there: str) -> None:
    for password in ("hush", "hu/sh", "hu@sh", "hush:hush"):
        for read in (parse_reference, parse_place):
            with pytest.raises(InvalidReference) as caught:
                read(f"joe:{password}@{there}")
            assert "a login in front of a host" in str(caught.value)
            assert "hu" not in str(caught.value).replace("`", "")


@pytest.mark.parametrize("digest", ["sha256:abc", "sha256:123", "md5:" + "0" * 32, "deadbeef"])
def test_a_bad_digest_is_no_host(digest: str) -> None:
    with pytest.raises(InvalidReference, match=r"digest|algorithm"):
        parse_reference(f"a:1@{digest}")


@pytest.mark.parametrize("username", ["", "a:b"])
def test_the_two_options_of_a_login_name_no_file(username: str) -> None:
    assert join_login("@joe", "@hush", "source", None).username == "@joe"
    with pytest.raises(UsageError, match="the source's username is empty or has a colon"):
        join_login(username, "hush", "source", None)


def test_an_image_with_a_scheme_is_told_where_that_goes() -> None:
    with pytest.raises(UsageError) as caught:
        parse_spec(
            "version: 1\ndefaults: {targets: [r.example]}\nimages: ['https://s.example/a:1']", "s.yaml"
        )
    assert str(caught.value) == (
        "s.yaml line 3: an image has no https:// before its host; write `source: https://HOST` beside it"
    )


@pytest.mark.parametrize("text", ["docker://r.example/a:1", "r.example:5000/a/b@sha256:" + "0" * 64])
def test_one_image_is_no_repository_to_sync(text: str) -> None:
    with pytest.raises(UsageError, match="is one image, and sync --from takes all tags"):
        repository_request(text, scoped=False)


def test_a_host_with_a_port_and_a_repository_is_no_image() -> None:
    assert repository_request("docker://r.example:5000/a/b", scoped=False).path == "a/b"


def test_a_line_of_a_list_with_a_scheme_is_told_so() -> None:
    with pytest.raises(InvalidReference, match="a name has no ://; write HOST/repository:tag"):
        parse_image_list("https://r.example/a:1\n", "l.txt", None, any_host=False)
