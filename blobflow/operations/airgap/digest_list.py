"""The list of a bundle's files and their digests, as `sha256sum` writes and checks it, to be signed and sent
by another way than the bundle.

A line is 64 hexadecimal digits, two spaces (or a space and an asterisk) and a file's name; a name with a
backslash or a line's end in it is escaped, and the line begins with a backslash. BSD's form, `SHA256 (NAME) =
DIGITS`, is read as well. Files are told apart by the last part of their names, so that the list may lie
elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from blobflow.client import Client
from blobflow.errors import DigestMismatch, InvalidConfig, NoSuchFile, UsageError
from blobflow.events import PhaseStarted
from blobflow.lazy_pattern import LazyPattern
from blobflow.printable import printable
from blobflow.transports.archive.parts import part_number, whole_of
from blobflow.transports.files import BLOCK, in_thread, translate_os_errors

SUFFIX = ".sha256"

_GNU = LazyPattern(r"(\\?)([0-9A-Fa-f]{64}) [ *](.+)")
_BSD = LazyPattern(r"(\\?)SHA256 \((.+)\) = ([0-9A-Fa-f]{64})")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_MEANT = {"\\": "\\", "n": "\n", "r": "\r"}


def digest_lines(digests: Mapping[str, str]) -> str:
    """The list of these files' digests, in hexadecimal, in their order."""
    return "".join(f"{_line(name, digest)}\n" for name, digest in digests.items())


def _line(name: str, digest: str) -> str:
    escaped = "".join(_ESCAPES.get(each, each) for each in name)
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}"


def parse_digest_list(text: str, label: str) -> dict[str, str]:
    """The digests of files, by the last parts of their names. Empty lines and those with `#` are passed over.

    Raises InvalidConfig for what is no such list, with the line; UsageError for two of one name.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line or line.startswith("#"):
            continue
        if match := _GNU.fullmatch(line):
            marked, digest, name = match.groups()
        elif match := _BSD.fullmatch(line):
            marked, name, digest = match.groups()
        else:
            raise InvalidConfig(f"{label} line {number} is no SHA-256 and file, as `sha256sum` writes them")
        if marked:
            name = "".join(_unescaped(name))
        last = PurePosixPath(name).name
        if found.setdefault(last, digest.lower()) != digest.lower():
            raise UsageError(f"{label} has two digests for files called {printable(last)}")
    if not found:
        raise InvalidConfig(f"{label} lists no file")
    return found


def _unescaped(name: str) -> Sequence[str]:
    pieces, at = [], 0
    while at < len(name):
        if name[at] == "\\" and name[at + 1 : at + 2] in _MEANT:
            pieces.append(_MEANT[name[at + 1]])
            at += 2
        else:
            pieces.append(name[at])
            at += 1
    return pieces


async def digests_of(client: Client, files: Sequence[Path]) -> list[str]:
    """The digests of files, in hexadecimal. Raises StorageError."""
    client.observer(PhaseStarted("digests", len(files)))
    return [await in_thread(_digest, path) for path in files]


async def check_digests(client: Client, files: Sequence[Path], listed: Mapping[str, str], label: str) -> None:
    """Raise DigestMismatch for a file that is another than the list says; UsageError for one that is not in
    it, and NoSuchFile for a part of one of these bundles that is, and is not among the files."""
    for path in files:
        if path.name not in listed:
            raise UsageError(f"{label} does not list {path.name}; give the list that was made with it")
    given = {path.name for path in files}
    wholes = {whole_of(path).name for path in files if part_number(path)}
    for name in sorted(listed.keys() - given):
        if part_number(Path(name)) and whole_of(Path(name)).name in wholes:
            raise NoSuchFile(f"{label} lists {printable(name)}, and that part is not there")
    for path, digest in zip(files, await digests_of(client, files), strict=True):
        if digest != (expected := listed[path.name]):
            what = f"{path}, which {label} lists,"
            raise DigestMismatch(what, expected=f"sha256:{expected}", actual=f"sha256:{digest}")


def _digest(path: Path) -> str:
    with translate_os_errors("read", path), path.open("rb", buffering=0) as file:
        hasher = hashlib.sha256()
        while block := file.read(BLOCK):
            hasher.update(block)
    return hasher.hexdigest()
