"""Where an upload continues: a Location as it is written, or as a registry behind a proxy meant it. Pure.

A registry makes absolute Locations of what it is told of its name: the Host header, X-Forwarded-Proto,
X-Forwarded-Host. A proxy that passes these on in part makes it name `http://` behind TLS, its host without
the port, or a name that only the proxy knows; one that maps paths makes it name its own path. The session is
at the origin, and below the path, where it was opened: there it is gone on with, where the Location has the
form of an upload session (`…/v2/NAME/blobs/uploads/ID`, distribution-spec [end-4a]).

That is no new trust: what goes to the registry's own origin is what would go there anyhow. Uploads that are
sent elsewhere on purpose have signed addresses, or another form, and go where they are sent, without
credentials.
"""

from __future__ import annotations

import re

import msgspec
from yarl import URL

from blobflow.errors import ProtocolViolation
from blobflow.lazy_pattern import LazyPattern
from blobflow.printable import one_line
from blobflow.transports.registry.origins import escaped, follow_location, name_of

_UPLOADS = "/blobs/uploads/"
_SESSION = LazyPattern(r"/v2/(?P<name>[^?#]+)/blobs/uploads/(?P<id>[^/?#]+)/?\Z")
# Signed addresses of object stores and CDNs: AWS, Google, Azure, CloudFront.
_SIGNED = LazyPattern(r"(?:^|&)(?:x-amz-|x-goog-|sig=|signature=|googleaccessid=|policy=)", re.IGNORECASE)


class UploadLocation(msgspec.Struct, frozen=True):
    """Where a session may be: the first URL is the likelier; never none.

    `advice`: what is odd about the Location, and what to do, for people; "" if nothing is.
    """

    urls: tuple[URL, ...]
    advice: str = ""


class LocationReader:
    """By which of its meanings a host's Locations are read: by the likelier, until that is found wrong."""

    def __init__(self) -> None:
        self.second_meaning = False
        self._ambiguous = False
        self._confirmed = False

    def choose(self, found: UploadLocation) -> URL:
        """Where a Location leads."""
        self._ambiguous = self._ambiguous or len(found.urls) > 1
        return found.urls[-1 if self.second_meaning else 0]

    def may_be_misread(self, *, second_meaning: bool = False) -> bool:
        """Whether a session that was not found may be where its Location leads by the other meaning.

        Not so if this session's was read by the second already, if one has led to a blob, or if none had two.
        Pushes run beside each other: what another has found out holds for this one too.
        """
        switched = self.second_meaning or (self._ambiguous and not self._confirmed)
        return switched and not second_meaning

    def switch(self) -> None:
        """A session was not found: read Locations of this host by their second meaning from now on."""
        self.second_meaning = self.second_meaning or (self._ambiguous and not self._confirmed)

    def confirm(self) -> None:
        """A session became a blob: Locations are read rightly."""
        self._confirmed = True


def resolve_location(home: URL, at: URL, location: str, description: str) -> UploadLocation:
    """Read a Location that was met at `at` while `description` was done at the registry whose origin is
    `home`.

    Raises ProtocolViolation where it leads nowhere that may be gone to.
    """
    own = _at_own_origin(at, location)
    try:
        url = follow_location(home, at, location, description)
    except ProtocolViolation as error:
        if own is None:
            raise _explained(error, at, location) from None
        return UploadLocation((own,), _odd(home, at, location))
    if own is None or own == url:
        odd = url.origin() not in (home, at.origin())
        return UploadLocation((url,), _odd(home, at, location) if odd else "")
    signed = _SIGNED.search(url.raw_query_string) is not None
    told_first = signed or url.origin() == at.origin()
    return UploadLocation((url, own) if told_first else (own, url), _odd(home, at, location))


def _at_own_origin(at: URL, location: str) -> URL | None:
    """The session that a Location names, as it is called where it was opened; None if it is no session
    there."""
    place, mark, query = location.partition("#")[0].partition("?")
    found = _SESSION.search(place)
    base, opened, _ = at.raw_path.partition(_UPLOADS)
    if found is None or not opened or found["id"] in (".", ".."):
        return None
    here = base.partition("/v2/")[2]
    if not (f"/{here}".endswith(f"/{found['name']}") or f"/{found['name']}".endswith(f"/{here}")):
        return None
    return escaped(URL(f"{at.origin()}{base}{_UPLOADS}{found['id']}{mark}{query}", encoded=True))


def _odd(home: URL, at: URL, location: str) -> str:
    """Where the registry sent us, and what its proxy fails to tell it."""
    try:
        url = at.join(URL(location.partition("?")[0], encoded=True))
        host, port, scheme = url.host, url.port, url.scheme
    except ValueError:
        return ""
    missing = []
    if host != at.host or (port != at.port and (scheme == at.scheme or port not in (80, 443))):
        missing.append("Host with its port (nginx: `proxy_set_header Host $http_host`) or X-Forwarded-Host")
    if scheme != at.scheme:
        missing.append("X-Forwarded-Proto")
    shown = one_line(str(url.with_user(None)), 200)
    if not missing:
        return f"{name_of(home)} sent the upload to {shown}, which is not below where it was opened"
    headers = " and ".join(missing)
    return (
        f"{name_of(home)} sent the upload to {shown}, which is not its own address;"
        f" a proxy before it has to pass on {headers}"
    )


def _explained(error: ProtocolViolation, at: URL, location: str) -> ProtocolViolation:
    """A Location from https down to http, of no form that we know, may be a proxy's doing all the same."""
    if at.scheme != "https" or not location.startswith("http://") or "@" in location:
        return error
    return ProtocolViolation(f"{error.message}; {_odd(at, at, location)}")
