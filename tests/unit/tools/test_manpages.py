"""The man pages: one a verb and one a topic, with all that --help says, which man reads without a warning."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from blobflow.cli import VERBS, cli
from blobflow.cli.exit_codes import EXIT_CODES
from blobflow.cli.output.help_topics import TOPICS
from tests.deadlines import HANGS_AFTER
from tools.manpages import escape, pages, write_pages

PAGES = pages()


def commands(context: click.Context) -> Iterator[click.Context]:
    yield context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            below = context.command.get_command(context, name)
            assert below is not None
            yield from commands(click.Context(below, info_name=name, parent=context))


ALL = list(commands(click.Context(cli, info_name="blobflow")))


def test_each_verb_and_each_topic_has_a_page() -> None:
    verbs = {f"blobflow-{verb}.1" for verb in VERBS}
    assert verbs | {"blobflow.1"} | {f"blobflow-{topic}.7" for topic in TOPICS} <= PAGES.keys()
    assert {f"{each.command_path.replace(' ', '-')}.1" for each in ALL if not each.command.hidden} == {
        name for name in PAGES if name.endswith(".1")
    }


@pytest.mark.parametrize("context", ALL, ids=lambda each: each.command_path)
def test_each_option_of_the_help_is_on_the_page(context: click.Context) -> None:
    page = PAGES[f"{context.command_path.replace(' ', '-')}.1"]
    for option in context.command.get_params(context):
        if isinstance(option, click.Option) and not option.hidden:
            # A further name, which is for who comes from elsewhere, is in no help.
            shown, _ = option.get_help_record(context) or ("", "")
            names = [name for name in option.opts if name in shown.replace(",", " ").split()]
            assert names and all(f"\\fB{escape(name)}\\fR" in page for name in names), option.name


def test_the_first_page_tells_exit_codes_and_files() -> None:
    page = PAGES["blobflow.1"]
    assert all(f".TP\n\\fB{code}\\fR\n" in page for code in EXIT_CODES)
    assert "\\fI\\(ti/.config/blobflow/config.toml\\fR" in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a-b", "a\\-b"), (".TH", "\\&.TH"), ("'x'", "\\(aqx\\(aq"), ("a\\b", "a\\eb"), ("…", "\\[u2026]")],
)
def test_text_is_text_and_no_request(text: str, shown: str) -> None:
    assert escape(text) == shown


# Debian's man comes with groff, the BSDs and macOS have mandoc.
@pytest.mark.parametrize(
    "reader", [("groff", "-man", "-Tutf8", "-ww", "-z"), ("mandoc", "-Tlint", "-Wwarning")]
)
def test_man_has_nothing_to_say_against_any_page(reader: tuple[str, ...], tmp_path: Path) -> None:
    if shutil.which(reader[0]) is None:
        pytest.skip(f"there is no {reader[0]}")
    written = write_pages(tmp_path)
    done = subprocess.run(
        [*reader, *written], capture_output=True, text=True, timeout=HANGS_AFTER, check=False
    )
    assert done.stdout + done.stderr == ""
