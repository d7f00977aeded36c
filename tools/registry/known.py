"""Registries as they are known to be, each a value: the strict one, and the faults that make it another.

What is here has been read in documentation and issues, or tried (distribution 2.8.2); the evidence stands
beside it. Sizes are in MiB, and a MiB may be of 1024 bytes, so that small blobs show what large ones do.
"""

from __future__ import annotations

import msgspec

from blobflow.server.registry import SparsePolicy
from tools.registry.faulty import (
    DropHeader,
    Fault,
    ForgetBroken,
    MountAnywhere,
    MountReferenced,
    MovingLocation,
    PlainErrors,
    Refuse,
    RefuseMount,
    SetHeader,
    Status,
)

UPLOADS = "/blobs/uploads/"
# A mount that does not say from where.
NO_FROM = r"\?mount=[^&]*$"
BY_TAG = "/manifests/[^:]+$"
_NO_REFERRERS = Fault("GET", "/referrers/", times=0, act=Status(404, body="404 page not found\n"))
_REFERRERS = Fault(
    "GET",
    "/referrers/",
    times=0,
    act=Status(
        200,
        headers={"Content-Type": "application/vnd.oci.image.index.v1+json"},
        body='{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
    ),
)


class KnownRegistry(msgspec.Struct, frozen=True):
    """A registry: `sparse`: what it makes of an index whose manifests are not all there."""

    faults: tuple[Fault, ...]
    sparse: SparsePolicy = "indexes"


def known_registries(mib: int = 1024 * 1024) -> dict[str, KnownRegistry]:
    """The registries by name, with MiBs of so many bytes."""
    return {**_self_hosted(), **_hosted(mib)}


def _self_hosted() -> dict[str, KnownRegistry]:
    """What people run themselves."""
    return {
        # Tried. After a break inside a request GET, PATCH and DELETE answer 404 at every Location; each
        # answer has a new `_state`. DELETE by tag is answered by 400.
        "distribution": KnownRegistry(
            (
                Fault("*", UPLOADS, times=0, act=ForgetBroken()),
                Fault("*", UPLOADS, times=0, act=MovingLocation()),
                Fault("DELETE", BY_TAG, times=0, act=Status(400)),
                _NO_REFERRERS,
            ),
            sparse="refuse",
        ),
        # POST and PUT with the body: 404; a manifest that is missing: 403.
        "artifactory": KnownRegistry(
            (
                Fault("PUT", UPLOADS, times=0, act=Refuse(404, over=0)),
                Fault("*", "/manifests/", times=0, act=PlainErrors(403)),
            )
        ),
        # harbor#17097: a `from` in a project that it does not know is answered by 401, not by 202.
        "harbor": KnownRegistry(
            (Fault("POST", "from=", times=0, act=RefuseMount(401, absent=True)), _REFERRERS), sparse="refuse"
        ),
        "nexus": KnownRegistry((Fault("*", UPLOADS, times=0, act=DropHeader("Range")),), sparse="refuse"),
        "gitea": KnownRegistry((), sparse="refuse"),
    }


def _hosted(mib: int) -> dict[str, KnownRegistry]:
    """What is somebody's service."""
    return {
        # containers-roadmap#2831: the Range of a status is stuck; #2860: only what a manifest refers to is
        # mounted. n > 1000 is refused for lists of tags.
        "ecr": KnownRegistry(
            (
                Fault("GET", UPLOADS, times=0, act=SetHeader("Range", f"0-{5 * mib - 1}")),
                Fault("POST", "mount=", times=0, act=MountReferenced()),
                Fault("GET", r"/tags/list\?(.*&)?n=(?!1000(&|$))\d{4,}", times=0, act=Status(405)),
                Fault("GET", "/referrers/", times=0, act=Status(405)),
            )
        ),
        # No ranged chunks; a request of 9.9 GB at most.
        "gar": KnownRegistry(
            (
                Fault("PATCH", UPLOADS, times=0, act=Refuse(400, ranged=True)),
                Fault("*", UPLOADS, times=0, act=Refuse(413, over=9900 * mib)),
                Fault("POST", NO_FROM, times=0, act=MountAnywhere()),
                _REFERRERS,
            )
        ),
        # Ranged chunks over 4 MiB are answered by 416.
        "ghcr": KnownRegistry(
            (Fault("PATCH", UPLOADS, times=0, act=Refuse(416, over=4 * mib, ranged=True)), _NO_REFERRERS)
        ),
        # PUT with a body of more than 20 MB or so: 413.
        "acr": KnownRegistry((Fault("PUT", UPLOADS, times=0, act=Refuse(413, over=20 * mib)), _REFERRERS)),
        # A large PUT: 400 (one report); a wrong `from`: 401.
        "hub": KnownRegistry(
            (
                Fault("PUT", UPLOADS, times=0, act=Refuse(400, over=20 * mib)),
                Fault("POST", "from=", times=0, act=RefuseMount(401, absent=True)),
                _NO_REFERRERS,
            )
        ),
        # Ranged chunks are reported broken; a mount without `from`: 400.
        "quay": KnownRegistry(
            (
                Fault("PATCH", UPLOADS, times=0, act=Refuse(400, ranged=True)),
                Fault("POST", NO_FROM, times=0, act=Status(400)),
            )
        ),
        # Requests of 100 MB at most, which it says of chunks.
        "cloudflare": KnownRegistry(
            (
                Fault("POST", UPLOADS, times=0, act=SetHeader("OCI-Chunk-Min-Length", str(5 * mib))),
                Fault("POST", UPLOADS, times=0, act=SetHeader("OCI-Chunk-Max-Length", str(100 * mib))),
                Fault("*", UPLOADS, times=0, act=Refuse(413, over=100 * mib)),
            )
        ),
    }
