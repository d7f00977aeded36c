"""A token server, by distribution's documents ("Docker Registry v2 authentication via central service").

GET  /token?service=&scope=…&scope=…   with Basic, or without for anybody
POST /token                            the OAuth2 form with a refresh token

Tokens are JWTs (RS256, the certificate in x5c), signed by openssl. Everybody may pull from `public/…`; who
logs in may do anything. What was asked for is journaled.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.e2e.servers.locked_registry import KeyFiles

SERVICE = "registry.test"
ISSUER = "tokens.test"


class Grant(NamedTuple):
    """One token that was given out: to whom ("" for anybody), how it was asked for, and for what."""

    user: str
    method: str
    scopes: tuple[str, ...]


class TokenServer:
    """`password` lets `user` in by GET, `refresh` by POST. `granted` and `refused` are what it did."""

    def __init__(self, keys: KeyFiles, user: str, password: str, refresh: str, lifetime: int) -> None:
        self.granted: list[Grant] = []
        self.refused = 0
        self.realm = ""
        self._keys = keys
        self._user = user
        self._basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._refresh = refresh
        self._lifetime = lifetime

    def registry_auth(self) -> dict[str, Any]:
        """docker-registry's `auth` section that sends clients here."""
        bundle = str(self._keys.cert)
        return {
            "token": {"realm": self.realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": bundle}
        }

    def by_get(self, query: str, authorization: str) -> dict[str, Any] | None:
        if authorization not in ("", self._basic):
            return None
        asked = parse_qs(query).get("scope", [])
        return self._give(self._user if authorization else "", "GET", asked)

    def by_post(self, form: str) -> dict[str, Any] | None:
        fields = {key: values[0] for key, values in parse_qs(form).items()}
        wanted = {"grant_type": "refresh_token", "refresh_token": self._refresh, "service": SERVICE}
        if not wanted.items() <= fields.items():
            return None
        return self._give(self._user, "POST", fields.get("scope", "").split())

    def _give(self, user: str, method: str, scopes: list[str]) -> dict[str, Any]:
        self.granted.append(Grant(user, method, tuple(scopes)))
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 10,
            "exp": now + self._lifetime,
            "jti": secrets.token_hex(8),
            "access": [access for scope in scopes if (access := _access(scope, user))["actions"]],
        }
        return {"token": self._signed(claims), "expires_in": self._lifetime}

    def _signed(self, claims: dict[str, Any]) -> str:
        pem = self._keys.cert.read_text().splitlines()
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(pem[1:-1])]}
        text = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        command = ["openssl", "dgst", "-sha256", "-sign", str(self._keys.key)]
        signature = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
        return f"{text}.{_b64(signature)}"


def _access(scope: str, user: str) -> dict[str, Any]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    may = actions.split(",") if user else ["pull"] if name.startswith("public/") else []
    return {"type": kind, "name": name, "actions": [action for action in actions.split(",") if action in may]}


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@contextmanager
def token_server(
    keys: KeyFiles, tls: KeyFiles, *, user: str, password: str, refresh: str, lifetime: int = 300
) -> Iterator[TokenServer]:
    """A token server over TLS on a free port of 127.0.0.1."""
    tokens = TokenServer(keys, user, password, refresh, lifetime)

    class Exchange(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(tokens.by_get(urlsplit(self.path).query, self.headers.get("Authorization", "")))

        def do_POST(self) -> None:
            self._answer(tokens.by_post(self.rfile.read(int(self.headers["Content-Length"])).decode()))

        def _answer(self, answer: dict[str, Any] | None) -> None:
            tokens.refused += answer is None
            body = json.dumps(answer or {"details": "incorrect username or password"}).encode()
            self.send_response(200 if answer else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Exchange)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.cert, tls.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    tokens.realm = f"https://127.0.0.1:{server.server_address[1]}/token"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield tokens
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
