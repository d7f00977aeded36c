"""TLS from files: which apply to a host, one context a choice, one sentence for a file that can't be used."""

from __future__ import annotations

import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from blobflow.errors import ConnectionLost, InvalidConfig, UntrustedPeer
from blobflow.settings import Settings, host_access, logins_of
from blobflow.transports.registry import ClientCertificate, HostAccess, HostSettings, Registries, TlsSettings
from blobflow.transports.registry.http.aiohttp_errors import translate_error
from blobflow.transports.registry.http.tls import ssl_context_of, tls_settings_in
from tests.e2e.servers.locked_registry import Authority, KeyFiles, openssl
from tests.fakes.registry import answers, scripted_server

HOST = "r.example:5000"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture(scope="module")
def client(authority: Authority) -> KeyFiles:
    return authority.issue("client")


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_folders_in_the_shape_of_certs_d_add_up(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    touch(mine / HOST / "ca.crt", mine / HOST / "readme.txt", mine / "r.example" / "other.crt")
    touch(
        theirs / HOST / "b.crt", theirs / HOST / "a.crt", theirs / HOST / "me.cert", theirs / HOST / "me.key"
    )
    found = tls_settings_in((mine, tmp_path / "absent", theirs), HOST)
    assert found.ca == (mine / HOST / "ca.crt", theirs / HOST / "a.crt", theirs / HOST / "b.crt")
    assert found.pairs == (ClientCertificate(theirs / HOST / "me.cert", theirs / HOST / "me.key"),)
    assert not tls_settings_in((mine,), "x.example")


@pytest.mark.parametrize(
    ("name", "words"),
    [("me.cert", r"me\.cert is a client .* without me\.key"), ("me.key", "without me.cert")],
)
def test_a_certificate_or_key_alone_is_told(tmp_path: Path, name: str, words: str) -> None:
    touch(tmp_path / HOST / name)
    with pytest.raises(InvalidConfig, match=words):
        tls_settings_in((tmp_path,), HOST)


def test_a_choice_has_one_context(authority: Authority, client: KeyFiles) -> None:
    chosen = TlsSettings(ca=(authority.pem,), pairs=(ClientCertificate(*client),))
    context = ssl_context_of(chosen)
    assert isinstance(context, ssl.SSLContext)
    assert ssl_context_of(TlsSettings(ca=(authority.pem,), pairs=(ClientCertificate(*client),))) is context
    assert ssl_context_of(TlsSettings(ca=(authority.pem,))) is not context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    # The system's trust stays.
    assert len(context.get_ca_certs()) == len(ssl.create_default_context().get_ca_certs()) + 1


def test_verification_off_is_a_choice_of_its_own(authority: Authority, client: KeyFiles) -> None:
    assert ssl_context_of(TlsSettings()) is True
    assert ssl_context_of(TlsSettings(verify=False, ca=(authority.pem,))) is False
    context = ssl_context_of(TlsSettings(verify=False, pairs=(ClientCertificate(*client),)))
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_NONE


def test_a_file_that_can_t_be_used_is_one_sentence(
    tmp_path: Path, authority: Authority, client: KeyFiles
) -> None:
    empty, absent = tmp_path / "empty.pem", tmp_path / "absent.pem"
    empty.touch()
    locked = tmp_path / "locked.key"
    openssl("pkey", "-in", client.key, "-aes256", "-passout", "pass:secret", "-out", locked)
    other = authority.issue("other").key
    table = (
        (TlsSettings(ca=(absent,)), "can't read the CA certificate .*absent.pem: No such file"),
        (TlsSettings(ca=(empty,)), "empty.pem has no CA certificate in PEM form"),
        (TlsSettings(ca=(client.key,)), "client.key has no CA certificate in PEM form"),
        (
            TlsSettings(pairs=(ClientCertificate(absent, client.key),)),
            "can't read the client certificate .*absent.pem",
        ),
        (TlsSettings(pairs=(ClientCertificate(client.cert, absent),)), "can't read the key .*absent.pem"),
        (
            TlsSettings(pairs=(ClientCertificate(client.cert, other),)),
            "other.key is not the key of .*client.pem",
        ),
        (
            TlsSettings(pairs=(ClientCertificate(client.cert, locked),)),
            "no client certificate and unencrypted key",
        ),
        (
            TlsSettings(pairs=(ClientCertificate(empty, client.key),)),
            "no client certificate and unencrypted key",
        ),
    )
    for trust, words in table:
        with pytest.raises(InvalidConfig, match=words):
            ssl_context_of(trust)


def test_a_peer_that_wants_a_client_certificate_is_told_apart_from_a_lost_connection() -> None:
    def ended(reason: str) -> Exception:
        error = aiohttp.ClientOSError(1, "alert")
        error.__cause__ = cause = ssl.SSLError(1, "alert")
        cause.reason = reason
        return error

    wanted = translate_error(ended("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "r.example", "a registry")
    assert isinstance(wanted, UntrustedPeer)
    assert wanted.message.endswith("give one with --cert and --key")
    for error in (ended("SSLV3_ALERT_BAD_RECORD_MAC"), aiohttp.ClientOSError(104, "reset")):
        assert isinstance(translate_error(error, "r.example", "a registry"), ConnectionLost)


@pytest.mark.parametrize("scheme", ["https", "http"])
async def test_where_tls_is_optional_it_is_tried_and_an_untrusted_certificate_is_no_reason_to_go_without(
    scheme: str, authority: Authority
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.issue("server", "IP:127.0.0.1"))
    handler = answers(web.Response)
    async with scripted_server(handler, tls=server if scheme == "https" else None) as registry:
        trusting = Registries(
            lambda host: HostAccess(tls=ssl_context_of(TlsSettings(ca=(authority.pem,))), tls_optional=True)
        )
        assert not await trusting.enter(registry.host)
        await trusting.close()
        assert registry.asked() == ["GET /v2/"] * 2  # a knock, and the question
        wary = Registries(lambda host: HostAccess(tls_optional=True))
        if scheme == "https":
            with pytest.raises(UntrustedPeer, match="certificate that is not trusted"):
                await wary.enter(registry.host)
            assert len(registry.seen) == 2
        else:
            assert not await wary.enter(registry.host)
        await wary.close()


def reached(host: str, settings: Settings) -> HostAccess:
    return host_access(host, settings, logins_of(settings))


@pytest.mark.parametrize(
    ("host", "settings", "scheme", "may_be_plain"),
    [
        ("r.example", Settings(), "https", False),
        ("r.example", Settings(plain_http=frozenset({"r.example"})), "http", False),
        ("r.example", Settings(tls_verify=False), "https", True),
        ("r.example", Settings(hosts={"r.example": HostSettings(http=True)}), "http", False),
        ("r.example", Settings(hosts={"r.example": HostSettings(verify=False)}), "https", True),
        ("r.example", Settings(hosts={"x.example": HostSettings(http=True)}), "https", False),
        ("127.0.0.1:5000", Settings(), "http", False),
        ("127.0.0.1:5000", Settings(https=frozenset({"127.0.0.1:5000"})), "https", False),
        ("127.0.0.1:5000", Settings(hosts={"127.0.0.1:5000": HostSettings(http=False)}), "https", False),
        ("127.0.0.1:5000", Settings(hosts={"127.0.0.1:5000": HostSettings(verify=False)}), "https", True),
        ("127.0.0.1:5000", Settings(tls_verify=False), "https", True),
    ],
)
def test_how_a_host_is_spoken_to(host: str, settings: Settings, scheme: str, may_be_plain: bool) -> None:
    access = reached(host, settings)
    assert (access.scheme, access.scheme == "https" and access.tls_optional) == (scheme, may_be_plain)


def test_a_loopback_host_speaks_tls_when_certificates_are_its_own_and_may_when_they_are_for_all(
    authority: Authority, tmp_path: Path
) -> None:
    host, ca = "127.0.0.1:5000", (authority.pem,)
    own = reached(host, Settings(hosts={host: HostSettings(trust=TlsSettings(ca=ca))}))
    assert (own.scheme, own.tls_optional) == ("https", False)
    everywhere = reached(host, Settings(ca=ca))
    assert (everywhere.scheme, everywhere.tls_optional) == ("https", True)
    (tmp_path / host).mkdir()
    (tmp_path / host / "ca.crt").write_bytes(authority.pem.read_bytes())
    folder = reached(host, Settings(certs=(tmp_path,)))
    assert (folder.scheme, folder.tls_optional) == ("https", False)
    assert reached("r.example", Settings(ca=ca)).tls_optional is False


def test_what_is_said_of_a_host_counts_before_what_is_said_of_all() -> None:
    own = HostSettings(connections=3, requests_per_second=2, bytes_per_second=5, mirrors=("m.example",))
    settings = Settings(concurrency=9, hosts={HOST: own})
    access = reached(HOST, settings)
    assert (access.connections, access.requests_per_second, access.bytes_per_second) == (3, 2, 5)
    assert access.mirrors == ("m.example",)
    assert reached("other.example", settings).connections == 9
