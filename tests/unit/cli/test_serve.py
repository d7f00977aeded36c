"""`blobflow serve`: whom it lets in, what it refuses to do, and that its options reach the registry."""

from __future__ import annotations

import base64
import os
import re
import resource
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from blobflow.cli.output.stdio import BufferedLines
from blobflow.cli.runtime.event_loop import MAX_OPEN_FILES, raise_open_file_limit
from tests.deadlines import HANGS_AFTER
from tests.scenarios.serve import served, status

ANN = {"Authorization": "Basic " + base64.b64encode(b"ann:s3cret").decode()}


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_bytes(b"ann:" + bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)) + b"\n")
    return path


def test_the_options_reach_the_registry(htpasswd: Path, tmp_path: Path) -> None:
    root = tmp_path / "r"
    with served(root, "--htpasswd", str(htpasswd), "--max-blob-size", "10B", "-v") as url:
        assert status(f"{url}/v2/") == 401
        assert status(f"{url}/v2/", headers=ANN) == 200
        where = f"{url}/v2/app/blobs/uploads/?digest=sha256:" + "0" * 64
        assert status(where, "POST", ANN, b"12345678901") == 413
    log = root.with_suffix(".log").read_text()
    assert "/v2/ 401" in log
    assert "s3cret" not in log
    assert ANN["Authorization"].partition(" ")[2] not in log
    with served(root, "--read-only") as url:
        assert status(f"{url}/v2/") == 200
        assert status(f"{url}/v2/app/blobs/uploads/", "POST") == 405


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        *(
            ("--public-url", url, "write https://HOST[:PORT][/PREFIX]")
            for url in (
                " ",
                "registry.example",
                "https://",
                "ftp://x",
                "https://h?x=1",
                "https://[::1",
                "https://h:99999",
            )
        ),
        ("--public-url", "https://h/a/../b", "a prefix has letters"),
        ("--public-url", "https://h//b", "a prefix has letters"),
        ("--public-url", "https://ann:s3cret@h", "no login"),
        ("--trust-proxy", "nginx", "write 10.0.0.7 or 10.0.0.0/8"),
        ("--trust-proxy", "10.0.0.7,", "write 10.0.0.7 or 10.0.0.0/8"),
        ("--trust-proxy", "10.0.0.7/33", "write 10.0.0.7 or 10.0.0.0/8"),
    ],
)
def test_a_wrong_word_on_how_clients_come_is_said_so(
    tmp_path: Path, option: str, value: str, said: str
) -> None:
    where = ["--listen", "127.0.0.1:0", "--root", str(tmp_path / "r")]
    done = CliRunner().invoke(cli, ["serve", *where, f"{option}={value}"])
    assert done.exit_code == 2
    assert said in done.output
    assert "s3cret" not in done.output
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("trusted", [["--trust-proxy"], ["--trust-proxy=10.0.0.7,127.0.0.0/8"]])
def test_trust_in_a_proxy_needs_no_address_and_takes_several(tmp_path: Path, trusted: list[str]) -> None:
    told = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "reg.example", "X-Forwarded-For": "192.0.2.7"}
    with served(tmp_path / "r", *trusted, "-v") as url:
        request = urllib.request.Request(f"{url}/v2/app/blobs/uploads/", method="POST", headers=told)
        with urllib.request.urlopen(request, timeout=HANGS_AFTER) as answer:
            assert answer.headers["Location"].startswith("https://reg.example/v2/app/blobs/uploads/")
    assert "192.0.2.7 POST /v2/app/blobs/uploads/ 202 " in (tmp_path / "r.log").read_text()


def test_logins_and_rules_may_come_through_pipes_which_are_read_once(htpasswd: Path, tmp_path: Path) -> None:
    """As from a program that knows the logins; SIGHUP does not wait for more of them."""
    root, pipe = tmp_path / "r", tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(pipe.write_bytes, htpasswd.read_bytes())
        with served(root, "--htpasswd", str(pipe)) as url:
            assert status(f"{url}/v2/", headers=ANN) == 200
    assert root.with_suffix(".log").read_text() == "stopping\n"


def test_a_registry_may_have_as_many_connections_as_the_system_lets_it() -> None:
    """Shells and services usually allow 1024 open files, and many more to a program that asks."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        raise_open_file_limit()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert hard == before[1]
    assert soft == (MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES))


def test_a_limit_that_is_high_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*limits: object) -> None:
        pytest.fail("it was changed")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    for soft in (MAX_OPEN_FILES, MAX_OPEN_FILES + 1, resource.RLIM_INFINITY):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, soft=soft: (soft, resource.RLIM_INFINITY))
        raise_open_file_limit()


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["serve", *arguments])
    assert done.exit_code == 2, done.output
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0"])
def test_it_stays_on_loopback_unless_logins_or_the_lack_of_them_are_chosen(
    listen: str, tmp_path: Path
) -> None:
    line = refused("--listen", listen, "--root", str(tmp_path / "r"))
    assert line.startswith(f"blobflow: on {listen} anyone who reaches this machine could change the registry")
    assert "--htpasswd FILE" in line
    assert "--anonymous" in line
    assert not (tmp_path / "r").exists()


def test_what_is_pulled_through_could_be_read_and_not_changed(tmp_path: Path) -> None:
    line = refused("--listen", "0.0.0.0:0", "--root", str(tmp_path / "r"), "--upstream", "docker.io")
    assert "anyone who reaches this machine could read the registry" in line


def test_what_can_not_be_meant_is_said_before_anything_is_made(htpasswd: Path, tmp_path: Path) -> None:
    root = tmp_path / "r"
    md5 = tmp_path / "md5"
    rules = tmp_path / "rules"
    rules.write_text('[[allow]]\nwho = "ann"\ndo = "pull"\n')
    md5.write_text("ann:$apr1$abcdefgh$0123456789012345678901\n")
    for options, said in (
        (("--tls-key", str(htpasswd)), "--tls-key goes with --tls-cert"),
        (("--tls-cert", str(htpasswd)), f"{htpasswd} is no certificate (PEM)"),
        (("--tls-cert", str(tmp_path / "none")), f"can't read {tmp_path}/none: No such file"),
        (("--htpasswd", str(tmp_path / "none")), f"can't read {tmp_path}/none: No such file"),
        (("--htpasswd", str(md5)), f"{md5} line 1 has no bcrypt hash"),
        (("--access", str(tmp_path / "none")), f"can't read {tmp_path}/none: No such file"),
        (("--access", str(md5)), f"{md5} is not TOML: "),
        (("--access", str(rules)), f"{rules} line 1 rule 1: it has no `repositories`"),
    ):
        line = refused("--root", str(root), "--listen", "127.0.0.1:0", *options)
        assert said in line
        assert "$apr1$" not in line
    assert not root.exists()


@pytest.mark.parametrize("options", [(), ("--upstream", "docker.io", "--max-size", "1GB")])
def test_an_address_that_can_not_be_had_is_said_in_one_sentence(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    root = str(tmp_path / "r")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refused("--listen", f"127.0.0.1:{port}", "--root", root, *options)
    assert line == f"blobflow: can't listen on 127.0.0.1 port {port}: Address already in use"
    line = refused("--listen", "no.such.host.invalid:0", "--anonymous", "--root", root, *options)
    assert line.startswith("blobflow: can't listen on no.such.host.invalid port 0: ")


@pytest.mark.parametrize("option", ["--upload-ttl", "--upstream-ttl", "--grace"])
def test_seconds_that_are_no_number_are_refused(option: str, tmp_path: Path) -> None:
    nowhere = ["--root", str(tmp_path / "r"), "--read-only"]  # so that it never serves
    done = CliRunner().invoke(cli, ["serve", *nowhere, option, "nan"])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.stderr


def test_upstreams_that_can_not_be_told_apart_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "r"
    for upstreams, said in (
        (("docker.io", "quay.io"), "quay.io is a second upstream without a prefix; write quay.io=PREFIX"),
        (("docker.io=a", "quay.io=a"), "two upstreams have the prefix 'a'"),
        (("docker.io=a", "index.docker.io=b"), "two upstreams have the host 'docker.io'"),
        (("quay.io=A",), "write HOST or HOST=PREFIX"),
        (("quay.io=",), "write HOST or HOST=PREFIX"),
    ):
        options = [word for upstream in upstreams for word in ("--upstream", upstream)]
        assert said in refused("--root", str(root), "--listen", "127.0.0.1:0", *options)
    assert not root.exists()


def test_options_that_need_another_say_which(tmp_path: Path) -> None:
    for options, said in (
        (("--max-size", "1GB"), "with --upstream"),
        (("--policy", "policy.json"), "with --upstream"),
        (("--upstream", "docker.io", "--trusted-root", "root.json"), "with --policy FILE"),
        (("--access-log-file", str(tmp_path / "log")), "goes with --access-log"),
        (("--bundle", "bundle.tar"), "--root is for a store"),
    ):
        assert said in refused("--root", str(tmp_path / "r"), "--listen", "127.0.0.1:0", *options)
    assert list(tmp_path.iterdir()) == []


def test_that_a_configured_policy_judges_no_bundle_is_said(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[signatures]\npolicy = "{tmp_path}/policy.json"\n')
    bundle = ("--listen", "127.0.0.1:0", "--bundle", str(tmp_path / "bundle.tar"), "--config", str(config))
    done = CliRunner().invoke(cli, ["serve", *bundle])
    assert done.stderr.splitlines() == [
        f"blobflow: what a bundle holds is not judged by {tmp_path}/policy.json, as the configuration has it;"
        " `load` judges it",
        f"blobflow: there is no bundle {tmp_path / 'bundle.tar'}, and no part of one as"
        f" {tmp_path / 'bundle.001.tar'}",
    ]


def test_a_bundle_takes_nothing_that_is_a_stores(tmp_path: Path) -> None:
    bundle = ("--listen", "127.0.0.1:0", "--bundle", str(tmp_path / "bundle.tar"))
    for options, said in (
        (("--upstream", "docker.io"), "--upstream is for a store"),
        (("--max-blob-size", "1GB"), "--max-blob-size is for a store"),
        (("--max-size", "1GB"), "--max-size is for a store"),
        (("--policy", "p.json"), "`load --policy p.json` what is in it"),
        (("--trusted-root", "r.json"), "--trusted-root is for what is pulled through, and --bundle"),
        (("--listen", "0.0.0.0:0"), "could read the registry"),
        ((), f"there is no bundle {tmp_path / 'bundle.tar'}, and no part of one"),
    ):
        assert said in refused(*bundle, *options)
    assert list(tmp_path.iterdir()) == []


def test_a_policy_that_can_not_be_applied_serves_nothing(tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text('{"default": [{"type": "accept"}]}')
    config = tmp_path / "config.toml"
    config.write_text('[signatures]\npolicy = "policy.json"\n')
    words = ("--root", str(tmp_path / "r"), "--listen", "127.0.0.1:0", "--upstream", "docker.io")
    for options, said in (
        (("--policy", str(tmp_path / "absent.json")), "can't read the signature policy"),
        (("--policy", str(tmp_path / "policy.json")), "should be one of insecureAcceptAnything"),
        (("--config", str(config)), "should be one of insecureAcceptAnything"),
    ):
        assert said in refused(*words, *options)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("common", r'127\.0\.0\.1 - - \[../.../....:..:..:.. \+0000\] "GET /v2/\?a=b HTTP/1\.1" 200 2'),
        ("combined", r'.* "GET /v2/\?a=b HTTP/1\.1" 200 2 "-" "Python-urllib/.*"'),
        ("json", r'\{.*"method":"GET","path":"/v2/","query":"a=b","status":200,.*\}'),
    ],
)
def test_the_access_log_has_a_line_a_request(tmp_path: Path, form: str, line: str) -> None:
    log = tmp_path / "log"
    log.write_text("kept\n")
    with served(tmp_path / "r", "--access-log", form, "--access-log-file", str(log)) as url:
        assert status(f"{url}/v2/?a=b") == 200
        assert status(f"{url}/healthz") == 200
    kept, first, second = log.read_text().splitlines()
    assert kept == "kept"
    assert re.fullmatch(line, first)
    assert "/healthz" in second


def test_an_access_log_that_can_not_be_written_is_said_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli,
        ["serve", "--root", str(tmp_path / "r"), "--access-log", "json", "--access-log-file", "/dev/null/x"],
    )
    assert done.exit_code == 8
    assert done.stderr.startswith("blobflow: can't write to /dev/null/x: ")


async def test_lines_are_written_together_and_a_full_disk_ends_nothing() -> None:
    written: list[str] = []
    lines = BufferedLines(written.append)
    lines.add("a")
    lines.add("b")
    assert written == []
    lines.add("c" * 70_000)
    assert written == ["a\nb\n" + "c" * 70_000 + "\n"]
    lines.add("d")
    lines.close()
    lines.close()
    assert written[1:] == ["d\n"]

    def full(text: str) -> None:
        raise OSError("no space")

    broken = BufferedLines(full)
    broken.add("e")
    broken.close()


def test_a_login_in_an_upstream_is_refused_and_not_quoted() -> None:
    done = CliRunner().invoke(cli, ["serve", "--upstream", "joe:hush@r.example"])
    assert done.exit_code == 2 and "a login in front of a host" in done.stderr
    assert "hush" not in done.output
