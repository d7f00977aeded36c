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

from blobflow.server.access import AccessRules, parse_access
from blobflow.server.accesslog import CommonLog, json_line
from blobflow.server.app import REGISTRY, make_app
from blobflow.server.exchange import Access
from blobflow.server.logins import Logins, parse_htpasswd
from blobflow.server.run import Certificate, Server, tls_context
from blobflow.server.through import PullThrough
from blobflow.server.upstreams import Upstream, Upstreams, parse_upstream
from blobflow.server.wire import PlainWire, Wire

__all__ = [
    "make_app",
    "Server",
    "Certificate",
    "tls_context",
    "Logins",
    "parse_htpasswd",
    "AccessRules",
    "parse_access",
    "PullThrough",
    "Upstream",
    "Upstreams",
    "parse_upstream",
    "Access",
    "CommonLog",
    "json_line",
    "Wire",
    "PlainWire",
    "REGISTRY",
]
