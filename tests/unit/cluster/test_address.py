"""What names an engine, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from blobflow.cluster.address import Engine, parse_engine, parse_scheduler
from blobflow.errors import UsageError

FILES = {"ca": Path("ca.pem"), "cert": Path("own.pem"), "key": Path("own.key")}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("dask://scheduler:8786", "tcp://scheduler:8786"),
        ("dask://scheduler.example.com", "tcp://scheduler.example.com:8786"),
        ("dask://10.0.0.1:9000/", "tcp://10.0.0.1:9000"),
        ("tcp://10.0.0.1:8786", "tcp://10.0.0.1:8786"),
        ("tls://[fd00::1]", "tls://[fd00::1]:8786"),
        ("tls://[fd00::1]:9000", "tls://[fd00::1]:9000"),
        ("10.0.0.1:8786", "tcp://10.0.0.1:8786"),
    ],
)
def test_a_scheduler_is_an_address_with_dasks_port_unless_it_says_another(text: str, address: str) -> None:
    assert parse_engine(text) == Engine(address)


def test_with_certificates_a_scheduler_is_spoken_to_by_tls() -> None:
    assert parse_engine("dask://scheduler", **FILES).address == "tls://scheduler:8786"


def test_local_workers_are_a_number_of_processes() -> None:
    assert parse_engine("local:4") == Engine(local=4)
    assert parse_engine("local").local >= 1
    assert str(parse_engine("local:4")) == "local:4"


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("local:0", {}),
        ("local:-1", {}),
        ("local:many", {}),
        ("local:257", {}),
        ("local:99999999999999", {}),
        ("local:2", FILES),
        ("http://scheduler:8786", {}),
        ("dask://", {}),
        ("dask://user:secret@scheduler", {}),
        ("dask://scheduler:99999", {}),
        ("two words", {}),
        ("tls://scheduler", {"ca": Path("ca.pem")}),
    ],
)
def test_what_is_no_engine_is_refused(text: str, files: dict[str, Path]) -> None:
    with pytest.raises(UsageError) as refused:
        parse_engine(text, **files)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["local", "local:2"])
def test_a_worker_of_local_workers_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no scheduler"):
        parse_scheduler(text)
