"""The table of the registry's endpoints, and the one place where an answer is made of what a room did.

The registry speaks distribution-spec 1.1 and is strict: what the spec lets it refuse, it refuses, so that a
client that works here works elsewhere. No request's body is ever held in memory, except a manifest's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType

from aiohttp import ClientPayloadError, web

from blobflow.errors import StorageError, StorageFull
from blobflow.events import Warned
from blobflow.server.access import AccessRules, Action, Rights, grant, request_key
from blobflow.server.exchange import Access, Exchange, sent
from blobflow.server.listing import list_repositories, list_tags
from blobflow.server.logins import Logins, is_nobody
from blobflow.server.looking import health, metrics, page
from blobflow.server.manifests import delete_blob, delete_manifest, put_manifest
from blobflow.server.places import HEALTH, Place, locate
from blobflow.server.publicurl import Addressing
from blobflow.server.pull import read_blob, read_manifest, root
from blobflow.server.push import append, cancel_upload, complete, start_upload, upload_status
from blobflow.server.referrers import list_referrers
from blobflow.server.refusal import Refusal
from blobflow.server.sessions import UPLOAD_TTL
from blobflow.server.state import Registry, Rules, Sparse
from blobflow.server.through import PullThrough
from blobflow.server.wire import PlainWire, Wire
from blobflow.transports.store import Store

Endpoint = Callable[[Registry, web.BaseRequest, Place], Awaitable[web.StreamResponse]]


async def bring_and_list_referrers(
    registry: Registry, request: web.BaseRequest, place: Place
) -> web.StreamResponse:
    """[end-12a], [end-12b]: what refers to a digest here, and at the upstream of what is pulled through."""
    if registry.through is not None and place.origin is not None:
        await registry.through.bring_referrers(place)
    return await list_referrers(registry, request, place)


ENDPOINTS: Mapping[str, Mapping[str, Endpoint]] = MappingProxyType(
    {
        "root": {"GET": root, "HEAD": root},
        "catalog": {"GET": list_repositories},
        "tags": {"GET": list_tags},
        "blob": {"GET": read_blob, "HEAD": read_blob, "DELETE": delete_blob},
        "manifest": {
            "GET": read_manifest,
            "HEAD": read_manifest,
            "PUT": put_manifest,
            "DELETE": delete_manifest,
        },
        "referrers": {"GET": bring_and_list_referrers},
        "uploads": {"POST": start_upload},
        "page": {"GET": page, "HEAD": page},
        "metrics": {"GET": metrics},
        "health": {"GET": health, "HEAD": health},
        "upload": {"GET": upload_status, "PATCH": append, "PUT": complete, "DELETE": cancel_upload},
    }
)

# What changes nothing, and so is all that a read-only registry does.
READS = ("GET", "HEAD")
# What can be done to a repository that is pulled through: all but to push.
_PUSHES = ("PUT", "POST", "PATCH")

# What has to be allowed, in the repository, for each endpoint of one.
NEEDS: Mapping[str, Mapping[str, Action]] = MappingProxyType(
    {
        "tags": {"GET": "pull"},
        "blob": {"GET": "pull", "HEAD": "pull", "DELETE": "delete"},
        "manifest": {"GET": "pull", "HEAD": "pull", "PUT": "push", "DELETE": "delete"},
        "referrers": {"GET": "pull"},
        "uploads": {"POST": "push"},
        "upload": {"GET": "push", "PATCH": "push", "PUT": "push", "DELETE": "push"},
    }
)

REGISTRY = web.AppKey("registry", Registry)
# The registry in whose place a request was answered, as the client named it.
_NAMESPACE = request_key("blobflow_namespace", str)


def make_app(
    store: Store,
    *,
    sparse: Sparse = "indexes",
    read_only: bool = False,
    max_blob_size: int | None = None,
    upload_ttl: float = UPLOAD_TTL,
    unreleased: bool = True,
    logins: Logins | None = None,
    access: AccessRules | None = None,
    through: PullThrough | None = None,
    addressing: Addressing | None = None,
    wire: Wire | None = None,
    observe: Callable[[Access], None] | None = None,
) -> web.Application:
    """The registry over `store` as an application; the store stays its caller's, to close after it, and the
    store's observer is told of requests that failed because the store did.

    `sparse`: see `Rules`. `read_only`: what
    would change something is answered with 405. `max_blob_size` in bytes: longer uploads are answered with
    413. `upload_ttl`: seconds that an unfinished upload is kept without a byte. `unreleased`: see `Rules`.
    `logins`: who may come in
    (None: anybody), and `through` what is pulled through; both are closed with the application. `access`:
    what each may do (None: everything). `observe` is called once a request, on the loop's thread, and must
    return at once. `addressing`: the URLs of answers (None: as `publicurl` has it where nobody says).
    `wire` moves the bodies.
    """
    rules = Rules(
        sparse=sparse,
        read_only=read_only,
        max_blob_size=max_blob_size,
        upload_ttl=upload_ttl,
        unreleased=unreleased,
    )
    registry = Registry(
        store, rules=rules, wire=wire or PlainWire(), addressing=addressing, logins=logins, through=through
    )
    granted = access or AccessRules()

    async def answer(request: web.Request) -> web.StreamResponse:
        exchange = Exchange(request, registry.addressing.client(request))
        response = await _answer(registry, granted, exchange)
        counts = registry.counts
        counts.answered(request.method, exchange.room, response.status)
        counts.received += request.content_length or 0
        counts.sent += sent(request, response)
        if observe is not None:
            observe(exchange.access(response))
        return response

    app = web.Application()
    app[REGISTRY] = registry
    app.router.add_route("*", r"/{path:[\s\S]*}", answer)
    app.on_response_prepare.append(_sign)
    app.on_shutdown.append(_gathering_ends)
    app.cleanup_ctx.append(_sessions_end)
    return app


async def _gathering_ends(app: web.Application) -> None:
    """Before requests under way get their time to end: who waits for a page need not."""
    app[REGISTRY].overview.stop()


async def _sessions_end(app: web.Application) -> AsyncIterator[None]:
    registry = app[REGISTRY]
    registry.store.serve()
    tending = asyncio.create_task(registry.sessions.tend()) if not registry.store.read_only else None
    yield
    if tending is not None:
        tending.cancel()
        await asyncio.wait((tending,))
    await registry.overview.close()
    registry.sessions.close()
    await registry.subjects.close()
    if registry.through is not None:
        await registry.through.close()
    if registry.logins is not None:
        registry.logins.close()


async def _answer(registry: Registry, access: AccessRules, exchange: Exchange) -> web.StreamResponse:
    """Find the endpoint and let it answer; turn whatever it raises into the spec's error body."""
    request = exchange.request
    try:
        try:
            return await _dispatch(registry, access, exchange)
        except Refusal as refusal:
            if refusal.status == 404:  # nobody is told that it is not here because the disk is not here
                registry.store.check_there()
            return _refused(refusal)
    except StorageError as error:
        return _refused(_store_failed(registry, request, error))
    except (ConnectionError, TimeoutError, ClientPayloadError, web.RequestPayloadError):
        # The client is gone in the middle of a body, or takes no more of it (ETIMEDOUT), or its bytes make no
        # sense: nothing can be said to it, least of all where a part of an answer is on its way already.
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=400)


def _store_failed(registry: Registry, request: web.Request, error: StorageError) -> Refusal:
    """What a client is told when the store fails: 507 (RFC 4918, section 11.5) where it is full, else 500.

    Where the store lies is nobody's business but the operator's, who is told the whole; that the disk is
    full, once a minute at most, since it is the same for every push.
    """
    if not isinstance(error, StorageFull) or registry.full_is_news():
        registry.store.observer(Warned(f"{request.method} {request.path} failed: {error}"))
    if isinstance(error, StorageFull):
        return Refusal("UNKNOWN", "the registry's storage is full", status=507)
    return Refusal("UNKNOWN", "the registry's storage failed")


async def _sign(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Older docker clients take a host without the first header for no v2 registry; the second says that
    `?ns=` was heeded ("Registry Proxying")."""
    response.headers["Docker-Distribution-Api-Version"] = "registry/2.0"
    if _NAMESPACE in request:
        response.headers["OCI-Namespace"] = request[_NAMESPACE]


async def _dispatch(registry: Registry, access: AccessRules, exchange: Exchange) -> web.StreamResponse:
    """Who asks, for what, whether that is allowed; only then what there is."""
    request = exchange.request
    rights = await _let_in(registry, access, exchange)
    if registry.rules.read_only and request.method not in READS:
        raise Refusal("UNSUPPORTED", "this registry is read-only", headers={"Allow": ", ".join(READS)})
    place = locate(registry.addressing.path(request.path))
    if place is None:
        raise Refusal("UNSUPPORTED", "this registry has no such endpoint", status=404)
    exchange.room = place.room
    if registry.through is not None:
        named = request.query.get("ns", "")
        place = registry.through.upstreams.place(place, named)
        if named and place.origin is not None:
            request[_NAMESPACE] = named
    methods = ENDPOINTS[place.room]
    endpoint = methods.get(request.method)
    if endpoint is None:
        raise Refusal(
            "UNSUPPORTED", f"{request.method} can't be done here", headers={"Allow": ", ".join(methods)}
        )
    if not _is_allowed(access, rights, request.method, place):
        raise rights.denial()
    if place.origin is not None and request.method in _PUSHES:
        raise Refusal(
            "UNSUPPORTED", f"{place.repository} is pulled through from {place.origin}; push it there"
        )
    return await endpoint(registry, request, place)


async def _let_in(registry: Registry, access: AccessRules, exchange: Exchange) -> Rights:
    """What the sender of the request may do. Raises Refusal, for a login that is wrong, and for none where
    those without one may do nothing."""
    request, logins = exchange.request, registry.logins
    authorization = request.headers.get("Authorization")
    if logins is not None and not is_nobody(authorization) and request.path != HEALTH:
        exchange.user = await logins.check(authorization, exchange.client, _connection(exchange))
    rights = access.rights(exchange.user, with_logins=logins is not None)
    if not exchange.user and not rights.may_somewhere() and request.path != HEALTH:
        raise rights.denial()
    grant(request, exchange.user, rights)
    return rights


def _connection(exchange: Exchange) -> object:
    """What lives as long as the request's connection and can be referred to weakly: its transport; under TLS
    the state of that, since transports of uvloop's can't be. None for a proxy's, which it uses for many."""
    transport = exchange.request.transport
    if exchange.client != (exchange.request.remote or ""):
        return None
    return transport and (transport.get_extra_info("ssl_object") or transport)


def _is_allowed(access: AccessRules, rights: Rights, method: str, place: Place) -> bool:
    """Whether an endpoint may be asked at all; it never depends on what is in the registry."""
    if place.room in NEEDS:
        return rights.may(NEEDS[place.room][method], place.repository)
    if not rights.asks or place.room == "health":
        return True
    match place.room:  # those without a login, where there are some
        case "catalog" | "page":
            return rights.may_somewhere("pull")
        case "root":
            return not access.asks_for_login
        case _:  # metrics
            return False


def _refused(refusal: Refusal) -> web.Response:
    return web.Response(
        status=refusal.status,
        headers=refusal.headers,
        body=refusal.body,
        content_type="application/json",
    )
