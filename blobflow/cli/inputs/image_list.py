"""Lists of images: one `repository:tag` or `repository@digest` a line. Pure, but for `read_image_list`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from blobflow.cli.inputs.requests import ImageRequest, RegistryPrefix, hub_path
from blobflow.cli.output.units import count_text
from blobflow.cli.runtime.files import input_name, read_text
from blobflow.deployment_files.lock_mark import is_lock
from blobflow.errors import UsageError
from blobflow.file_errors import FileErrors
from blobflow.oci.local_reference import transport_of
from blobflow.oci.reference import DOCKER_HUB, check_more_than_host, split_name


def read_image_list(path: Path, source: RegistryPrefix | None, *, any_host: bool) -> list[ImageRequest]:
    """The images of a list, or of stdin for `-`. Raises InvalidConfig; and as `parse_image_list`."""
    return parse_image_list(read_text(path), input_name(path), source, any_host=any_host)


def parse_image_list(
    text: str, name: str, source: RegistryPrefix | None, *, any_host: bool = False
) -> list[ImageRequest]:
    """Read a list: one `repository:tag` or `repository@digest` a line, `#` starts a comment.

    No tag and no digest is `latest`. A line that begins with a host is a whole name: at a registry it has to
    be that of an image of `source`; in a layout or archive it is looked for as it is. With `any_host` hosts
    are dropped, and `source` has an image of each path. Without `source` each line's own host is its source,
    docker.io where it has none. `name` is what the file is called in errors.

    Raises UsageError for a list without images, for a lock file, and for names that are not `source`'s;
    InvalidReference; and InvalidFile for several errors. All but the first two with file and line.
    """
    if source is None and any_host:
        raise UsageError("--any-host takes all images from --from; give that too")
    if is_lock(text):
        raise UsageError(f"{name} is a lock file, not a list; --images-from {name} takes its images")
    lines = enumerate(text.splitlines(), start=1)
    named = [(f"{name} line {number}", line.partition("#")[0].strip()) for number, line in lines]
    found = requests_of(((where, image) for where, image in named if image), source, any_host=any_host)
    if not found:
        raise UsageError(f"{name} names no image; write one repository:tag a line")
    return found


def requests_of(
    named: Iterable[tuple[str, str]], source: RegistryPrefix | None, *, any_host: bool = False
) -> list[ImageRequest]:
    """The images of these names, each with the place where it stands, in their order. Otherwise, and for what
    is raised, as `parse_image_list`."""
    found: list[ImageRequest] = []
    strays: list[str] = []
    errors = FileErrors()
    for number, (where, image) in enumerate(named, start=1):
        try:
            with errors.at(where, line=number):
                found.append(_parse_line(image, source, where, any_host=any_host))
        except _ForeignHost as stray:
            strays.append(f"{where}: {stray}")
    if strays:
        more = f" (and {count_text(len(strays) - 1, 'more line')})" if len(strays) > 1 else ""
        errors.add(UsageError(f"{strays[0]}{more}"))
    errors.check()
    return found


class _ForeignHost(Exception):
    """A whole name of another host than the source's; the message has no line yet."""


def _parse_line(image: str, source: RegistryPrefix | None, where: str, *, any_host: bool) -> ImageRequest:
    name = image.removeprefix("docker://")
    check_more_than_host(name, dotted=source in (None, RegistryPrefix(DOCKER_HUB)))
    host, path, tag, digest = split_name(name)
    source = source or RegistryPrefix(host or DOCKER_HUB)
    if host and not any_host:
        host, path = _at_source(host, path, source, image)
    else:
        host, path = "", hub_path(source, path)
    return ImageRequest(source, path, tag or ("" if digest else "latest"), digest, where, host=host)


def _at_source(host: str, path: str, source: RegistryPrefix, image: str) -> tuple[str, str]:
    """The host ("" if it is the source's), and the path under the source's prefix, of a whole name."""
    local = not source.host or bool(transport_of(source.host))
    if not local and host != source.host:
        raise _ForeignHost(
            f"{image[:300]} is of {host}, and --from is {source}; leave --from out to take each image from "
            f"the host in its name, or take what {source} has of that name with --any-host"
        )
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    whole = f"{host}/{path}" if local else path
    if not source.prefix:
        return (host, path) if local else ("", path)
    if not whole.startswith(f"{source.prefix}/"):
        raise _ForeignHost(
            f"{image[:300]} is not in {source}, as --from says; leave its host out for a name below that, or "
            "drop all hosts with --any-host"
        )
    return "", whole.removeprefix(f"{source.prefix}/")
