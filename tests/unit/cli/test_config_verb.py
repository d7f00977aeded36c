"""`blobflow config`: what holds and why, checks of files, and the schemas that are published."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.cli.effective_settings import effective_settings
from blobflow.cli.inputs.spec_formats import read_spec
from blobflow.cli.inputs.spec_keys import spec_schema
from blobflow.config_file import config_schema, parse_config
from blobflow.errors import UsageError
from blobflow.settings import Settings
from blobflow.variables import Variables
from tools.checkout import TOP

CONFIG = """\
[registry."Docker.IO"]
mirrors = ["m.example", "n.example/hub"]
proxy = "http://joe:hush@p.example:1"

[registry."r.example:5000".profile]
rungs = ["single"]
"""


def blobflow(*words: str, **environ: str) -> Result:
    return CliRunner(env=environ).invoke(cli, words)


@pytest.mark.parametrize(
    ("text", "environ", "value", "origin"),
    [
        ('engine = "local:2"\n', {}, "local:2", "{file} line 1"),
        ('[engine]\naddress = "local:2"\n', {"BLOBFLOW_ENGINE": ""}, "local:2", "{file} line 2"),
        ('engine = "local:2"\n', {"BLOBFLOW_ENGINE": "none"}, "none", "BLOBFLOW_ENGINE"),
        ('engine = ""\n', {}, "none", "{file} line 1"),
        ("", {}, "none", "default"),
    ],
    ids=["file", "table", "variable", "empty", "nothing"],
)
def test_the_engine_is_shown_once(
    text: str, environ: dict[str, str], value: str, origin: str, tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    shown = [each for each in effective_settings(environ, file) if each.name.startswith("engine")]
    assert [each.name for each in shown] == ["engine", "engine-ca", "engine-cert", "engine-key"]
    assert (shown[0].value, shown[0].origin) == (value, origin.format(file=file))


@pytest.mark.parametrize(
    ("key", "variable", "value", "shown"),
    [
        ("http = true", "BLOBFLOW_TLS", "r.example", "false"),
        ("http = false", "BLOBFLOW_PLAIN_HTTP", "r.example", "true"),
        ("http = true", "BLOBFLOW_TLS", "q.example", None),
        ("http = true", "BLOBFLOW_PLAIN_HTTP", "r.example", None),
        ("insecure = true", "BLOBFLOW_TLS_VERIFY", "true", "false"),
        ("insecure = false", "BLOBFLOW_TLS_VERIFY", "no", "true"),
        ("insecure = true", "BLOBFLOW_TLS_VERIFY", "", None),
    ],
)
def test_a_variable_that_goes_before_the_file_is_shown_in_its_place(
    key: str, variable: str, value: str, shown: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f'[registry."R.example"]\n{key}\n')
    found = effective_settings({variable: value}, file)[-1]
    name, _, said = key.partition(" = ")
    assert found.name.lower() == f"r.example {name}"
    expected = (said, f"{file} line 2") if shown is None else (shown, variable)
    assert (found.value, found.origin) == expected


def test_each_value_is_shown_with_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(f'{CONFIG}\n[signatures]\npolicy = "policy.json"\n')
    environ = {
        "HOME": str(tmp_path),
        "BLOBFLOW_CONFIG": str(file),
        "BLOBFLOW_TLS_VERIFY": "no",
        "BLOBFLOW_PLAIN_HTTP": "b:1 a:1",
        "BLOBFLOW_SOURCE_CREDS": "joe:hush",
        "https_proxy": "http://joe:hush@q.example:2",
        "DOCKER_AUTH_CONFIG": '{"auths": {"r": {"auth": "hush"}}}',
        "XDG_CACHE_HOME": "/var/cache",
    }
    found = effective_settings(environ)
    shown = {each.name: (each.value, each.origin) for each in found}
    for name, value, origin in (
        ("config", str(file), "BLOBFLOW_CONFIG"),
        ("plain-http", "a:1 b:1", "BLOBFLOW_PLAIN_HTTP"),
        ("tls-verify", "false", "BLOBFLOW_TLS_VERIFY"),
        ("ca", "the system's", "default"),
        ("source-creds", "given, not shown", "BLOBFLOW_SOURCE_CREDS"),
        ("target-creds", "none", "default"),
        ("cache-dir", "/var/cache/blobflow", "XDG_CACHE_HOME"),
        ("https-proxy", "http://q.example:2", "https_proxy"),
        ("docker.io mirrors", "m.example n.example/hub", f"{file} line 2"),
        ("docker.io proxy", "http://p.example:1", f"{file} line 3"),
        ("r.example:5000 profile", "rungs=single", f"{file} line 5"),
        ("signatures policy", "policy.json", f"{file} line {CONFIG.count(chr(10)) + 3}"),
    ):
        assert shown[name] == (value, origin)
    assert "hush" not in repr(found)
    logins = [each.value for each in found if each.name == "logins"]
    assert logins[0] == "given, not shown"
    assert logins[1] == f"{tmp_path}/.docker/config.json (absent)"


# The row that shows each field of the settings; `hosts` are rows of their own, as the file has them.
ROWS = {
    "plain_http": "plain-http",
    "https": "tls",
    "tls_verify": "tls-verify",
    "concurrency": "concurrency",
    "cache": "cache",
    "cache_dir": "cache-dir",
    "cache_size": "max-size",
    "docker_config": "logins",
    "auth_files": "logins",
    "auth_content": "logins",
    "ca": "ca",
    "pairs": "cert",
    "certs": "certificates",
    "proxies": "https-proxy",
    "hosts": "docker.io mirrors",
    "bytes_per_second": "limit-rate",
    "trace": "verbose",
    "retry_times": "retry-times",
    "compress": "compress",
}


@pytest.mark.parametrize("field", [*Settings.__struct_fields__])
def test_every_field_of_the_settings_has_a_row(field: str, tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(CONFIG)
    shown = effective_settings({"HOME": str(tmp_path)}, file)
    rows = [each for each in shown if each.name == ROWS[field]]
    assert rows
    assert all(each.value and each.origin for each in rows)


@pytest.mark.parametrize("variable", [*Variables.__struct_fields__])
def test_every_variable_has_a_row(variable: str) -> None:
    names = {each.name for each in effective_settings({"HOME": "/nowhere"})}
    assert ("logins" if variable == "authfile" else variable.replace("_", "-")) in names


def test_a_file_that_is_named_goes_before_the_environment_s(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(CONFIG)
    done = blobflow("config", "show", "--json", "--config", str(file), BLOBFLOW_CONFIG="/nowhere.toml")
    assert done.exit_code == 0
    shown: list[dict[str, str]] = json.loads(done.stdout)
    assert {"name": "config", "value": str(file), "origin": "--config"} in shown
    plain = blobflow("config", "show", "--config", str(file))
    assert len(plain.stdout.splitlines()) == len(shown)


SPEC = "version: 1\ndefaults: {targets: ['t:1'], every: 1h}\nimages: [a, {image: b, tags: {newest: 1}}]\n"
SKOPEO = "r.example.com: {images: {a: ['1']}}\n"
REGSYNC = "sync: [{source: a, target: 't:1/a', type: image, interval: 1h}]\n"
ACCESS = '[[allow]]\nwho = "a"\nrepositories = "b"\ndo = "pull"\n'


@pytest.mark.parametrize(
    ("name", "text", "options", "said"),
    [
        ("c.toml", CONFIG, (), "2 registry tables"),
        ("m.yaml", SPEC, (), "1 image, 1 by rules, 2 with a time of their own"),
        ("m.yaml", SKOPEO, (), "1 image"),
        ("m.yaml", REGSYNC, (), "1 image, 1 with a time of their own"),
        ("a.toml", ACCESS, ("--of", "access"), "1 rule"),
        ("c", CONFIG, ("--of", "config"), "2 registry tables"),
    ],
)
def test_a_good_file_is_told_in_a_line(
    name: str, text: str, options: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    done = blobflow("config", "check", str(tmp_path / name), *options)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / name}: {said}\n")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("c.toml", CONFIG.replace("mirrors", "mirors"), 'line 2: [registry."Docker.IO"]: unknown key'),
        (
            "c.toml",
            "[signatures]\npolice = 'p.json'\n",
            "line 2: signatures: unknown key `police`; did you mean",
        ),
        (
            "m.yaml",
            SPEC.replace("{image: b,", "{image: b, policy: '',"),
            "line 3: `policy` names a signature",
        ),
        ("m.yaml", SPEC.replace("newest", "newst"), "line 3: unknown key `newst`; did you mean `newest`?"),
        (
            "m.yaml",
            SPEC.replace("{image: b, tags: {newest: 1}}", "a"),
            "line 3: docker.io/library/a:latest is",
        ),
    ],
)
def test_a_bad_file_is_told_with_its_lines(name: str, text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    done = blobflow("config", "check", str(tmp_path / name))
    assert done.exit_code == 2
    assert done.stderr.startswith(f"blobflow: {tmp_path / name} {line}")


def test_without_a_file_the_one_in_use_is_checked(tmp_path: Path) -> None:
    (tmp_path / "blobflow").mkdir()
    (tmp_path / "blobflow" / "config.toml").write_text(CONFIG)
    used = blobflow("config", "check", XDG_CONFIG_HOME=str(tmp_path))
    assert used.stdout == f"{tmp_path}/blobflow/config.toml: 2 registry tables\n"
    none = blobflow("config", "check", XDG_CONFIG_HOME="/nowhere", BLOBFLOW_CONFIG="")
    assert (none.exit_code, "no configuration file in use" in none.stderr) == (2, True)


@pytest.mark.parametrize(("kind", "made"), [("spec", spec_schema()), ("config", config_schema())])
def test_the_published_schemas_are_those_of_the_code(kind: str, made: dict[str, object]) -> None:
    done = blobflow("config", "schema", "--of", kind)
    assert json.loads(done.stdout) == json.loads(json.dumps(made))
    published = (TOP / "docs" / "schemas" / f"{kind}.json").read_text()
    assert published == done.stdout, "run python -m tools.schemas"


@pytest.mark.parametrize(
    ("schema", "text", "fits"),
    [
        (config_schema(), CONFIG, True),
        (config_schema(), '[registry.r]\nprofile = "ecr"\nbytes_per_second = "2MB"', True),
        (config_schema(), '[registry.r.profile]\nname = "ours"\nrungs = ["stream"]', True),
        (config_schema(), '[registry.r]\nprofile = "erc"', False),
        (config_schema(), "[registry.r]\nmirors = []", False),
        (config_schema(), "[registry.r]\nconnections = 0", False),
        (spec_schema(), SPEC, True),
        (
            spec_schema(),
            SPEC.replace("newest: 1", "semver: ^3, newest: 2, by: created, anywhere: true"),
            True,
        ),
        (spec_schema(), SPEC.replace("newest", "newst"), False),
        (spec_schema(), SPEC.replace("[a,", "[1.10,"), False),
        (spec_schema(), SPEC.replace("version: 1", ""), False),
    ],
)
def test_a_schema_takes_what_the_code_takes(schema: dict[str, object], text: str, fits: bool) -> None:
    is_spec = schema["title"] == "blobflow spec"
    document = yaml.safe_load(text) if is_spec else tomllib.loads(text)
    assert jsonschema.Draft202012Validator(schema).is_valid(document) is fits
    try:
        if is_spec:
            read_spec(text, "f")
        else:
            parse_config(text, "f", Path("/etc"))
    except UsageError:
        assert not fits
    else:
        assert fits


def test_the_configuration_s_schema_knows_every_key_and_describes_it() -> None:
    document: Any = config_schema()
    for name, part in document["$defs"].items():
        assert part["additionalProperties"] is False, name
        assert part["description"], name
    table = document["$defs"]["HostTable"]["properties"]
    assert all(key["description"] for key in table.values())
    assert {"$ref": "#/$defs/Profile"} in table["profile"]["anyOf"]
    assert "ecr" in table["profile"]["anyOf"][0]["enum"]
