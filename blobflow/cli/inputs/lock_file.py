"""Lock files: images with the digests that their tags had, one a line, as `blobflow images --lock` writes.

    lock: 1
    images:
    - {image: docker.io/library/nginx:1.29, digest: sha256:…, platforms: [linux/amd64], size: 18734, …}

It is YAML, for other programs too. The same images give the same bytes: no date is in it, and images are
sorted, so that a version control system shows what changed. `size` is in bytes; `places` are for people, and
`platforms` at the top, where there are any, are those that were chosen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

import msgspec
import yaml

from blobflow.cli.inputs.yaml_nodes import compose, line_of, node_at, to_struct
from blobflow.errors import InvalidConfig
from blobflow.file_errors import FileErrors
from blobflow.oci import Digest, Reference, parse_digest, parse_reference
from blobflow.printable import printable

_VERSION = 1
_HEAD = "# Which images these names meant when this was made: `blobflow images --lock`."
# Scalars that YAML takes for the text that they are, in a list in brackets, too.
_PLAIN = re.compile(r"(?=[^0-9.])[A-Za-z0-9][A-Za-z0-9._/@-]*(?::[A-Za-z0-9._/@-]+)*\Z")
_WORDS = re.compile(r"(?i)(?:y|n|yes|no|on|off|true|false|null)\Z")


class LockedImage(msgspec.Struct, frozen=True, order=True):
    """An image by its name in full, what that meant, and where it stood as FILE:LINE."""

    image: str
    digest: str
    platforms: tuple[str, ...] = ()
    size: int = 0
    places: tuple[str, ...] = ()

    @property
    def name(self) -> Reference:
        return parse_reference(self.image)

    @property
    def pinned(self) -> Reference:
        """The name with the digest beside its tag."""
        return msgspec.structs.replace(self.name, digest=self.digest)


class Lock(msgspec.Struct, frozen=True):
    """The images of a lock file. `platforms`: those that were chosen of each; () for all that it has."""

    lock: int
    images: tuple[LockedImage, ...]
    platforms: tuple[str, ...] = ()


def make_lock(images: Iterable[LockedImage], platforms: Iterable[str] = ()) -> Lock:
    """The lock of these images, sorted."""
    return Lock(_VERSION, tuple(sorted(images)), tuple(platforms))


def lock_lines(lock: Lock) -> list[str]:
    """The lines of the file, of which each image has one."""
    lines = [_HEAD, f"lock: {lock.lock}"]
    if lock.platforms:
        lines.append(f"platforms: {_flow(lock.platforms)}")
    lines.append("images:" if lock.images else "images: []")
    for each in lock.images:
        fields = {name: getattr(each, name) for name in LockedImage.__struct_fields__}
        lines.append("- {" + ", ".join(f"{name}: {_flow(value)}" for name, value in fields.items()) + "}")
    return lines


def _flow(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, int):
        return str(value)
    text = printable(str(value))
    if _PLAIN.match(text) and not _WORDS.match(text):
        return text
    return json.dumps(text, ensure_ascii=False)


def parse_lock(text: str, name: str) -> tuple[Lock, list[int]]:
    """Read a lock file, which errors call `name`, and the line of each image, from 1.

    Raises InvalidConfig or InvalidReference with file and line; for several errors InvalidFile.
    """
    node, errors = compose(text, name, "a lock file", "lock and images"), FileErrors()
    _refuse_aliases(node, name)
    found = to_struct(node, name, Lock, errors)
    if found is None:
        errors.check()
        raise AssertionError("what is without a value has an error")
    if found.lock != _VERSION:
        wrong = f"{name} is a lock file of version {found.lock}; this blobflow reads version {_VERSION}"
        errors.add(InvalidConfig(wrong), typo=True)
    lines = [line_of(node_at(node, "images", index)) for index in range(len(found.images))]
    for each, line in zip(found.images, lines, strict=True):
        with errors.at(f"{name} line {line}", line=line):
            _check(each)
    errors.check()
    return found, lines


def _refuse_aliases(root: yaml.Node, name: str) -> None:
    """Raise InvalidConfig for aliases, by which a small file may have more in it than any memory."""
    met: set[int] = set()
    todo = [root]
    while todo:
        node = todo.pop()
        if id(node) in met:
            raise InvalidConfig(f"{name} has an alias of line {line_of(node)}; a lock file has none")
        met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            todo += [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value


def _check(image: LockedImage) -> None:
    named, digest = image.name, parse_digest(image.digest)
    if named.transport:
        raise InvalidConfig(f"{image.image[:300]!r} is a file, and an image at a registry is needed")
    if named.digest and Digest(named.digest) != digest:
        raise InvalidConfig(f"{image.image} is locked to another digest than its own, {digest}")
