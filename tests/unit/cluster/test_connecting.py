"""Why nobody lets us in, as sentences."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any, Self

import pytest

from blobflow.cluster import connecting
from blobflow.cluster.address import Engine
from blobflow.cluster.connecting import connected, unconnected
from blobflow.errors import ConnectFailed, UntrustedPeer
from blobflow.settings import Settings
from tests.e2e.servers.locked_registry import Authority

PLACE = Engine("tls://scheduler:8786")


class _Unstarted:
    """A LocalCluster whose processes end before they are ready."""

    security = None

    def __init__(self, **named: Any) -> None:
        pass

    async def __aenter__(self) -> Self:
        raise RuntimeError("Nanny failed to start.")

    async def __aexit__(self, *error: object) -> None:
        raise AssertionError("it was not entered")


async def test_local_workers_that_do_not_start_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "LocalCluster", _Unstarted)
    with pytest.raises(ConnectFailed, match=r"of local:2 don't start: Nanny failed to start\.; .*__main__"):
        async with connected(Engine(local=2), Settings()):
            pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ssl.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED]"), "--engine-ca did not sign"),
        (ssl.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired"), "shows a .* has expired"),
        (ssl.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate is not yet valid"), "is not valid yet"),
        (ssl.SSLError("[SSL: TLSV1_ALERT_UNKNOWN_CA]"), "does not accept the certificate"),
        (ssl.SSLEOFError("EOF occurred in violation of protocol"), "certificate of --engine-cert, or"),
    ],
)
def test_what_tls_did_not_like_is_told(error: Exception, words: str) -> None:
    failure = unconnected(PLACE, error, 15)
    assert isinstance(failure, UntrustedPeer)
    assert re.search(words, failure.message)


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        ("2020", "2021", ", which has expired"),
        ("2090", "2091", ", which is not valid yet"),
        ("2020", "2090", ", or"),
    ],
)
def test_that_it_is_ones_own_certificate_whose_time_is_over_is_told(
    begins: str, ends: str, words: str, tmp_path: Path
) -> None:
    """The peer often has hung up by then, before it was heard."""
    authority = Authority(tmp_path / "ca")
    files = authority.issue_between("worker", f"{begins}0101000000Z", f"{ends}0101000000Z")
    engine = Engine(PLACE.address, ca=authority.pem, cert=files.cert, key=files.key)
    failure = unconnected(engine, ssl.SSLEOFError("EOF occurred in violation of protocol"), 0)
    assert isinstance(failure, UntrustedPeer)
    assert f"certificate of --engine-cert{words}" in failure.message


def test_only_who_was_waited_for_is_late() -> None:
    assert "in 15 s" in unconnected(PLACE, OSError("no answer"), 15).message
    assert " s" not in unconnected(PLACE, OSError("closed"), 0).message.partition(PLACE.address)[2]
