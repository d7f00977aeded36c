"""Coming from another tool: the right column does what the left one does, where that can be tried."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import chdir, closing
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from tests.deadlines import HANGS_AFTER
from tools.documentation.commands import commands_in, parse
from tools.documentation.documents import DOCS, blocks_of, name_of
from tools.documentation.world import World, serving_world

PAGES = sorted((DOCS / "coming-from").glob("*.md"))
OTHERS = ("skopeo", "regsync", "regctl", "crane", "oras", "docker", "manifest-tool", "hauler", "zarf", "oc")
# A row: theirs, ours, and what differs.
_ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \| (.*?) ?\|$", re.MULTILINE)


class Row(NamedTuple):
    page: Path
    theirs: str
    ours: str
    differs: str


def rows() -> list[Row]:
    return [
        Row(page, *(text.replace("\\|", "|") for text in found))
        for page in PAGES
        for found in _ROW.findall(page.read_text())
    ]


def test_every_row_has_their_command_and_ours() -> None:
    """A row that is none to the expression is a row that nobody looks at."""
    written = sum(len(re.findall(r"^\| `", page.read_text(), re.MULTILINE)) for page in PAGES)
    assert len(rows()) == written > 80
    for row in rows():
        assert row.theirs.split()[0] in OTHERS, row
        commands = list(commands_in(row.ours))
        assert commands, row
        for arguments in commands:
            assert parse(arguments).verb, row


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "README.md"], ids=name_of)
def test_each_tool_has_its_page(page: Path) -> None:
    assert f"({page.name})" in (DOCS / "coming-from" / "README.md").read_text()


# Commands of skopeo's page that both can run here, and leave the same behind.
ALIKE = (
    "skopeo copy --all docker://alpine:3.22 docker://registry.example.com/alpine:3.22",
    "skopeo copy --all --preserve-digests docker://alpine:3.22 docker://registry.example.com/alpine:3.22",
    "skopeo copy --multi-arch index-only docker://alpine:3.22 docker://registry.example.com/alpine:3.22",
    "skopeo sync --all --src yaml --dest docker sync.yml registry.example.com/mirror",
)
PRINTED = ("skopeo inspect --raw docker://alpine:3.22",)
INDEXES = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
OURS, THEIRS = "registry.example.com", "edge.example.com"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Ours are run at one registry, theirs at the other."""
    if shutil.which("skopeo") is None:
        pytest.skip("needs skopeo (Debian: apt-get install skopeo)")
    with serving_world(tmp_path) as found, chdir(found.home):
        (source,) = [block for block in blocks_of(PAGES[0].parent / "skopeo.md") if block.title == "sync.yml"]
        Path("sync.yml").write_text(
            source.text.replace("docker.io:", f"{found.source}:\n  tls-verify: false")
        )
        yield found


def row_of(theirs: str) -> Row:
    (row,) = [row for row in rows() if row.theirs == theirs]
    return row


def skopeo(world: World, command: str) -> str:
    """What it prints. docker.io is at its real address, and the target the other registry."""
    words = shlex.split(command.replace("docker://alpine", f"docker://{world.source}/library/alpine"))
    sides = ("",) if words[1] == "inspect" else ("src-", "dest-")
    plain = [f"--{side}tls-verify=false" for side in sides]
    text = [world.real(word.replace(OURS, THEIRS)) for word in words[2:]]
    return subprocess.run(
        ["skopeo", "--insecure-policy", words[1], *plain, *text],
        env=world.environment | {"PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=HANGS_AFTER,
    ).stdout


def ours(world: World, command: str) -> str:
    (arguments,) = commands_in(world.real(command))
    done = CliRunner().invoke(cli, arguments, env=world.environment)
    assert done.exit_code == 0, done.output
    return done.stdout


def content_of(world: World, host: str) -> dict[str, str]:
    """The digest of each tag."""
    with closing(http.client.HTTPConnection(world.addresses[host], timeout=HANGS_AFTER)) as connection:

        def asked(path: str) -> tuple[str, bytes]:
            connection.request("GET", f"/v2/{path}", headers={"Accept": INDEXES})
            with connection.getresponse() as answer:
                return answer.headers.get("Docker-Content-Digest", ""), answer.read()

        return {
            f"{name}:{tag}": asked(f"{name}/manifests/{tag}")[0]
            for name in json.loads(asked("_catalog")[1])["repositories"]
            for tag in json.loads(asked(f"{name}/tags/list")[1])["tags"] or ()
        }


@pytest.mark.e2e
@pytest.mark.parametrize("theirs", ALIKE)
def test_ours_leaves_behind_what_skopeo_does(theirs: str, world: World) -> None:
    skopeo(world, theirs)
    ours(world, row_of(theirs).ours)
    assert content_of(world, OURS) == content_of(world, THEIRS) != {}


@pytest.mark.e2e
@pytest.mark.parametrize("theirs", PRINTED)
def test_ours_prints_what_skopeo_does(theirs: str, world: World) -> None:
    assert ours(world, row_of(theirs).ours) == skopeo(world, theirs)
