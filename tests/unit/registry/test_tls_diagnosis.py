"""What is wrong with the TLS of a host is said: until when a certificate holds, for whom, by whom; and who is
spoken to in plain HTTP and speaks TLS, or the other way round."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from blobflow.errors import BlobflowError, ConnectionLost, Rejected, UntrustedPeer
from blobflow.settings import Settings, host_access, logins_of
from blobflow.transports.registry import Registries
from blobflow.transports.registry.http.aiohttp_errors import translate_error
from blobflow.transports.registry.http.tls_diagnosis import PeerCertificate, names_text, read_certificate
from tests.e2e.servers.locked_registry import Authority, KeyFiles, openssl
from tests.fakes.registry import answers, scripted_server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@asynccontextmanager
async def tls_server(files: KeyFiles) -> AsyncIterator[str]:
    """A registry that shows a certificate; its `127.0.0.1:port`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    async with scripted_server(answers(web.Response), tls=context) as server:
        yield server.host


async def refusal(host: str, settings: Settings) -> str:
    """What is said of a host that can't be asked over TLS."""
    logins = logins_of(settings)
    registries = Registries(lambda name: host_access(name, settings, logins), sleep=at_once)
    try:
        with pytest.raises(BlobflowError) as raised:
            await registries.ping(host)
    finally:
        await registries.close()
    assert isinstance(raised.value, UntrustedPeer), raised.value
    assert raised.value.exit_code == 4
    return raised.value.message


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


def trusting(host: str, authority: Authority | None = None) -> Settings:
    return Settings(https=frozenset({host}), ca=(authority.pem,) if authority else ())


async def test_an_expired_certificate_is_told_with_its_date(authority: Authority) -> None:
    files = authority.issue_between("expired", "20240101000000Z", "20240215123000Z")
    async with tls_server(files) as host:
        said = await refusal(host, trusting(host, authority))
    assert said.startswith(
        f"{host} shows a certificate that is not trusted: it expired on 2024-02-15 12:30 UTC; have it renewed"
    )


async def test_a_certificate_of_the_future_points_to_the_clock(authority: Authority) -> None:
    files = authority.issue_between("early", "20980102030400Z", "20990101000000Z")
    async with tls_server(files) as host:
        said = await refusal(host, trusting(host, authority))
    assert "it is valid from 2098-01-02 03:04 UTC on; check this machine's clock" in said


@pytest.mark.parametrize("places", ["DNS:a.example,DNS:b.example", "IP:127.0.0.2"])
async def test_a_certificate_for_others_is_told_with_their_names(authority: Authority, places: str) -> None:
    files = authority.issue("other", places)
    async with tls_server(files) as host:
        said = await refusal(host, trusting(host, authority))
    names = places.replace("DNS:", "").replace("IP:", "").replace(",", ", ")
    assert f"it is for {names}, and not for 127.0.0.1; use such a name" in said


async def test_an_unknown_authority_is_named_and_how_it_is_trusted(authority: Authority) -> None:
    files = authority.issue("server", "IP:127.0.0.1")
    async with tls_server(files) as host:
        said = await refusal(host, trusting(host))
        assert "who signed it (a private authority) is not known here; to trust it name its CA with" in said
        assert "--ca FILE" in said
        read = await read_certificate(URL(f"https://{host}"))
        assert read is not None
        assert (read.names, read.issuer) == (("127.0.0.1",), "a private authority")


async def test_a_certificate_signed_by_itself_is_called_so(tmp_path: Path) -> None:
    files = KeyFiles(tmp_path / "own.pem", tmp_path / "own.key")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=own")
    openssl("req", "-x509", *new, "-keyout", files.key, "-out", files.cert)
    async with tls_server(files) as host:
        assert "it is signed by itself; to trust it" in await refusal(host, trusting(host))


def test_what_could_not_be_found_out_is_not_said() -> None:
    cause = ssl.SSLCertVerificationError(1, "x")
    cause.verify_code, cause.verify_message = 10, "certificate has expired"
    error = aiohttp.ClientConnectorCertificateError(
        aiohttp.client_reqrep.ConnectionKey("r.example", 443, True, True, None, None, None), cause
    )
    said = translate_error(error, "r.example", "a registry")
    assert "not trusted: certificate has expired; add its CA with --ca FILE" in str(said)
    assert "it expired on 1970" in str(
        translate_error(error, "r.example", "a registry", certificate=PeerCertificate(ends=1.0))
    )
    assert names_text(tuple("abcdefgh")) == "a, b, c, d, e and 3 more"


# plain HTTP to who speaks TLS


async def test_a_loopback_host_that_speaks_tls_is_told_with_the_option_for_it(authority: Authority) -> None:
    async with tls_server(authority.issue("loopback", "IP:127.0.0.1")) as host:
        said = await refusal(host, Settings())
        assert said.startswith(
            f"{host} speaks TLS, and was asked in plain HTTP: a loopback host is spoken to"
        )
        assert f"say --tls {host}, or write https://{host}" in said
        settings = trusting(host, authority)
        registries = Registries(lambda name: host_access(name, settings, logins_of(settings)))
        assert not await registries.ping(host)
        await registries.close()


ServerOf = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",  # a TLS alert
        b"",
    ],
    ids=["Go's", "any 400", "an alert", "hanging up"],
)
@pytest.mark.parametrize("encrypted", [True, False])
async def test_each_way_in_which_servers_refuse_plain_http_is_looked_into(
    authority: Authority, answer: bytes, encrypted: bool
) -> None:
    """One that speaks no TLS either is told as before."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("any", "IP:127.0.0.1"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1)
        if encrypted and first == b"\x16":  # a handshake: what follows is done by OpenSSL
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            peer = context.wrap_bio(incoming, outgoing, server_side=True)
            incoming.write(first)
            while True:
                try:
                    peer.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    if not (more := await reader.read(65536)):
                        break
                    incoming.write(more)
            writer.write(outgoing.read())
        elif first != b"\x16":
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        if encrypted:
            assert "speaks TLS, and was asked in plain HTTP" in await refusal(host, Settings())
            return
        registries = Registries(
            lambda name: host_access(name, Settings(), logins_of(Settings())), sleep=at_once
        )
        with pytest.raises(BlobflowError) as raised:
            await registries.ping(host)
        await registries.close()
        assert not isinstance(raised.value, UntrustedPeer)
        if not answer:
            assert isinstance(raised.value, ConnectionLost)
        if b"400" in answer:
            assert isinstance(raised.value, Rejected)
    finally:
        server.close()


async def test_a_host_that_has_answered_is_not_doubted() -> None:
    async with scripted_server(answers(web.Response, lambda: web.Response(status=400))) as server:
        registries = Registries(lambda name: host_access(name, Settings(), logins_of(Settings())))
        assert not await registries.ping(server.host)
        with pytest.raises(Rejected):
            await registries.ping(server.host)
        await registries.close()
        assert len(server.seen) == 2
