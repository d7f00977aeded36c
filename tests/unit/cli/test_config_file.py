"""The configuration file: what it may say, and one sentence, with the nearest right word, for the rest."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow import config_file
from blobflow.bounded_file import read_bounded
from blobflow.config_file import parse_config, read_config, read_engine, read_signatures, read_values
from blobflow.errors import InvalidConfig
from blobflow.transports.registry import DIRECT, ClientCertificate, HostSettings, Profile, TlsSettings
from blobflow.transports.registry.capabilities.profiles import profiles_by_name
from blobflow.transports.registry.http.proxies import single_proxy

FOLDER = Path("/etc/blobflow")


def host(*lines: str, name: str = "r.example") -> HostSettings:
    """The settings of a file with one host."""
    text = "\n".join((f'[registry."{name}"]', *lines))
    (only,) = parse_config(text, "c.toml", FOLDER).values()
    return only


def test_a_file_in_buildkit_s_shape_is_understood() -> None:
    text = """
        [registry."docker.io"]
          mirrors = ["mirror.example:5000", "harbor.example/proxy.docker.io"]
          http = true
          insecure = true
        [registry."r.example:5000"]
          ca = ["ca.pem", "/abs/ca.pem"]
          [[registry."r.example:5000".keypair]]
            key = "key.pem"
            cert = "cert.pem"
    """
    assert parse_config(text, "c.toml", FOLDER) == {
        "docker.io": HostSettings(
            http=True, verify=False, mirrors=("mirror.example:5000", "harbor.example/proxy.docker.io")
        ),
        "r.example:5000": HostSettings(
            trust=TlsSettings(
                ca=(FOLDER / "ca.pem", Path("/abs/ca.pem")),
                pairs=(ClientCertificate(FOLDER / "cert.pem", FOLDER / "key.pem"),),
            )
        ),
    }


def test_nothing_said_is_nothing_changed() -> None:
    assert host() == HostSettings()
    assert parse_config("", "c.toml", FOLDER) == {}


def test_limits_and_proxies_of_a_host() -> None:
    assert host("connections = 16", "requests_per_second = 0.5", 'bytes_per_second = "20MB"') == HostSettings(
        connections=16, requests_per_second=0.5, bytes_per_second=20_000_000
    )
    assert not host("parallel_ranges = false").parallel_ranges and host("connections = 16").parallel_ranges
    assert host("bytes_per_second = 1_000_000").bytes_per_second == 1_000_000
    assert host('proxy = "p.corp:3128"').proxies == single_proxy("http://p.corp:3128", "")
    direct = host('proxy = ""').proxies
    assert direct is not None
    assert (direct.http, direct.https) == (DIRECT.http, DIRECT.https)


def test_a_profile_is_a_name_or_a_table() -> None:
    assert host('profile = "ecr"').profile == profiles_by_name()["ecr"]
    made = host('profile = {rungs = ["stream"], chunk_bytes = 4194304}').profile
    assert made == Profile("configured", rungs=("stream",), chunk_bytes=4 * 1024 * 1024)
    below = host('[registry."r.example".profile]', 'name = "mine"', "bounded = true").profile
    assert below == Profile("mine", bounded=True)


def test_a_host_is_known_by_any_of_its_names() -> None:
    (only,) = parse_config('[registry."Index.Docker.io"]', "c.toml", FOLDER)
    assert only == "docker.io"


R = 'c.toml line 2: [registry."r.example"]'


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ('mirors = ["m.example"]', f"{R}: unknown key `mirors`; did you mean `mirrors`?"),
        ("tls = true", f"{R}: unknown key `tls`; known are http, insecure, ca, keypair, mirrors, "),
        ('keypair = [{key = "k", crt = "c"}]', f"{R} keypair[0]: unknown key `crt`; did you mean `cert`?"),
        ('keypair = [{key = "k"}]', f"{R} keypair[0]: it misses the field `cert`"),
        ("profile = {chunk_byte = 1}", f"{R} profile: unknown key `chunk_byte`; did you mean `chunk_bytes`?"),
        ('profile = "erc"', f"{R} profile: there is no profile `erc`; did you mean `ecr`?"),
        ("profile = {rungs = []}", f"{R} profile: `rungs` is empty"),
        ("profile = {chunk_bytes = 0}", f"{R} profile: `chunk_bytes` has to be at least 1"),
        ('profile = {rungs = ["x"]}', f"{R} profile.rungs[0]: invalid enum value 'x'"),
        ('http = "yes"', f"{R} http: expected `true or false`, got `text`"),
        ('ca = "ca.pem"', f"{R} ca: expected `list`, got `text`"),
        ("connections = 0", f"{R} connections: expected `int` >= 1"),
        ("connections = 1.5", f"{R} connections: expected `int`, got `float`"),
        ("requests_per_second = 0", f"{R} requests_per_second: expected `float` > 0.0"),
        ("requests_per_second = inf", f"{R} requests_per_second: expected `float` <= 1"),
        ("requests_per_second = nan", f"{R} requests_per_second: expected `float`"),
        (f"connections = {'9' * 5000}", "c.toml is not TOML: Exceeds the limit"),
        ('bytes_per_second = "fast"', f"{R} bytes_per_second: 'fast' is no amount of bytes"),
        ('bytes_per_second = "0"', f"{R} bytes_per_second: leave it out for no limit"),
        ('mirrors = ["https://m.example"]', f"{R} mirrors: 'https://m.example' is a URL; write 'm.example'"),
        (
            "[registry.r.example]\nhttp = true",
            'c.toml line 2: [registry."r"]: a host is quoted; write [registry."r.example"]',
        ),
        (
            "[registry.a.b.example]\nhttp = true",
            'c.toml line 2: [registry."a"]: a host is quoted; write [registry."a.b.example"]',
        ),
        (
            "[registry.a.b]\nprofile = {mounts = true}",
            'c.toml line 2: [registry."a"]: a host is quoted; write [registry."a.b"]',
        ),
        ("[registry.a]\nmirors = []", 'c.toml line 3: [registry."a"]: unknown key `mirors`; did you mean'),
        ('mirrors = ["m.example/UP"]', f"{R} mirrors: 'm.example/UP' is not a reference"),
        ('proxy = "socks5://joe:hush@p:1"', f"{R} proxy is 'socks5://p:1', and no URL of a proxy"),
        ('http = true\nca = ["ca.pem"]', f"{R}: `http` goes without TLS"),
        ('[registry."R.example"]', 'c.toml line 2: [registry."R.example"]: r.example has a table already'),
        ('[registry."a b"]', "c.toml line 2: [registry.\"a b\"]: 'a b' is not a registry host"),
        ("[registri]", "c.toml line 2: unknown key `registri`; did you mean `registry`?"),
        ("http = maybe", "c.toml is not TOML: Invalid value (at line 2, column 8)"),
        ("http = true\nhttp = false", "c.toml is not TOML: Cannot overwrite a value ("),
    ],
)
def test_what_can_t_be_used_is_one_sentence(lines: str, sentence: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        host(lines)
    assert raised.value.message.startswith(sentence)
    assert "hush" not in raised.value.message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("registry = 3", "c.toml line 1: registry: expected `table`, got `int`"),
        ('[registry]\n"r.example" = 3', f"{R}: expected `table`, got `int`"),
        ("[" * 100_000, "c.toml is "),
    ],
)
def test_a_file_of_another_shape_is_told(text: str, sentence: str) -> None:
    with pytest.raises(InvalidConfig) as raised:
        parse_config(text, "c.toml", FOLDER)
    assert raised.value.message.startswith(sentence)


_KEYS = "http insecure ca keypair key cert mirrors connections profile rungs proxy"
_VALUES = "true 1 -1 nan 1e9 2000-13-01 'text'"
_WORDS = st.sampled_from(
    ['[registry."r.example"]\n', *"[]={},.\"'#é\\\0 \n", *_KEYS.split(), *_VALUES.split()]
)


@given(st.lists(_WORDS, max_size=40).map("".join) | st.text(max_size=100))
def test_whatever_a_file_says_it_is_settings_or_one_sentence(text: str) -> None:
    try:
        parse_config(text, "c.toml", FOLDER)
    except InvalidConfig as error:
        assert error.message.startswith("c.toml")


def test_a_file_that_can_t_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"can't read the configuration .*absent\.toml: No such file"):
        read_config(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(InvalidConfig, match=r"latin\.toml is not TOML: it is not UTF-8"):
        read_config(tmp_path / "latin.toml")


def test_paths_start_from_the_file_s_folder(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[registry."r.example"]\nca = ["ca.pem"]')
    assert read_config(tmp_path / "c.toml")["r.example"].trust.ca == (tmp_path / "ca.pem",)


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_a_file_is_read_once_for_all_that_it_says(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe says it once: a shell's `--config <(...)`."""
    path, reads = tmp_path / "c.toml", list[Path]()
    text = (
        '[registry."r.example"]\nca = ["ca.pem"]\n[signatures]\npolicy = "p.json"\n[engine]\naddress = "none"'
    )

    def counted(read: Path) -> bytes:
        reads.append(read)
        return read_bounded(read)

    monkeypatch.setattr(config_file, "read_bounded", counted)
    if kind == "pipe":
        os.mkfifo(path)
        writer = threading.Thread(target=path.write_text, args=(text,))
        writer.start()
    else:
        path.write_text(text)
    hosts, signatures, engine = read_config(path), read_signatures(path), read_engine(path)
    assert (list(hosts), signatures.policy, engine.address) == (["r.example"], tmp_path / "p.json", "none")
    assert [each.key for each in read_values(path)] == ["ca", "policy", "address"]
    assert reads == [path]
    if kind == "pipe":
        writer.join()
        return
    path.write_text("[signatures]\npolicy = 'another.json'")
    assert read_signatures(path).policy == tmp_path / "another.json"
    assert read_config(path) == {}
    assert len(reads) == 2


def test_a_file_that_can_not_be_read_is_told_of_each_time(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[registry")
    for read in (read_config, read_signatures):
        with pytest.raises(InvalidConfig, match="is not TOML"):
            read(path)
