"""Flags over environment over file; logins on the command line; `login` and `logout`."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from blobflow import cli
from blobflow.cli.options.connection import (
    ConnectionOptions,
    SideOptions,
    connection_options,
    source_connection_options,
)
from blobflow.cli.options.credentials import parse_login, prompt
from blobflow.cli.options.places import PLACE
from blobflow.cli.options.run import RunOptions, run_options
from blobflow.cli.settings import Hosts, connection_settings, hosts_of, run_settings
from blobflow.cli.verb import Verb
from blobflow.engine.pairs import Pair
from blobflow.environment import login_file
from blobflow.errors import InvalidConfig, InvalidReference, UsageError
from blobflow.oci import parse_reference
from blobflow.settings import Settings, host_access, logins_of
from blobflow.transports.registry import Credentials, HostSettings
from tests.e2e.servers.locked_registry import Authority

JOE = Credentials("joe", "hush:hush")
BETWEEN = Hosts(frozenset({"s.example"}), frozenset({"t.example"}))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, with nothing in the environment that speaks of registries."""
    for name in list(os.environ):
        if name.startswith(("BLOBFLOW_", "XDG_", "REGISTRY_", "DOCKER_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def settings(*argv: str, ends: Hosts = BETWEEN) -> Settings:
    """What the options of a verb that moves images come to, in this environment."""
    found: list[Settings] = []

    @click.command(cls=Verb)
    @run_options
    @connection_options
    def verb(run: RunOptions, connection: ConnectionOptions) -> None:
        found.append(run_settings(connection, run, ends))

    verb.main(list(argv), standalone_mode=False)
    return found[0]


def configured(home: Path, text: str) -> Path:
    file = home / ".config" / "blobflow" / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_file_is_found_in_xdg_s_configuration_and_by_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings().hosts == {}
    configured(home, '[registry."r.example"]\nconnections = 1')
    other = home / "other.toml"
    other.write_text('[registry."r.example"]\nconnections = 2')
    assert settings().hosts["r.example"].connections == 1
    monkeypatch.setenv("BLOBFLOW_CONFIG", str(other))
    assert settings().hosts["r.example"].connections == 2
    assert settings("--config", os.devnull).hosts == {}
    with pytest.raises(InvalidConfig, match=r"absent\.toml: No such file"):
        settings("--config", str(home / "absent.toml"))


def test_flags_count_before_the_environment_and_that_before_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(home, '[registry."r.example"]\ninsecure = true\nconnections = 3')
    assert settings().tls_verify is True
    assert settings().hosts["r.example"].verify is False
    monkeypatch.setenv("BLOBFLOW_TLS_VERIFY", "true")
    assert settings().hosts["r.example"].verify is None
    assert settings("--tls-verify=false").tls_verify is False
    assert settings().hosts["r.example"].connections == 3
    assert settings("--concurrency", "5").hosts["r.example"].connections is None
    assert settings("--concurrency", "5").concurrency == 5


TLS, PLAIN = ("BLOBFLOW_TLS", "r.example q.example"), ("BLOBFLOW_PLAIN_HTTP", "r.example q.example")


@pytest.mark.parametrize(
    ("argv", "variable", "http", "scheme"),
    [
        ((), TLS, None, "https"),
        ((), PLAIN, None, "http"),
        (("--plain-http", "r.example"), TLS, None, "http"),
        (("--tls", "r.example"), PLAIN, None, "https"),
        (("http://r.example/x",), TLS, None, "http"),
        (("https://r.example/x",), PLAIN, None, "https"),
        (("--tls", "r.example"), None, True, "https"),
        (("https://r.example/x",), None, True, "https"),
        ((), TLS, True, "https"),
        (("--plain-http", "r.example"), None, False, "http"),
        (("http://r.example/x",), None, False, "http"),
        ((), PLAIN, False, "http"),
        (("--plain-http", "r.example"), TLS, False, "http"),
        (("--tls", "r.example"), PLAIN, True, "https"),
    ],
)
def test_so_does_what_says_whether_a_host_speaks_tls(
    argv: tuple[str, ...],
    variable: tuple[str, str] | None,
    http: bool | None,
    scheme: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if variable is not None:
        monkeypatch.setenv(*variable)
    if http is not None:
        configured(home, f'[registry."r.example"]\nhttp = {str(http).lower()}\nconnections = 3')
    made = told_by(*argv)
    reached = host_access("r.example", made, logins_of(made))
    assert (reached.scheme, reached.connections) == (scheme, 8 if http is None else 3)
    assert reached.tls_optional is False


def test_what_the_environment_says_of_other_hosts_stays_beside_a_scheme(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*TLS)
    assert told_by("http://r.example/x").https == {"q.example"}


@pytest.mark.parametrize("option", ["--no-creds", "--authfile", "--username"])
def test_a_login_of_the_environment_gives_way_to_an_option(
    option: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOBFLOW_SOURCE_CREDS", "env:hush")
    monkeypatch.setenv("BLOBFLOW_TARGET_CREDS", "joe:hush:hush")
    (home / "auth.json").write_text("{}")
    argv = {
        "--no-creds": ("--src-no-creds",),
        "--authfile": ("--src-authfile", str(home / "auth.json")),
        "--username": ("--src-username", "joe", "--src-password", "hush:hush"),
    }[option]
    made = settings(*argv)
    given = made.hosts["s.example"].credentials
    assert (given == JOE) if option == "--username" else callable(given)
    assert made.hosts["t.example"].credentials == JOE, "the other side's stays"


@pytest.mark.parametrize("option", ["--authfile", "--source-authfile", "--src-authfile"])
def test_so_it_does_where_a_verb_has_one_side(
    option: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOBFLOW_SOURCE_CREDS", "env:hush")
    (home / "auth.json").write_text("{}")
    found: list[SideOptions] = []

    @click.command(cls=Verb)
    @source_connection_options
    def verb(connection: ConnectionOptions) -> None:
        found.append(connection.source)

    verb.main([option, str(home / "auth.json")], standalone_mode=False)
    verb.main([], standalone_mode=False)
    assert [each.creds for each in found] == [None, Credentials("env", "hush")]
    assert settings("--authfile", str(home / "auth.json")).hosts["s.example"].credentials == Credentials(
        "env", "hush"
    ), "which is for both sides, and not for this one more than for the other"


def test_certificates_and_proxies_are_taken_over(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(home / "ca")
    client = authority.issue("client")
    monkeypatch.setenv("HTTPS_PROXY", "http://p.corp:3128")
    monkeypatch.setenv("BLOBFLOW_CA", str(authority.pem))
    made = settings("--cert", str(client.cert), "--key", str(client.key))
    assert (made.ca, [tuple(pair) for pair in _pairs(made)]) == ((authority.pem,), [tuple(client)])
    assert made.proxies.https == "http://p.corp:3128"
    assert made.certs[0] == home / ".config" / "containers" / "certs.d"
    for flags, words in (
        (("--cert", str(client.cert)), "--cert and --key go together"),
        (("--ca", str(home / "absent")), "can't read the CA certificate"),
    ):
        with pytest.raises(UsageError, match=words):
            settings(*flags)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://joe:hush@p.corp")
    with pytest.raises(InvalidConfig, match=r"HTTPS_PROXY is 'socks5://p\.corp'"):
        settings()


def _pairs(made: Settings) -> Iterator[tuple[Path, Path]]:
    return ((pair.cert, pair.key) for pair in made.pairs)


def test_logins_come_from_docker_s_file_and_then_containers_unless_a_file_is_named(home: Path) -> None:
    def files(**environ: str) -> tuple[Path | None, tuple[Path, ...]]:
        made = connection_settings(ConnectionOptions(), {"HOME": str(home)} | environ, Hosts())
        return made.docker_config, made.auth_files

    config = home / ".config" / "containers" / "auth.json"
    assert files(XDG_RUNTIME_DIR="/run/me") == (
        home / ".docker",
        (Path("/run/me/containers/auth.json"), config),
    )
    assert files() == (home / ".docker", (Path(f"/run/containers/{os.getuid()}/auth.json"), config))
    assert files(DOCKER_CONFIG="/d")[0] == Path("/d")
    named = home / "named.json"
    with pytest.raises(UsageError, match=r"REGISTRY_AUTH_FILE names .*named\.json, and there is no"):
        files(REGISTRY_AUTH_FILE=str(named))
    named.touch()
    assert files(REGISTRY_AUTH_FILE=str(named)) == (None, (named,))
    assert login_file({"HOME": "/h", "REGISTRY_AUTH_FILE": "/a.json"}) == Path("/a.json")
    assert login_file({"HOME": "/h"}) == Path("/h/.docker/config.json")
    with pytest.raises(UsageError, match="there is no home to keep logins in"):
        login_file({})


# logins on the command line


def test_a_login_goes_to_the_one_registry_of_its_side(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(home, '[registry."t.example"]\nconnections = 3')
    monkeypatch.setenv("BLOBFLOW_SOURCE_CREDS", "sue:x")
    made = settings("--target-creds", "joe:hush:hush")
    assert made.hosts["s.example"].credentials == Credentials("sue", "x")
    assert made.hosts["t.example"].credentials == JOE
    assert made.hosts["t.example"].connections == 3
    assert "hush" not in repr(made)


@pytest.mark.parametrize(
    ("argv", "ends", "words"),
    [
        (
            ("--source-creds", "joe:hush"),
            Hosts(frozenset({"a.example", "b.example"}), frozenset()),
            r"--source-creds is for one registry, and the sources are a\.example, b\.example",
        ),
        (
            ("--target-creds", "joe:hush"),
            Hosts(frozenset({"a.example"}), frozenset({"oci:dir"})),
            "there is no target registry",
        ),
        (
            ("--source-creds", "joe:hush", "--target-creds", "joe:other"),
            Hosts(frozenset({"a.example"}), frozenset({"a.example"})),
            r"a\.example is source and target; give it one login",
        ),
        (("--source-creds", ":hush"), BETWEEN, "--source-creds wants USER:PASSWORD"),
        (("--source-creds", "@/absent/hush"), BETWEEN, "--source-creds: can't read /absent/"),
    ],
)
def test_a_login_that_can_t_be_placed_is_told_without_it(
    home: Path, argv: tuple[str, ...], ends: Hosts, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        settings(*argv, ends=ends)
    assert "hush" not in raised.value.message.replace("/absent/hush", "")


def test_one_registry_at_both_ends_needs_its_login_once(home: Path) -> None:
    here = Hosts(frozenset({"a.example"}), frozenset({"a.example"}))
    assert settings("--source-creds", "joe:x", ends=here).hosts["a.example"].credentials == Credentials(
        "joe", "x"
    )


def test_a_login_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "creds"
    file.write_text("joe:hush:hush\r\nmore\n")
    assert parse_login(f"@{file}", "--x") == JOE
    file.write_bytes(b"\xef\xbb\xbfjoe:hush:hush")
    assert parse_login(f"@{file}", "--x") == JOE, "as editors of Windows write it"
    file.write_text("hush")
    with pytest.raises(UsageError, match="--x: the file's first line is not USER:PASSWORD") as raised:
        parse_login(f"@{file}", "--x")
    assert "hush" not in raised.value.message
    file.write_bytes(b"joe:\xff")
    with pytest.raises(UsageError, match="is not UTF-8"):
        parse_login(f"@{file}", "--x")


def test_a_password_is_asked_for_on_the_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def click_prompt(text: str, *, hide_input: bool, err: bool) -> str:
        asked.append((text, hide_input, err))
        return "hush:hush"

    monkeypatch.setattr("click.prompt", click_prompt)
    with pytest.raises(UsageError, match="no terminal to ask on; give --x @FILE"):
        parse_login("joe", "--x")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert parse_login("joe", "--x") == JOE
    assert asked == [("Password of joe", True, True)]
    assert prompt("Username", hidden=False, instead="-u") == "hush:hush"


def test_the_ends_of_pairs_are_their_hosts() -> None:
    pairs = [Pair(parse_reference("s.example/a:1"), parse_reference("t.example/a:1"))]
    assert hosts_of(pairs) == BETWEEN


# login and logout, where nobody listens


def door(*argv: str, given: str | None = None) -> Result:
    return CliRunner().invoke(cli.cli, list(argv), input=given)


@pytest.mark.parametrize(
    ("argv", "given", "code", "words"),
    [
        (("r.example",), "", 2, "Username: there is no terminal to ask on; give --username"),
        (
            ("r.example", "-u", "joe"),
            "",
            2,
            "Password: there is no terminal to ask on; give --password",
        ),
        (("r.example", "-u", "joe", "--password-stdin"), "\n", 2, "--password-stdin: stdin is empty"),
        (("r.example", "-u", "joe:x", "--password-stdin"), "hush", 2, "'joe:x' is no user name"),
        (("ftp://r.example", "-u", "joe", "--password-stdin"), "hush", 2, "is not a registry host"),
    ],
)
def test_a_login_that_can_t_be_tried_is_not_kept(
    home: Path, argv: tuple[str, ...], given: str, code: int, words: str
) -> None:
    done = door("login", *argv, given=given)
    assert (done.exit_code, words in done.stderr) == (code, True), done.stderr
    assert "hush" not in done.output
    assert not (home / ".docker").exists()


def test_a_password_is_never_an_argument(home: Path) -> None:
    done = door("login", "r.example", "-u", "joe", "-p", "hush")
    assert done.exit_code == 2
    assert "hush" not in done.output
    assert "--password " not in door("login", "--help").output


def test_logout_says_what_it_dropped(home: Path) -> None:
    file = home / ".docker" / "config.json"
    assert door("logout", "r.example").output == f"{file} has no login for r.example\n"
    file.parent.mkdir()
    file.write_text(json.dumps({"auths": {"r.example": {"auth": "x"}}}))
    assert door("logout", "R.example").output == "logged out of r.example\n"
    assert json.loads(file.read_text()) == {"auths": {}}


def test_logout_says_which_logins_for_the_host_are_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    kept, mark = {"auth": "am9lOmh1c2g="}, "still has a login for"
    docker, podman = home / ".docker" / "config.json", home / "run" / "containers" / "auth.json"
    other = home / ".config" / "containers" / "auth.json"
    for file in (docker, podman, other):
        file.parent.mkdir(parents=True)
    docker.write_text(json.dumps({"auths": {"r.example": kept, "r.example/team": kept, "s.example": kept}}))
    podman.write_text(json.dumps({"auths": {"https://r.example/v2/": kept, "r.example": {}}}))
    other.write_text("not JSON")
    done = door("logout", "r.example")
    assert (done.exit_code, done.stdout) == (0, "logged out of r.example\n")
    assert done.stderr.splitlines() == [
        f"warning: {docker} {mark} r.example/team",
        f"warning: {podman} {mark} https://r.example/v2/",
    ]
    assert door("logout", "s.example").stderr == ""
    assert door("logout", "--authfile", str(podman), "r.example").stderr == ""
    assert json.loads(podman.read_text()) == {"auths": {}}


# what is said of one side, in our words and skopeo's


BOTH = Hosts(frozenset({"a.example", "b.example", "oci:x"}), frozenset({"t.example", "b.example"}))


@pytest.mark.parametrize("option", ["--source-tls-verify", "--src-tls-verify"])
@pytest.mark.parametrize("value", [["=false"], ["", "false"], ["", "0"], ["", "no"]])
def test_tls_of_the_sources_alone_may_go_unverified(home: Path, option: str, value: list[str]) -> None:
    configured(home, '[registry."a.example"]\nconnections = 3\ninsecure = false')
    made = settings(option + value[0], *value[1:], ends=BOTH)
    assert {host: own.verify for host, own in made.hosts.items()} == {"a.example": False, "b.example": False}
    assert made.hosts["a.example"].connections == 3
    assert made.tls_verify is True


def test_a_side_counts_before_what_is_said_of_all(home: Path) -> None:
    made = settings("--tls-verify=false", "--dest-tls-verify", ends=BETWEEN)
    assert (made.tls_verify, made.hosts["t.example"].verify) == (False, True)
    assert "s.example" not in made.hosts
    assert settings("--insecure").tls_verify is False


def test_one_registry_at_both_sides_is_not_verified_by_halves(home: Path) -> None:
    with pytest.raises(UsageError, match=r"b\.example is source and target; verify its TLS at both"):
        settings("--src-tls-verify=false", "--dest-tls-verify", ends=BOTH)
    assert settings("--src-tls-verify=false", "--dest-tls-verify=false", ends=BOTH).hosts.keys() == {
        "a.example",
        "b.example",
        "t.example",
    }


@pytest.mark.parametrize(("source", "target"), [("--src-", "--dest-"), ("--source-", "--target-")])
async def test_each_side_has_its_own_login_file(home: Path, source: str, target: str) -> None:
    for side, password in (("s", "one"), ("t", "two")):
        auth = base64.b64encode(f"joe:{password}".encode()).decode()
        (home / f"{side}.json").write_text(
            json.dumps({"auths": {host: {"auth": auth} for host in ("s.example", "t.example")}})
        )
    made = settings(f"{source}authfile", str(home / "s.json"), f"{target}authfile", str(home / "t.json"))
    assert (await found(made, "s.example"), await found(made, "t.example")) == (
        Credentials("joe", "one"),
        Credentials("joe", "two"),
    )
    alone = settings(f"{source}authfile", str(home / "s.json"), f"{target}no-creds")
    assert (await found(alone, "s.example"), await found(alone, "t.example")) == (
        Credentials("joe", "one"),
        None,
    )
    everywhere = settings("--authfile", str(home / "t.json"))
    assert (everywhere.auth_files, everywhere.docker_config) == ((home / "t.json",), None)


async def found(made: Settings, host: str) -> Credentials | None:
    """The login that a host is given."""
    giver = host_access(host, made, logins_of(made)).credentials
    return await giver("") if callable(giver) else giver


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--authfile", "/absent.json"), r"--authfile names /absent\.json, and there is no such file"),
        (("--src-authfile", "/absent.json"), r"--source-authfile names /absent\.json"),
        (("--src-no-creds", "--src-creds", "joe:hush"), r"s\.example is given a login; leave out"),
        (("--src-username", "joe"), "the source's username goes with its password"),
        (("--dest-password", "hush"), "the target's password goes with its username"),
        (
            ("--src-username", "joe", "--src-password", "hush", "--src-creds", "joe:hush"),
            "the source's login is given twice",
        ),
        (("--tls", "s.example", "--plain-http", "s.example"), r"s\.example is to be spoken to by TLS"),
    ],
)
def test_what_contradicts_itself_is_told_without_a_password(
    home: Path, argv: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        made = settings(*argv)
        host_access("s.example", made, logins_of(made))
    assert "hush" not in raised.value.message


def test_skopeo_s_words_for_a_login_are_one(home: Path) -> None:
    for argv in (
        ("--dest-creds", "joe:hush:hush"),
        ("--dest-username", "joe", "--dest-password", "hush:hush"),
    ):
        made = settings(*argv)
        assert made.hosts["t.example"].credentials == JOE
        assert "s.example" not in made.hosts


def test_a_spec_s_settings_of_a_host_are_added_to_and_not_replaced(home: Path) -> None:
    spec = {"t.example": HostSettings(connections=3, http=True, verify=True)}

    def own(connection: ConnectionOptions) -> HostSettings:
        return connection_settings(connection, {}, BETWEEN, host_defaults=spec).hosts["t.example"]

    assert own(ConnectionOptions()) == spec["t.example"]
    side = SideOptions(creds=JOE, tls_verify=False)
    assert own(ConnectionOptions(target=side)) == HostSettings(
        connections=3, http=True, verify=False, credentials=JOE
    )
    assert own(ConnectionOptions(source=side)) == spec["t.example"], "the other side's"


def test_how_often_failures_are_tried_again_is_a_setting(home: Path) -> None:
    assert settings().retry_times is None
    made = settings("--retry-times", "0")
    assert made.retry_times == 0
    assert host_access("s.example", made, logins_of(made)).retry_times == 0


# hosts that are given as URLs


def told_by(*argv: str) -> Settings:
    """The settings of a verb whose arguments are places."""
    made: list[Settings] = []

    @click.command(cls=Verb)
    @click.argument("places", type=PLACE, nargs=-1)
    @connection_options
    def verb(places: tuple[str, ...], connection: ConnectionOptions) -> None:
        assert not any("http" in place.lower() for place in places)
        made.append(run_settings(connection, hosts=BETWEEN))

    verb.main(list(argv), standalone_mode=False)
    return made[0]


def test_a_scheme_says_whether_a_host_speaks_tls(home: Path) -> None:
    made = told_by("https://127.0.0.1:5000/x", "HTTP://R.example/a/b:1", "s.example", "docker://u.example/x")
    assert (made.https, made.plain_http) == (frozenset({"127.0.0.1:5000"}), frozenset({"r.example"}))
    assert host_access("127.0.0.1:5000", made, logins_of(made)).scheme == "https"
    assert host_access("r.example", made, logins_of(made)).scheme == "http"
    again = told_by("s.example")
    assert (again.https, again.plain_http) == (frozenset(), frozenset()), "each command for itself"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("https://r.example", "http://r.example/x"), "r.example is given as https:// and as http://"),
    ],
)
def test_schemes_that_contradict_each_other_are_bad_usage(
    home: Path, argv: tuple[str, ...], words: str
) -> None:
    with pytest.raises(click.UsageError) as raised:
        told_by(*argv)
    assert words in raised.value.format_message()


@pytest.mark.parametrize(
    "rest", ["r.example", "r.example/x", "host", "host:5000=prefix", f"r.example/x@sha256:{'1' * 64}"]
)
@pytest.mark.parametrize("login", ["joe:hush", "joe:hu/hush", "hush", "j@e:hush"])
def test_a_login_in_a_url_is_refused_and_not_quoted(home: Path, login: str, rest: str) -> None:
    with pytest.raises(InvalidReference, match="a login in front of a host is read by everybody") as raised:
        told_by(f"https://{login}@{rest}")
    assert "hush" not in str(raised.value)


def test_settings_and_options_that_say_both_are_told(home: Path) -> None:
    made = Settings(https=frozenset({"r.example"}), hosts={"r.example": HostSettings(http=True)})
    with pytest.raises(UsageError, match=r"r\.example is to be spoken to by TLS, and its settings"):
        host_access("r.example", made, logins_of(made))
    made = told_by("--plain-http", "q.example", "https://q.example/x")
    with pytest.raises(UsageError, match=r"q\.example is to be spoken to by TLS, and --plain-http says"):
        host_access("q.example", made, logins_of(made))
