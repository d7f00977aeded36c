"""A registry's pull quota for manifests, from the headers of its responses. Pure.

Docker Hub counts GETs of manifests (HEADs are free, and tell the count) and says what is left:

    ratelimit-limit: 100;w=21600
    ratelimit-remaining: 76;w=21600
    docker-ratelimit-source: 192.0.2.1

The window `w`, in seconds, is what tells this allowance from the limits of requests that others (GitLab)
announce under the same names: those count everything, and are seconds long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from blobflow.content import Allowance
from blobflow.printable import one_line

# At most nine digits each: counts of manifests, and seconds.
_COUNT = re.compile(r" *(\d{1,9}) *; *w *= *(\d{1,9})(?:\D|\Z)", re.ASCII)
_SOURCE_CHARACTERS = 80


def allowance_of(headers: Mapping[str, str]) -> Allowance | None:
    """The allowance that an answer tells of; None if it tells of none, or not in this form."""
    if "ratelimit-limit" not in headers:
        return None
    limit = _COUNT.match(headers["ratelimit-limit"])
    left = _COUNT.match(headers.get("ratelimit-remaining", ""))
    if limit is None or left is None:
        return None
    source = one_line(headers.get("docker-ratelimit-source", ""), _SOURCE_CHARACTERS)
    return Allowance(int(limit[1]), int(left[1]), int(limit[2]), source)
