"""The door: what it imports, how words become values, how errors become exit codes and signals an end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import blobflow
from blobflow import cli
from blobflow.cli.inputs.expansion import expand
from blobflow.cli.inputs.selection import read_request
from blobflow.cli.options.connection import ConnectionOptions, connection_options
from blobflow.cli.options.images import SelectionOptions, selection_options
from blobflow.cli.options.run import RunOptions, run_options
from blobflow.cli.runtime.event_loop import Shutdown, run_loop
from blobflow.cli.runtime.files import check_writable, write_atomic
from blobflow.cli.runtime.listen_address import parse_listen_address
from blobflow.cli.settings import run_policy
from blobflow.errors import (
    BlobflowError,
    ConnectFailed,
    DigestMismatch,
    NotFound,
    RunIncomplete,
    StorageError,
    UnsupportedContent,
    UsageError,
)
from blobflow.variables import places_of, xdg_folder
from blobflow.waits import Waits
from tests.deadlines import HANGS_AFTER

VERBS = (
    *("copy", "sync", "save", "load", "bundle", "nodes", "export"),
    *("plan", "apply", "report", "verify"),
    *("images", "rewrite", "warm"),
    *("inspect", "digest", "referrers", "config", "ls", "tags", "repos", "ratelimit"),
    *("push", "attach", "pull", "tag", "rm"),
    *("login", "logout", "probe", "serve", "worker", "index", "cache", "bench", "demo"),
    *("completion", "help"),
)
HEAVY = ("aiohttp", "yarl", "rich", "yaml", "msgspec", "uvloop", "asyncio", "xxhash", "sqlite3")


def imported_by(*argv: str) -> set[str]:
    """The heavy packages that a run of the command imports."""
    script = (
        "import sys\nfrom blobflow.cli import cli\n"
        f"cli({list(argv)!r}, standalone_mode=False)\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANGS_AFTER, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize("argv", [("--help",), ("--version",)])
def test_asking_for_help_imports_nothing_heavy(argv: tuple[str, ...]) -> None:
    assert imported_by(*argv) == set()


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_imports_neither_transport_nor_spec_nor_drawing(verb: str) -> None:
    assert imported_by(verb, "--help") & {"aiohttp", "yarl", "rich", "yaml", "sqlite3"} == set()


def test_python_dash_m_is_the_same_door() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "blobflow", "--version"],
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=True,
    )
    assert done.stdout == f"blobflow {blobflow.__version__}\n"


def test_the_verbs_are_those_that_are_known_here() -> None:
    assert list(cli.VERBS) == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_text_of_its_own(verb: str) -> None:
    done = CliRunner().invoke(cli.cli, [verb, "--help"])
    assert done.exit_code == 0
    assert f"blobflow {verb}" in done.output.replace("cli ", "blobflow ")


def test_a_mistyped_verb_is_answered_with_the_nearest() -> None:
    done = CliRunner().invoke(cli.cli, ["snyc"])
    assert done.exit_code == 2
    assert "No such verb 'snyc'. Did you mean 'sync'?" in done.stderr


ERRORS: list[tuple[BaseException, int, str]] = [
    (UsageError("bad"), 2, "blobflow: bad\n"),
    (RunIncomplete("1 of 2 images did not arrive"), 3, "blobflow: 1 of 2 images did not arrive\n"),
    (
        ConnectFailed("r:1 refused", side="target", attempts=3),
        4,
        "blobflow: target: r:1 refused (after 3 attempts)\n",
    ),
    (NotFound("no tag x\x1b[2J"), 5, "blobflow: no tag x\\x1b[2J\n"),
    (DigestMismatch("blob", expected="a", actual="b"), 6, "blobflow: blob has digest b, expected a\n"),
    (UnsupportedContent("odd"), 7, "blobflow: odd\n"),
    (StorageError("full"), 8, "blobflow: full\n"),
    (BlobflowError("hm"), 1, "blobflow: hm\n"),
    (
        KeyError("x"),
        1,
        "blobflow: internal error: KeyError: 'x'; set BLOBFLOW_DEBUG=1 to see where, and please report it\n",
    ),
    (KeyboardInterrupt(), 130, "blobflow: interrupted\n"),
]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A verb `demo` that raises what stands in the list."""
    raised: list[BaseException] = []

    @click.command("demo")
    @connection_options
    def verb(connection: ConnectionOptions) -> None:
        raise raised[0]

    monkeypatch.setattr("blobflow.cli.commands.demo.verb", verb)
    monkeypatch.delenv("BLOBFLOW_DEBUG", raising=False)
    return raised


@pytest.mark.parametrize(("error", "code", "text"), ERRORS, ids=lambda value: type(value).__name__)
def test_an_error_is_one_line_and_a_code(
    failing: list[BaseException], error: BaseException, code: int, text: str
) -> None:
    failing.append(error)
    done = CliRunner().invoke(cli.cli, ["demo"])
    assert (done.exit_code, done.stderr, done.stdout) == (code, text, "")


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [(NotFound("no tag x"), "no tag x", 5), (KeyboardInterrupt(), "interrupted", 130)],
)
def test_an_error_is_json_where_events_are(
    failing: list[BaseException], error: BaseException, message: str, code: int
) -> None:
    failing.append(error)
    done = CliRunner().invoke(cli.cli, ["demo", "--log-format", "json"])
    document = json.loads(done.stderr)
    assert document.pop("time").endswith("Z")
    assert document == {"event": "error", "message": message, "exit_code": code}


def test_a_traceback_is_shown_to_who_asks(
    failing: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOBFLOW_DEBUG", "1")
    failing.append(KeyError("x"))
    assert "Traceback" in CliRunner().invoke(cli.cli, ["demo"]).stderr


# Options


def parsed(*argv: str) -> tuple[SelectionOptions, RunOptions, ConnectionOptions]:
    seen: list[tuple[SelectionOptions, RunOptions, ConnectionOptions]] = []

    @click.command()
    @selection_options
    @run_options
    @connection_options
    def verb(selection: SelectionOptions, run: RunOptions, connection: ConnectionOptions) -> None:
        seen.append((selection, run, connection))

    verb(list(argv), standalone_mode=False)
    return seen[0]


def test_options_that_are_not_given_have_the_libraries_defaults() -> None:
    assert parsed() == (SelectionOptions(), RunOptions(), ConnectionOptions())


def test_options_become_values() -> None:
    selection, run_, connection = parsed(
        *("--from", "docker.io", "--to", "r:1/a", "--to", "r:2", "--images", "-"),
        *(
            "--dry-run",
            "--fail-fast",
            "--no-overwrite",
            "--trust-root",
            "--concurrency",
            "3",
            "--report",
            "r.json",
        ),
        *("--limit-rate", "10MB/s", "--wait"),
        *("--plain-http", "Reg.Local:80", "--plain-http", "[::2]", "--tls-verify=false", "-q", "-v"),
        *("--log-format", "json"),
    )
    assert selection == SelectionOptions(None, "docker.io", ("r:1/a", "r:2"), Path("-"))
    assert run_ == RunOptions(
        dry_run=True,
        keep_going=False,
        no_overwrite=True,
        trust_root=True,
        concurrency=3,
        report=(Path("r.json"),),
        limit_rate=10_000_000,
        wait=True,
    )
    assert connection.plain_http == {"reg.local:80", "[::2]"}
    assert not connection.tls_verify
    assert (connection.output.quiet, connection.output.verbose, connection.output.log_format) == (
        True,
        True,
        "json",
    )


@pytest.mark.parametrize("mode", ["rolling", "all", "none"])
def test_what_is_audited_is_part_of_the_policy(mode: str) -> None:
    _, run_, _ = parsed("--audit", mode)
    assert run_policy(run_).audit == mode
    assert run_policy(RunOptions()).audit == "rolling"


@pytest.mark.parametrize(
    "argv",
    [("--concurrency", "0"), ("--log-format", "xml"), ("--tls-verify", "perhaps"), ("--report", "/")]
    + [("--audit", "some"), ("--audit", "5%")]
    + [("--limit-rate", text) for text in ("0", "0MB/s", "fast", "1MB/h", "-1")],
)
def test_a_bad_value_is_a_usage_error(argv: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        parsed(*argv)


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (("sync", "--to", "t.example", "--images", "a", "--images=b"), "--images"),
        (
            ("plan", "--to", "t.example", "--images", "a", "--from", "a.example", "--from", "b.example"),
            "--from",
        ),
        (("save", "--images", "a", "--images", "b", "-o", "x"), "--images"),
        (("save", "--images", "a", "-o", "x", "--output", "y"), "--output"),
        (("load", "a.tar", "--to", "t.example", "--images", "a", "--images", "b"), "--images"),
        (("warm", "--edge", "t.example", "--images", "a", "--images", "b"), "--images"),
        (("export", "a.example/x", "-o", "type=tar,dest=x", "-o", "type=cacheonly"), "--output"),
        (("copy", "a.example/x", "b.example/x", "--policy", "a", "--policy", "b"), "--policy"),
        (("serve", "--policy", "a", "--policy", "b"), "--policy"),
        (("serve", "--access", "a", "--access", "b"), "--access"),
        (("rewrite", "x.yaml", "--to", "a.example", "--to", "b.example"), "--to"),
        (("rewrite", "x.yaml", "--to", "a.example", "-o", "a", "-o", "b"), "--output"),
        (("images", "x.yaml", "-o", "a", "-o", "b"), "--output"),
        (("nodes", "--format", "k3s", "-o", "a", "-o", "b"), "-o"),
        (("pull", "a.example/x", "-o", "a", "-o", "b"), "--output"),
        (("plan", "x.yaml", "--out", "a", "--out", "b"), "--out"),
        (("report", "html", "x.json", "-o", "a", "-o", "b"), "--out"),
    ],
)
def test_what_would_leave_the_first_of_two_out_in_silence_is_a_usage_error(
    argv: tuple[str, ...], option: str
) -> None:
    done = CliRunner().invoke(cli.cli, argv)
    assert done.exit_code == 2
    assert f"{option} is given more than once; " in done.stderr


PAIR = ("s.example/a:1", "t.example/a:1")


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (("copy", *PAIR, "--tls-verify", ""), "--tls-verify"),
        (("copy", *PAIR, "--tls-verify="), "--tls-verify"),
        (("copy", "--src-tls-verify=", *PAIR), "--src-tls-verify"),
        (("copy", *PAIR, "--policy", ""), "--policy"),
        (("copy", *PAIR, "--report", ""), "--report"),
        (("copy", *PAIR, "--digestfile="), "--digestfile"),
        (("copy", *PAIR, "--backup", ""), "--backup"),
        (("sync", "--from", "", "--to", "t.example", "--images", "a"), "--from"),
        (("sync", "--to", "t.example", "--images-from="), "--images-from"),
        (("load", "a.tar", "--files-to", ""), "--files-to"),
        (("digest", "s.example/a:1", "--platform", ""), "--platform"),
        (("export", "s.example/a:1", "-o", ""), "-o"),
        (("cache", "ls", "--cache-dir", ""), "--cache-dir"),
    ],
)
def test_an_empty_value_is_a_variable_that_was_not_set_and_no_way_to_say_no(
    argv: tuple[str, ...], option: str
) -> None:
    """click reads it as false, as the folder that it is started in, or as nothing."""
    done = CliRunner().invoke(cli.cli, argv)
    assert done.exit_code == 2
    assert f"{option} has an empty value; give it one, or leave it out" in done.stderr


@pytest.mark.parametrize("words", [["--tls-verify= "], ["--tls-verify", " "], ["--tls-verify", "\t"]])
def test_a_blank_does_not_turn_verification_off(words: list[str]) -> None:
    done = CliRunner().invoke(cli.cli, ["digest", *words, "s.example/a:1"])
    assert done.exit_code == 2, done.output


@pytest.mark.parametrize(
    "argv",
    [
        ("index", "annotate", "t.example/a:1", "t.example/a:1-amd64", "--arch", "amd64", "--variant", ""),
        ("attach", "oci:a", "--artifact-type", "x/y", "-a", "key="),
        ("copy", "", "t.example/a:1", "--override-arch", "arm64", "--override-variant", ""),
        ("digest", "", "--override-arch", "arm64", "--override-variant="),
        ("copy", "--quiet", "", "t.example/a:1"),
        ("digest", "--", ""),
    ],
)
def test_what_may_be_empty_and_what_is_no_value_has_errors_of_its_own(argv: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli.cli, argv)
    assert (done.exit_code, "empty value" in done.stderr) == (2, False), done.stderr


def test_the_same_twice_is_once(tmp_path: Path) -> None:
    words = ("sync", "--to", "t.example", "--images", str(tmp_path / "no"), "--images", str(tmp_path / "no"))
    done = CliRunner().invoke(cli.cli, words)
    assert (done.exit_code, "can't read" in done.stderr) == (2, True), done.stderr


def test_a_bad_host_is_a_usage_error_too() -> None:
    with pytest.raises(UsageError, match="'r/x' is not a registry host"):
        parsed("--plain-http", "http://r/x")


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (SelectionOptions(), "give a spec file, or --from, --to, --images as well"),
        (
            SelectionOptions(source="r:1", targets=("t:1",)),
            "r:1 is a registry; give one of its repositories, as r:1/REPOSITORY, or .* --images LIST",
        ),
        (SelectionOptions(spec=Path("s.yaml"), source="r:1"), "not both"),
        (SelectionOptions(spec=Path("no/such.yaml")), "can't read no/such.yaml: No such file or directory"),
        (SelectionOptions(source="r:1", targets=("t:1",), images=Path("/")), "can't read /: Is a directory"),
    ],
)
def test_half_a_selection_is_refused(selection: SelectionOptions, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_request(selection)


def test_a_list_file_and_a_spec_file_are_selections(tmp_path: Path) -> None:
    listed, spec = tmp_path / "list.txt", tmp_path / "spec.yaml"
    listed.write_bytes("\ufeffa/b:1\n".encode())
    spec.write_text("{version: 1, defaults: {source: 'r:1', targets: ['t:1/m']}, images: [a/b:1]}")
    pairs = expand(read_request(SelectionOptions(source="r:1", targets=("t:1/m",), images=listed)), {}).pairs
    assert pairs == expand(read_request(SelectionOptions(spec=spec)), {}).pairs
    assert [str(pair.target) for pair in pairs] == ["t:1/m/a/b:1"]


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a/b:1\n\xff")
    with pytest.raises(UsageError, match="is not UTF-8 text \\(byte 6\\)"):
        read_request(SelectionOptions(source="r:1", targets=("t:1",), images=tmp_path / "list"))


ENVIRONMENTS: list[tuple[dict[str, str], tuple[str | None, str | None]]] = [
    ({}, (None, None)),
    ({"HOME": "/h"}, ("/h/.docker", "/h/.cache/blobflow")),
    ({"HOME": "/h", "DOCKER_CONFIG": "/d", "XDG_CACHE_HOME": "/c"}, ("/d", "/c/blobflow")),
    ({"HOME": "/h", "DOCKER_CONFIG": "", "XDG_CACHE_HOME": "relative"}, ("/h/.docker", "/h/.cache/blobflow")),
]


@pytest.mark.parametrize(("environ", "expected"), ENVIRONMENTS)
def test_the_environment_says_where_things_are(
    environ: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    assert tuple(path and str(path) for path in places_of(environ)) == expected


def test_an_xdg_folder_without_a_home_is_nowhere() -> None:
    assert xdg_folder({}, "XDG_DATA_HOME", ".local/share") is None


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("[::1]:0", ("::1", 0)),
        (":80", ("0.0.0.0", 80)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_an_address_to_listen_on(text: str, address: tuple[str, int]) -> None:
    assert parse_listen_address(text) == address


@pytest.mark.parametrize("text", ["", "5000", "host", "host:", "host:x", "host:65536", "::1:5000", "h:٣"])
def test_what_is_no_address_to_listen_on(text: str) -> None:
    with pytest.raises(UsageError, match="--listen"):
        parse_listen_address(text)


# Files


def test_a_result_file_is_replaced_whole(tmp_path: Path) -> None:
    place = tmp_path / "report.json"
    place.write_bytes(b"old")
    write_atomic(place, b"new")
    assert place.read_bytes() == b"new"
    assert place.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [place]


def test_a_result_that_can_not_be_written_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(StorageError, match=r"can't write .*taken"):
        write_atomic(tmp_path / "taken", b"x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_a_result_without_a_folder_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--report .*no/report\.json: there is no folder"):
        check_writable(tmp_path / "no" / "report.json", "--report")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--log-format", "json", "--bogus"), "No such option '--bogus'"),
        (("--bogus", "--log-format=json"), "No such option '--bogus'"),
        (("--concurrency", "0", "--log-format", "json"), "Invalid value for '--concurrency'"),
        (("--log-format", "json"), "Missing argument"),
    ],
)
def test_what_is_wrong_with_the_command_line_is_a_line_of_json_for_who_reads_that(
    words: tuple[str, ...], says: str
) -> None:
    done = CliRunner().invoke(cli.cli, ["copy", *words])
    (line,) = done.stderr.splitlines()
    told = json.loads(line)
    assert (told["event"], told["exit_code"], done.exit_code) == ("error", 2, 2)
    assert says in told["message"]


# Signals

WORK = """
import asyncio, sys
from blobflow.cli.runtime.event_loop import run_loop

async def work():
    print("ready", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("cleaning", flush=True)
        {after}

try:
    run_loop(work())
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


def start(after: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORK.format(after=after)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_cancels_and_lets_the_work_clean_up(number: int) -> None:
    process = start("pass")
    process.send_signal(number)
    out, _ = process.communicate(timeout=HANGS_AFTER)
    assert (out, process.returncode) == ("cleaning\ninterrupted\n", 130)


@pytest.mark.parametrize("after", ["await asyncio.Event().wait()", "while True: pass"], ids=["waits", "busy"])
def test_the_second_signal_ends_at_once(after: str) -> None:
    process = start(after)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=HANGS_AFTER)
    assert (out, process.returncode) == ("", 130)


def test_a_terminal_that_goes_away_cancels_once_however_often_that_is_told() -> None:
    process = start("await asyncio.sleep(0.1)")
    for _ in range(3):
        process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=HANGS_AFTER)
    assert (out, process.returncode) == ("cleaning\ninterrupted\n", 130)


@pytest.mark.parametrize("taken", [signal.SIG_IGN, lambda number, frame: None], ids=["nohup", "schedule"])
def test_sighup_ends_nothing_where_it_means_something_else(taken: Any) -> None:
    before = signal.signal(signal.SIGHUP, taken)

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGHUP)

    try:
        run_loop(work())
        assert signal.getsignal(signal.SIGHUP) is taken
    finally:
        signal.signal(signal.SIGHUP, before)


IMPORTING = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupted(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == broken:
            os.kill(os.getpid(), signal.SIGINT)

broken = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupted())
from blobflow.__main__ import main
main()
"""


@pytest.mark.parametrize(
    "module", ["click", "blobflow.cli.commands.report", "blobflow.reportfile", "msgspec"]
)
def test_ctrl_c_while_modules_are_imported_is_an_interruption_as_well(module: str, tmp_path: Path) -> None:
    words = ["report", "show", str(tmp_path / "no.json")]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, module, *words],
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "blobflow: interrupted\n", 130)


def test_ctrl_c_at_a_question_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object, **__: object) -> str:
        raise click.Abort

    monkeypatch.setattr("blobflow.cli.options.credentials.prompt", ask)
    done = CliRunner().invoke(cli.cli, ["login", "r.example"])
    assert (done.stderr, done.exit_code) == ("blobflow: interrupted\n", 130)


WINDING = """
import asyncio
from blobflow.cli.runtime.event_loop import SHUTDOWN, run_loop

async def work():
    over = asyncio.Event()
    shutdown = SHUTDOWN.get()
    shutdown.grace = 60.0

    def wind_down():
        over.set()
        return True

    shutdown.wind_down = wind_down
    print("ready", flush=True)
    await over.wait()
    print("ended by itself", flush=True)

try:
    run_loop(work())
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise SystemExit(130)
"""


def test_sigterm_lets_what_is_under_way_end_and_is_an_interruption_all_the_same() -> None:
    process = subprocess.Popen([sys.executable, "-c", WINDING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=HANGS_AFTER)
    assert (out, process.returncode) == ("ended by itself\ninterrupted\n", 130)


@pytest.mark.parametrize(
    ("number", "winds_down", "words", "seconds"),
    [
        (
            signal.SIGINT,
            True,
            "interrupted: leaving what is under way for a later run to go on with",
            None,
        ),
        (
            signal.SIGTERM,
            False,
            "interrupted: leaving what is under way for a later run to go on with",
            None,
        ),
        (signal.SIGTERM, True, "finishing what is under way", 25.0),
    ],
)
async def test_that_a_run_is_ending_is_among_what_it_waits_for(
    number: int, words: str, seconds: float | None, *, winds_down: bool
) -> None:
    shutdown = Shutdown()
    shutdown.waits, shutdown.grace = Waits(), 25.0
    shutdown.wind_down = lambda: winds_down
    task = asyncio.create_task(asyncio.Event().wait())
    shutdown.begin(number, task)
    (wait,) = shutdown.waits.now()
    left = None if wait.until is None else wait.until - wait.since
    assert (wait.kind, wait.what, left) == ("end", words, seconds)
    task.cancel()


def test_signals_are_as_before_after_a_run() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]

    async def work() -> int:
        assert signal.getsignal(signal.SIGTERM) is not before[1]
        return 7

    assert run_loop(work()) == 7
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_as_the_work_ends_is_not_lost(number: int) -> None:
    """Else a process that stays would go on with its next run."""

    async def work() -> None:
        os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run_loop(work())


# The package


def test_every_public_name_is_there_and_only_when_asked_for() -> None:
    script = "import sys, blobflow\nprint(sorted(m for m in sys.modules if m.startswith('blobflow')))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANGS_AFTER, check=True
    )
    assert done.stdout == "['blobflow']\n"
    for name in blobflow.__all__:
        assert getattr(blobflow, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(blobflow, "nonsense")  # noqa: B009


def test_a_reader_of_stdout_that_went_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "blobflow", "copy", "--help"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=HANGS_AFTER,
        )
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_a_run_returns_is_not_turned_into_text_on_the_way_out() -> None:
    """asyncio would, twice: a large plan would cost its own size many times over."""

    asked: list[str] = []

    class Plan:
        def __repr__(self) -> str:
            asked.append("its text")
            return "a plan"

    async def made() -> Plan:
        return Plan()

    assert isinstance(run_loop(made()), Plan)
    assert not asked
