"""Which engine a run has: what was said, else the configuration file's, else none."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from blobflow.cli import cli
from blobflow.cli.options.engine import EngineOptions
from blobflow.cluster.address import Engine
from blobflow.config_file import read_values
from blobflow.errors import InvalidConfig, UsageError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text('[engine]\naddress = "tls://there"\nca = "ca.pem"\ncert = "own.pem"\nkey = "own.key"\n')
    return file


def test_the_configuration_file_names_it_with_files_beside_itself(config: Path) -> None:
    folder = config.parent
    assert EngineOptions().resolve(config) == Engine(
        "tls://there:8786", ca=folder / "ca.pem", cert=folder / "own.pem", key=folder / "own.key"
    )


def test_the_configuration_file_may_name_it_alone_as_the_option_does(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('engine = "local:4"\n[registry."docker.io"]\nconnections = 2\n')
    assert EngineOptions().resolve(file) == Engine(local=4)
    (value, _) = sorted(read_values(file), key=lambda each: each.line)
    assert (value.host, value.key, value.value, value.line) == ("engine", "address", "local:4", 1)


@pytest.mark.parametrize("value", ["4", '["local:4"]', "true"])
def test_what_names_no_engine_in_the_file_is_a_sentence(value: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f"engine = {value}\n")
    with pytest.raises(InvalidConfig, match=r"config\.toml line 1: engine: "):
        EngineOptions().resolve(tmp_path / "config.toml")


def test_an_option_goes_before_the_file_and_takes_its_certificates(config: Path) -> None:
    engine = EngineOptions(engine="tls://elsewhere", engine_cert=Path("mine.pem")).resolve(config)
    assert engine is not None
    assert (engine.address, engine.cert) == ("tls://elsewhere:8786", Path("mine.pem"))
    assert engine.ca == config.parent / "ca.pem"


def test_a_scheduler_that_is_said_to_speak_plainly_gets_no_certificates_of_the_file(config: Path) -> None:
    assert EngineOptions(engine="dask://elsewhere").resolve(config) == Engine("tcp://elsewhere:8786")
    engine = EngineOptions(engine="elsewhere").resolve(config)
    assert engine is not None and engine.address == "tls://elsewhere:8786"


@pytest.mark.parametrize("verb", ["copy", "sync"])
def test_a_dry_run_says_too_what_is_no_engine(verb: str, tmp_path: Path) -> None:
    (tmp_path / "images").write_text("b:1\n")
    listed = ["--from", "a.example", "--to", "c.example", "--images", str(tmp_path / "images")]
    words = {"copy": ["a.example/b:1", "c.example/b:1"], "sync": listed}
    done = CliRunner().invoke(cli, [verb, *words[verb], "--dry-run", "--engine", "local:0"])
    assert done.exit_code == 2
    assert "local:1" in done.output


def test_local_workers_have_no_use_for_the_files_certificates(config: Path) -> None:
    assert EngineOptions(engine="local:2").resolve(config) == Engine(local=2)


def test_none_is_this_process_whatever_the_file_says(config: Path) -> None:
    assert EngineOptions(engine="none").resolve(config) is None


def test_what_is_no_engine_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"dask://HOST:PORT"):
        EngineOptions(engine="ray://there").resolve(None)
    (tmp_path / "config.toml").write_text('[engine]\nadress = "dask://there"\n')
    with pytest.raises(InvalidConfig, match="adress"):
        EngineOptions().resolve(tmp_path / "config.toml")


def test_a_worker_needs_a_scheduler_that_is_one() -> None:
    done = CliRunner().invoke(cli, ["worker", "local:4"])
    assert done.exit_code == 2
    assert "local:4 is no scheduler" in done.output


def test_a_workers_name_is_text() -> None:
    done = CliRunner().invoke(cli, ["worker", "there", "--name", "\udcff"])
    assert done.exit_code == 2
    assert "not UTF-8" in done.output and "Traceback" not in done.output
