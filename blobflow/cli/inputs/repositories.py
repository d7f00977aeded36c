"""What verbs that look at a registry are asked about: a repository, or a whole registry. Pure."""

from __future__ import annotations

from blobflow.errors import InvalidReference, UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.local_reference import STREAM
from blobflow.oci.reference import check_host, check_more_than_host, split_name


def parse_repository(text: str) -> Reference:
    """`[HOST/]REPOSITORY`, without a tag. Raises InvalidReference; UsageError for what names one image, and
    for `-`."""
    if text == STREAM:
        raise UsageError(
            "'-' is standard input, and no registry or repository; the images of an archive are shown by "
            "`blobflow bundle ls -`"
        )
    found = parse_reference(text)
    if found.transport:
        return found  # told what to do instead where the registry would be asked
    _, _, tag, digest = split_name(text.removeprefix("docker://"))
    if tag or digest:
        raise UsageError(
            f"{text[:300]!r} is one image; leave its tag and digest out to list the repository's"
        )
    return Reference(found.host, found.repository)


def split_host(text: str) -> str:
    """The host, canonical, of what names a registry alone; "" for what names a repository or an image.

    By docker's rule for references: a word without a dot is a repository of docker.io. But `mirror:5000` is a
    host: a port is meant, where no image is. Raises InvalidReference for a host that is none.
    """
    body = text.removeprefix("docker://").rstrip("/")
    if "/" in body:
        return ""
    port = body.rpartition(":")[2]
    if ":" in body and port.isdecimal():
        return check_host(body)
    try:
        check_more_than_host(body)
    except InvalidReference:
        return check_host(body)
    return ""
