"""The embedded registry: OCI distribution-spec 1.1 over a store.

`make_app(store)` is the registry, `Server(app)` puts it on a socket:

    store = Store.open(path)
    async with Server(make_app(store)) as server:
        print(server.url)

Rooms, in the order of a request: `run` (where it comes in), `logins` (who asks), `places` (where it goes),
`access` (who may do what), `app` (the table of endpoints), `pull`, `push`, `manifests`, `listing`,
`referrers` (what is done), `publicurl` (the URLs in answers), `wire` (how bodies cross), `refusal` (how no is
said). What is held between requests is in `state`; what is fetched from other registries in `through`; what
those see who look after it in `looking`; which files are read again while it serves in `rereading`.

What a crash leaves: every blob and manifest whose push was answered with 201, and of an unfinished upload
nothing but a partial, which the store sweeps.
"""

from blobflow.server.admin.access_log import AccessRecord, CommonLogFormat, json_line
from blobflow.server.application import REGISTRY_KEY, make_app
from blobflow.server.auth.access_rules import AccessRules, parse_access
from blobflow.server.auth.logins import Logins, parse_htpasswd
from blobflow.server.http.bodies import BodyTransport, SocketBodyTransport
from blobflow.server.http.listener import Certificate, Server, tls_context
from blobflow.server.pullthrough.cache import PullThroughCache
from blobflow.server.pullthrough.upstreams import Upstream, Upstreams, parse_upstream

__all__ = [
    "make_app",
    "Server",
    "Certificate",
    "tls_context",
    "Logins",
    "parse_htpasswd",
    "AccessRules",
    "parse_access",
    "PullThroughCache",
    "Upstream",
    "Upstreams",
    "parse_upstream",
    "AccessRecord",
    "CommonLogFormat",
    "json_line",
    "BodyTransport",
    "SocketBodyTransport",
    "REGISTRY_KEY",
]
