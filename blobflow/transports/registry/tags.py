"""A repository's tags, page by page: distribution-spec, "Content Discovery" ([end-8a], [end-8b]).

    GET /v2/<name>/tags/list?n=1000 → {"name": …, "tags": […]} and, if there is more, Link: <…>; rel="next"

The registry says where the next page is, and so could lead us round and round: pages, bytes and names are
bounded, and no page is asked for twice.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from yarl import URL

from blobflow.content import Site
from blobflow.errors import InvalidReference, ProtocolViolation
from blobflow.oci.reference import check_tag
from blobflow.transports.registry.links import next_link
from blobflow.transports.registry.origins import follow
from blobflow.transports.registry.session import Answer, Request, Session

# Names asked for in a page. ECR refuses more than 1000, and so does distribution 3 as it comes.
PAGE = 1000
# Bytes of one page: distribution 2.8 knows no pages and answers with all of them at once.
MAX_PAGE_BYTES = 32 * 1024 * 1024
# Registries with small pages (Quay: 50) need many of them; this many make up the most names that are taken.
MAX_PAGES = 5000
MAX_TAGS = 250_000


class _Page(msgspec.Struct):
    tags: list[str] | None = None


_decoder = msgspec.json.Decoder(_Page)


async def list_tags(session: Session, site: Site, scopes: tuple[str, ...]) -> list[str]:
    """See `Lists.tags`."""
    asked = f"tags of {site.repository}"
    path = f"/v2/{site.repository}/tags/list?n={PAGE}"
    found: dict[str, None] = {}
    url, seen = URL(path, encoded=True), set[str]()
    for _ in range(MAX_PAGES):
        request = Request("GET", url, asked, scopes=scopes, limit=MAX_PAGE_BYTES)
        answer = await session.ask(request)
        seen |= {str(url), str(answer.url)}
        page = read_page(answer.body, session.host, asked)
        before = len(found)
        found.update(dict.fromkeys(page))
        if len(found) > MAX_TAGS:
            raise ProtocolViolation(f"{session.host} lists more than {MAX_TAGS} {asked}; name those wanted")
        following = _following(session, answer, asked)
        if following is None and len(page) >= PAGE and len(found) > before:
            # A full page and no word of another: some registries want to be asked without saying so.
            following = URL(f"{path}&last={quote(page[-1], safe='')}", encoded=True)
        if following is None:
            return [tag for tag in found if _is_tag(tag)]
        if str(following) in seen:
            raise ProtocolViolation(f"{session.host} lists {asked} in a circle: a page leads back to itself")
        url = following
    raise ProtocolViolation(f"{session.host} lists {asked} in more than {MAX_PAGES} pages")


def read_page(body: bytes, host: str, asked: str) -> list[str]:
    """The names of one page; `null` is none. Raises ProtocolViolation."""
    if len(body) > MAX_PAGE_BYTES:
        raise ProtocolViolation(f"{host} answered {asked} with a page of more than {MAX_PAGE_BYTES} bytes")
    try:
        return _decoder.decode(body).tags or []
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise ProtocolViolation(f"{host} answered {asked} with something that is no list of tags") from None


def _following(session: Session, answer: Answer, asked: str) -> URL | None:
    link = next_link(answer.headers.getall("Link", []))
    return None if link is None else follow(session.home, answer.url, link, asked)


def _is_tag(name: str) -> bool:
    try:
        check_tag(name)
    except InvalidReference:
        return False
    return True
