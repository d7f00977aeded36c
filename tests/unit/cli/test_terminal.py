"""A hostile registry and a terminal: nothing that it says is obeyed, by whatever verb or form it is shown."""

from __future__ import annotations

import ast
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import ClassVar

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import blobflow.cli
from blobflow.cli import cli
from blobflow.cli.options.output import OutputOptions
from blobflow.cli.output.progress import JsonLines, ProgressLines
from blobflow.cli.output.report_text import failure_lines
from blobflow.engine.results.report import ImageRecord, Report, Totals
from blobflow.events import ImageDone, Retrying, StepFailed, Traced, Warned
from blobflow.oci import digest_of, media

EVIL = "\x1b]0;owned\x07\x9b2J\x1b[31m\u202e\u2066\r\n\x7f\U000e0041"
CONFIG = {"mediaType": f"a/{EVIL}", "digest": digest_of(b"{}"), "size": 2}
IMAGE = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": CONFIG,
        "layers": [{**CONFIG, "urls": [EVIL]}],
        "annotations": {EVIL: EVIL},
    }
).encode()
INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": media.OCI_INDEX,
        "manifests": [
            {
                "mediaType": media.OCI_MANIFEST,
                "digest": digest_of(IMAGE),
                "size": len(IMAGE),
                "platform": {"os": EVIL, "architecture": EVIL, "variant": EVIL, "os.version": EVIL},
                "annotations": {EVIL: EVIL},
            }
        ],
        "annotations": {EVIL: EVIL},
    }
).encode()


class Hostile(BaseHTTPRequestHandler):
    """Serves the index as tag 1 and its image, and says no to all else, in words that drive a terminal."""

    held: ClassVar[dict[str, tuple[str, bytes]]] = {
        "/v2/app/manifests/1": (media.OCI_INDEX, INDEX),
        f"/v2/app/manifests/{digest_of(INDEX)}": (media.OCI_INDEX, INDEX),
        f"/v2/app/manifests/{digest_of(IMAGE)}": (media.OCI_MANIFEST, IMAGE),
        "/v2/app/manifests/unknown": (f"application/{EVIL}", json.dumps({"mediaType": EVIL}).encode()),
    }

    def do_GET(self) -> None:
        no = json.dumps({"errors": [{"code": EVIL, "message": EVIL, "detail": EVIL}]}).encode()
        kind, body = self.held.get(self.path, (f"application/json; {EVIL}", no))
        self.send_response(200 if self.path in self.held else 403)
        self.send_header("Content-Type", "".join(c for c in kind if " " <= c <= "~"))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Warning", '299 - "\x9b2J \u00ad owned"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hostile() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def assert_harmless(text: str) -> None:
    assert [char for char in text if char != "\n" and not char.isprintable()] == []


@pytest.mark.parametrize("form", [[], ["-v"], ["-q"], ["--log-format", "json"]])
@pytest.mark.parametrize(
    "verb", ["inspect", "inspect unknown", "inspect denied", "inspect json", "copy", "sync"]
)
def test_no_verb_shows_what_a_terminal_obeys(
    hostile: str, verb: str, form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    images = tmp_path / "images.txt"
    images.write_text("app:1\n")
    arguments = {
        "inspect": ["inspect", f"{hostile}/app:1"],
        "inspect unknown": ["inspect", f"{hostile}/app:unknown"],
        "inspect denied": ["inspect", f"{hostile}/app:2"],
        "inspect json": ["inspect", "--json", f"{hostile}/app:1"],
        "copy": ["copy", f"{hostile}/app:1", f"{hostile}/other:1"],
        "sync": ["sync", "--from", hostile, "--to", f"{hostile}/mirror", "--images", str(images)],
    }
    done = CliRunner().invoke(cli, [*arguments[verb], *form], catch_exceptions=False)
    assert (done.exit_code == 0) == (verb in ("inspect", "inspect json"))
    assert done.output, "something is shown"
    assert_harmless(done.stdout)
    assert_harmless(done.stderr)
    assert "Traceback" not in done.stderr


@given(st.text())
def test_no_line_of_a_run_holds_what_a_terminal_obeys(text: str) -> None:
    events = [
        Warned(text),
        Retrying(text, text, 1, 0.5),
        Traced(text, text, 200, 0.1),
        StepFailed(1, text, text, text, text),
        ImageDone(text, text, text, text, text, 1, 2),
    ]
    out = StringIO()
    for show in (ProgressLines(OutputOptions(verbose=True), out, name_target=True), JsonLines(out)):
        for event in events:
            show(event)
    assert out.getvalue().count("\n") == 4 + len(events), "a line each, whatever is in it"
    assert_harmless(out.getvalue())


@given(st.text())
def test_no_failure_told_holds_what_a_terminal_obeys(text: str) -> None:
    record = ImageRecord(text, text, text, text, (), "failed", text)
    for line in failure_lines(Report(Totals(images=1), (record,))):
        assert line.isprintable()


# What may be printed as it is: JSON in ASCII, bytes that were asked for raw, pages and XML whose text is made
# harmless (see `test_printable`), and our own help.
AS_IT_IS = (
    "'blobflow: ",  # a text of ours
    "json.dumps(",
    "found.root.raw",
    "draft.index().raw",
    "profile_toml(",
    "raw_config",
    "context.get_help(",
    "render_report(",
    "joined(",  # files that were rewritten
    "b'\\n'.join((each.content ",  # files for nodes
)
PRINTING = ("click.echo", "click.secho", "write_stdout")
OUR_OWN = ("completion", "help", "stdio")


def test_every_line_for_people_is_written_by_one_function() -> None:
    folder = Path(blobflow.cli.__file__).parent
    printed = [
        (file.stem, ast.unparse(node.args[0]))
        for file in sorted(folder.rglob("*.py"))
        if file.stem not in OUR_OWN
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in PRINTING
    ]
    assert len(printed) > 10
    assert [found for found in printed if not found[1].startswith(AS_IT_IS)] == []
