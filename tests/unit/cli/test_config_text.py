"""`probe --save`: one host's profile is replaced in the configuration file, and all else stays as it was."""

from __future__ import annotations

import tomllib

import pytest

from blobflow.cli.inputs.config_text import with_profile
from blobflow.errors import InvalidConfig, UsageError

BODY = 'name = "probed"\nmounts = true\n# deletes by tag: no\n'
NEW = f'[registry."r.example:5000".profile]\n{BODY}'
OLD = '[registry."r.example:5000".profile]\nname = "probed"\nmounts = false\n# deletes by tag: yes\n'
OTHER = '[registry."s.example"]  # mine\nconnections = 3\n'


def saved(text: str, host: str = "r.example:5000") -> str:
    return with_profile(text, "config.toml", host, BODY)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", NEW),
        ("# mine\n", f"# mine\n\n{NEW}"),
        (OTHER, f"{OTHER}\n{NEW}"),
        (f"{OTHER}\n\n\n", f"{OTHER}\n{NEW}"),
        (OLD, NEW),
        (f"{OTHER}\n{OLD}", f"{OTHER}\n{NEW}"),
        (f"{OLD}\n{OTHER}", f"{NEW}\n{OTHER}"),
        (f"{OLD}\n# about s\n{OTHER}", f"{NEW}\n# about s\n{OTHER}"),
        (f"{OLD}# about s\n\n{OTHER}", f"{NEW}# about s\n\n{OTHER}"),
        ('[ registry . "r.example:5000" . profile ] # x\nname = "a"\n', NEW),
        ("[registry.'r.example:5000']\nhttp = true\n", f"[registry.'r.example:5000']\nhttp = true\n\n{NEW}"),
        (
            '[registry."r.example:5000"]\nprofile = "ecr"  # by hand\nhttp = true\n\n# s\n' + OTHER,
            f'[registry."r.example:5000"]\nhttp = true\n\n{NEW}\n# s\n' + OTHER,
        ),
        (
            '[registry."r.example:5000"]\nprofile = {name = "x", mounts = true}\n',
            f'[registry."r.example:5000"]\n\n{NEW}',
        ),
        (
            '[registry."r.example:5000"]\nhttp = true\nprofile.name = "x"\nprofile.mounts = true\n',
            f'[registry."r.example:5000"]\nhttp = true\n\n{NEW}',
        ),
        (
            '[registry."r.example:5000".profile]\nrungs = [\n  "single",\n]\n',
            NEW,
        ),
    ],
)
def test_only_the_hosts_own_lines_are_replaced(before: str, after: str) -> None:
    assert saved(before) == after
    assert saved(saved(before)) == saved(before)


def test_the_ends_of_lines_stay_as_they_are() -> None:
    assert saved((OTHER + OLD).replace("\n", "\r\n")) == (OTHER + NEW).replace("\n", "\r\n")


def test_a_host_is_found_under_the_name_that_the_file_has_for_it() -> None:
    text = saved('[registry."R.example:5000"]\nhttp = true\n')
    assert tomllib.loads(text)["registry"].keys() == {"R.example:5000"}
    hub = saved('[registry."index.docker.io"]\nconnections = 2\n', "docker.io")
    assert tomllib.loads(hub)["registry"].keys() == {"index.docker.io"}


@pytest.mark.parametrize(
    "text",
    [
        'registry = {"r.example:5000" = {http = true}}\n',
        '[registry]\n"r.example:5000" = {profile = "ecr"}\n',
        '[registry."r.example:5000"]\nprofile = {name = "x", rungs = [\n "single"]}\n',
    ],
)
def test_what_can_t_be_replaced_by_itself_is_left_and_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"config\.toml says something of r\.example:5000 in a way that"):
        saved(text)


def test_what_looks_like_a_table_in_a_text_is_none() -> None:
    text = 'note = """\n[registry."r.example:5000".profile]\n"""\n'
    with pytest.raises(UsageError, match="in a way that"):
        saved(text)


def test_what_is_no_toml_is_told() -> None:
    with pytest.raises(InvalidConfig, match=r"config\.toml is not TOML"):
        saved("[")
