"""Mutated input for everything that reads what a peer, a user or a file says.

    python -m tools.fuzz --seconds 60 --seed 1
    python -m tools.fuzz --seconds 60 --seed 1 --parser reference

Each parser gets mutations of its own seeds. Whatever comes in, it may return or raise from blobflow's error
tree, with a sentence that is short and fit for a terminal; anything else is a finding, told with the input
that caused it, and the exit code is 1. The same seed gives the same inputs; seconds only cut them off.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
from yarl import URL

from blobflow.cli.inputs.go_templates import render_template
from blobflow.cli.output.units import one_line
from blobflow.errors import BlobflowError, InvalidConfig, InvalidFile
from blobflow.oci import digest_of, media, parse_digest, parse_manifest, parse_platform, parse_reference
from blobflow.oci.tag_selection.regex import compile_pattern
from blobflow.oci.tag_selection.rules import Dialect
from blobflow.oci.tag_selection.version_ranges import range_of
from blobflow.server.auth.htpasswd import parse_htpasswd, read_basic
from blobflow.server.errors import ApiError
from blobflow.server.http.ranges import RangeNotSatisfiable, parse_chunk_range, parse_range
from blobflow.server.routes import match_route
from blobflow.signatures.policy_file import SigstoreSigned, parse_policy
from blobflow.transports.registry.api.tags import read_page
from blobflow.transports.registry.auth.challenges import parse_challenges
from blobflow.transports.registry.auth.credential_helpers import ProcessResult
from blobflow.transports.registry.auth.credentials import find_credentials, read_docker_config
from blobflow.transports.registry.auth.tokens import read_token, scopes_with
from blobflow.transports.registry.http import headers
from blobflow.transports.registry.http.errors import error_of
from blobflow.transports.registry.http.link_header import next_link
from blobflow.transports.registry.mirrors import parse_mirror
from blobflow.transports.registry.origins import follow_location
from tools.mutations import mutations

# An error is one sentence. What it shows of its input is cut; escapes may make that six times as long.
LONGEST_SENTENCE = 4000
_HEX = "0123456789abcdef" * 4
_SHA256 = f"sha256:{_HEX}"
_HOME = URL("https://registry.example.com")


class Parser(msgspec.Struct, frozen=True):
    """`run` feeds it one input; `seeds` are inputs that mean something to it."""

    name: str
    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


class Finding(Exception):
    """A parser did what none may do."""

    def __init__(self, parser: str, given: bytes, what: str) -> None:
        super().__init__(f"{parser}: {what}\n  input: {given[:2000]!r}")


def _text(given: bytes) -> str:
    """As aiohttp decodes headers: bytes that are no UTF-8 become lone surrogates."""
    return given.decode("utf-8", "surrogateescape")


def _on_text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda given: parse(_text(given))


def _manifest(given: bytes) -> None:
    kind, _, raw = given.partition(b"\n")
    manifest = parse_manifest(raw, _text(kind))
    assert manifest.raw == raw
    assert manifest.descriptor.digest == digest_of(raw)
    assert all(parse_digest(child.digest) for child in (*manifest.blobs, *manifest.manifests))


def _reference(text: str) -> None:
    reference = parse_reference(text)
    assert parse_reference(str(reference)) == reference


def _platform(text: str) -> None:
    platform = parse_platform(text)
    assert platform.matches(platform)


def _range(text: str) -> None:
    for size in (0, 1, 1000, 2**53):
        try:
            span = parse_range(text, size)
        except RangeNotSatisfiable:  # the server's word for 416
            continue
        assert span is None or 0 <= span.start < span.end <= size


def _chunk(text: str) -> None:
    chunk = parse_chunk_range(text)
    assert chunk is None or 0 <= chunk.start < chunk.end
    told = headers.parse_content_range(text)
    assert told is None or told.first is None or told.last is None or told.first >= 0


def _wait(text: str) -> None:
    seconds = headers.parse_retry_after(text, 1_000_000_000.0)
    assert seconds is None or 0 <= seconds < 1e12


def _error(given: bytes) -> None:
    status, kind, body = (*given.split(b"\n", 2), b"", b"")[:3]
    number = 400 + sum(status) % 200
    headers = {"Content-Type": _text(kind), "Retry-After": _text(status)}
    raise error_of("registry.example.com", "PUT", "manifest app:1", number, headers, body)


def _challenges(text: str) -> None:
    for challenge in parse_challenges([text, text]):
        scopes_with(("repository:app:pull",), challenge.params.get("scope", ""))


def _login(given: bytes) -> None:
    config = read_docker_config(given, "config.json")

    async def nobody(program: str, verb: str, host: bytes) -> ProcessResult:
        return ProcessResult(1, b"")

    asking = find_credentials(config, "registry.example.com", run=nobody)
    try:
        while True:
            asking.send(None)
    except StopIteration:
        pass
    finally:
        asking.close()


def _policy(given: bytes) -> None:
    try:
        policy = parse_policy(given)
    except InvalidFile as error:
        raise InvalidConfig(max(error.errors, key=len)) from None
    for text in ("alpine", "oci:/srv/app", f"registry.example.com/app@{_SHA256}"):
        reference = parse_reference(text)
        for each in policy.requirements(reference.transport or "docker", reference).requirements:
            if isinstance(each, SigstoreSigned):
                each.signed_identity.matches(reference, "registry.example.com/app:1")
                assert each.signed_identity.wanted(reference)


_CHILD = f'{{"mediaType":"{media.OCI_MANIFEST}","digest":"{_SHA256}","size":7,"platform":{{"os":"linux"}}}}'
_IMAGE = (
    f'{{"schemaVersion":2,"mediaType":"{media.OCI_MANIFEST}","config":{{"mediaType":"a/b","digest":"{_SHA256}",'
    f'"size":2}},"layers":[{{"digest":"{_SHA256}","size":9,"urls":["http://x/"]}}],"annotations":{{"a":"\\u001b[2J"}}}}'
)


def _ranges(text: str) -> None:
    dialects: tuple[Dialect, ...] = ("masterminds", "regsync")
    for dialect in dialects:
        range_of(text, dialect)("1.2.3-rc.1")


PARSERS: tuple[Parser, ...] = (
    Parser(
        "manifest",
        _manifest,
        tuple(
            f"{kind}\n{document}".encode()
            for kind, document in (
                (media.OCI_INDEX, f'{{"schemaVersion":2,"manifests":[{_CHILD},{_CHILD}]}}'),
                ("", f'{{"mediaType":"{media.DOCKER_LIST}","manifests":[{_CHILD}],"subject":{_CHILD}}}'),
                (media.OCI_MANIFEST, _IMAGE),
                ("application/json; charset=utf-8", _IMAGE),
                ("", '{"schemaVersion":1,"fsLayers":[]}'),
            )
        ),
    ),
    Parser(
        "reference",
        _on_text(_reference),
        (
            b"alpine",
            b"docker://docker.io/library/alpine:3.19",
            f"[::1]:5000/a/b_c__d-e.f:1.0@{_SHA256}".encode(),
            b"localhost/a",
            b"oci:/tmp/x:name",
            b"oci-archive:-",
            f"docker-archive:a.tar:@1@{_SHA256}".encode(),
            b"dir:/x",
        ),
    ),
    Parser("digest", _on_text(parse_digest), (_SHA256.encode(), b"sha512:" + b"ab" * 64, b"md5:00")),
    Parser("platform", _on_text(_platform), (b"linux/arm64/v8", b"windows/amd64", b"linux/x86_64")),
    Parser(
        "expression",
        _on_text(lambda text: compile_pattern(text).is_in("v1.2")),
        (b"v[[:digit:]]+", rb"(?P<a>\Qx\E|\pN)*"),
    ),
    Parser("range", _on_text(_ranges), (b">=1.2.3 <2", b"^1.4", b"~0.2.3-rc.1")),
    Parser(
        "template",
        _on_text(lambda text: render_template(text, {"A": "b"})),
        (
            b'{{env "A" | upper}}:{{- default "x" `y` -}} z',
            b"{{/* x */}}",
            b'{{ index (split "a.b" ".") 1 }}',
        ),
    ),
    Parser(
        "WWW-Authenticate",
        _on_text(_challenges),
        (
            b'Bearer realm="https://auth.example.com/token?x=1",service="r",scope="repository:a/b:pull,push"',
            b'Basic realm="x", charset="UTF-8", Bearer realm=https://a/',
            b"Negotiate abc==, NTLM",
            b'Bearer realm="a\\"b\\\\", error="insufficient_scope"',
        ),
    ),
    Parser(
        "Link",
        _on_text(lambda text: next_link([text, text])),
        (b'</v2/a/tags/list?n=2&last=b>; rel="next"', b'<https://x/>; rel="prev"; title="a,b", <y>;rel=next'),
    ),
    Parser(
        "Location",
        _on_text(
            lambda text: follow_location(_HOME, _HOME.join(URL("/v2/a/blobs/uploads/")), text, "an upload")
        ),
        (
            b"/v2/a/blobs/uploads/1?_state=a%2Fb",
            b"https://user:pw@other.example.com/x#y",
            b"http://registry.example.com:80/x",
            b"//[::1]:5000/x",
        ),
    ),
    Parser("Range", _on_text(_range), (b"bytes=0-499", b"bytes=-5", b"bytes=7-", b"bytes=0-0,5-9")),
    Parser("Content-Range", _on_text(_chunk), (b"0-499", b"bytes 0-499/500", b"bytes */500", b"bytes 7-8/*")),
    Parser(
        "Retry-After",
        _on_text(_wait),
        (b"120", b"Wed, 21 Oct 2015 07:28:00 GMT", b"Wed, 21 Oct 2015 07:28:00 -0930", b"1.5"),
    ),
    Parser("Content-Length", _on_text(headers.parse_length), (b"0", b"123456789012345678")),
    Parser("Warning", _on_text(headers.parse_warning), (b'299 - "watch \\" out"', b'299 reg "x"')),
    Parser(
        "error body",
        _error,
        (
            b'2\napplication/json\n{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"no","detail":{"digest":"'
            + _SHA256.encode()
            + b'"}}]}',
            b"17\ntext/plain\n404 page \x1b[2J not found",
            b"4\ntext/html\n<html>",
        ),
    ),
    Parser(
        "token",
        lambda given: read_token(given, 0.0, "auth.example.com"),
        (
            b'{"token":"abc","expires_in":300}',
            b'{"access_token":"abc","expires_in":"60"}',
            b'{"token":"","expires_in":1e3}',
        ),
    ),
    Parser(
        "tags",
        lambda given: read_page(given, "registry.example.com", "tags of app"),
        (b'{"name":"a","tags":["1","2"]}', b'{"tags":null}'),
    ),
    Parser(
        "docker config",
        _login,
        (
            b'{"auths":{"registry.example.com":{"auth":"YW5uOnB3"}}}',
            b'{"auths":{"https://registry.example.com/v1/":{"username":"ann","password":"pw"}},"credsStore":"x"}',
            b'{"credHelpers":{"registry.example.com":"../x"}}',
            b'{"auths":{"registry.example.com":{"identitytoken":"t","auth":"%%%"}}}',
        ),
    ),
    Parser(
        "signature policy",
        _policy,
        (
            b'{"default":[{"type":"reject"}],"transports":{"oci":{"/srv":[{"type":"insecureAcceptAnything"}]}}}',
            b'{"default":[{"type":"sigstoreSigned","keyData":"a2V5","rekorPublicKeyPaths":["/r"],'
            b'"signedIdentity":{"type":"remapIdentity","prefix":"docker.io/library","signedPrefix":"v.example"}}]}',
            b'{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}],"transports":{"docker":{"":[]}}}',
        ),
    ),
    Parser("mirror", _on_text(parse_mirror), (b"mirror.example.com/prefix", b"[::1]:5000", b"http://x/y")),
    Parser(
        "htpasswd",
        _on_text(lambda text: parse_htpasswd(text, "htpasswd")),
        (b"# users\nann:$2y$05$" + b"." * 53 + b"\n", b"ann:{SHA}x"),
    ),
    Parser("Authorization", _on_text(read_basic), (b"Basic YW5uOnB3", b"basic =", b"Bearer x")),
    Parser(
        "path",
        _on_text(match_route),
        (
            b"/v2/a/b/manifests/1.0",
            f"/v2/a/blobs/{_SHA256}".encode(),
            b"/v2/a/blobs/uploads/0123",
            b"/v2/../../etc/passwd/tags/list",
            b"/v2/_catalog",
        ),
    ),
)


def feed(parser: Parser, given: bytes) -> str:
    """Feed one input; returns what became of it: `ok`, or the error's name. Raises Finding."""
    try:
        parser.run(given)
    except (BlobflowError, ApiError) as error:
        sentence = str(error)
        if len(sentence) > LONGEST_SENTENCE:
            raise Finding(parser.name, given, f"a sentence of {len(sentence)} characters") from error
        shown = one_line(sentence)
        if not shown.isprintable() or (not shown.isascii() and not shown.encode()):
            raise Finding(parser.name, given, f"a sentence that no terminal should see: {shown!r}") from error
        return type(error).__name__
    except Exception as error:
        raise Finding(parser.name, given, f"{type(error).__name__}: {error}") from error
    return "ok"


def fuzz(
    parsers: Sequence[Parser], seed: int, *, rounds: int | None = None, seconds: float | None = None
) -> dict[str, Counter[str]]:
    """Feed every parser in turn, `rounds` inputs each or until `seconds` are over; counts by outcome.

    Raises Finding at the first.
    """
    streams = [(p, mutations(p.seeds, random.Random(f"{seed} {p.name}"))) for p in parsers]
    outcomes: dict[str, Counter[str]] = {parser.name: Counter() for parser in parsers}
    until = None if seconds is None else time.monotonic() + seconds
    done = 0
    while (rounds is None or done < rounds) and (until is None or time.monotonic() < until):
        for parser, stream in streams:
            outcomes[parser.name][feed(parser, next(stream))] += 1
        done += 1
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = argparse.ArgumentParser(
        prog="python -m tools.fuzz", description=(__doc__ or "").splitlines()[0]
    )
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--parser", choices=[parser.name for parser in PARSERS], help="this one only")
    chosen = options.parse_args(arguments)
    parsers = [parser for parser in PARSERS if chosen.parser in (None, parser.name)]
    try:
        outcomes = fuzz(parsers, chosen.seed, seconds=chosen.seconds)
    except Finding as finding:
        print(finding, file=sys.stderr)
        return 1
    for name, counts in outcomes.items():
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        print(f"{name:17} {sum(counts.values()):8} inputs: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
