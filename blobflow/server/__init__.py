"""The embedded registry: OCI distribution-spec 1.1 over a store.

`make_app(store)` is the registry, `Server(app)` puts it on a socket:

    store = Store.open(path)
    async with Server(make_app(store)) as server:
        print(server.url)

Rooms, in the order of a request: `places` (where it goes), `app` (the table of endpoints), `pull`, `push`,
`manifests`, `listing` (what is done), `wire` (how bodies cross), `refusal` (how no is said). What is held
between requests is in `state`.

What a crash leaves: every blob and manifest whose push was answered with 201, and of an unfinished upload
nothing but a partial, which the store sweeps.
"""

from blobflow.server.app import REGISTRY, Access, make_app
from blobflow.server.run import Server
from blobflow.server.wire import PlainWire, Wire

__all__ = ["make_app", "Server", "Access", "Wire", "PlainWire", "REGISTRY"]
