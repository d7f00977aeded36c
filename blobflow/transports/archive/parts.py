"""The files of an archive that is being written: one, or numbered parts of a limited size.

`bundle.tar` in parts is `bundle.001.tar`, `bundle.002.tar` and so on. Every part is an OCI layout by itself,
so that any tool can look into it; the last one's index.json names the images, those of the others name none.
What comes next goes into the last part, and into a new one if it does not fit: the same content in the same
order gives the same parts.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

import msgspec

from blobflow.errors import UsageError
from blobflow.transports.archive.tar_reader import END, header_of, padding
from blobflow.transports.archive.tar_writer import TarWriter
from blobflow.transports.files import AtomicFile, translate_os_errors
from blobflow.transports.layout.index_json import EMPTY_INDEX, OCI_LAYOUT_FILE

_MARK = "oci-layout"
_INDEX = "index.json"
_PART_NAME = re.compile(r"(?P<stem>.+)\.(?P<number>\d{3,})(?P<suffix>\.[^.]+)?")


class _Part(msgspec.Struct, frozen=True):
    arriving: AtomicFile
    tar: TarWriter


class Parts:
    """The tars of one archive, made in `folder`; `limit` in bytes, None: one file, however large it gets.

    `name` is for messages. What `stack` leaves is gone, unless it has landed.
    """

    def __init__(self, stack: ExitStack, folder: Path, name: str, limit: int | None = None) -> None:
        self._stack = stack
        self._folder = folder
        self._name = name
        self._limit = limit
        self._parts: list[_Part] = []
        self._holding: dict[Hashable, TarWriter] = {}
        self._begin_part()

    def holding(self, key: Hashable) -> TarWriter | None:
        """The tar in which the file has come in whole."""
        tar = self._holding.get(key)
        return tar if tar is not None and tar.region(key) else None

    def taking(self, key: Hashable, path: str, size: int) -> TarWriter:
        """The tar that has a place for the file, given now if there is none yet."""
        if key not in self._holding:
            check_fits(path, size, self._limit)
            if self._limit and self._parts[-1].tar.size + _taken(path, size) > self._limit - _ENDING:
                self._begin_part()
            self._holding[key] = self._parts[-1].tar
            self._holding[key].reserve(key, path, size)
        return self._holding[key]

    def add(self, path: str, content: bytes) -> None:
        """Write a whole file."""
        self.taking(path, path, len(content)).add(path, path, content)

    def keep(self, keys: Iterable[Hashable]) -> None:
        """Let these files stay, and nothing between them; in a thread."""
        kept = [_MARK, *keys]
        for part in self._parts:
            part.tar.close_up(kept)

    def finish(self, index: bytes) -> None:
        """End every part; `index` is the last one's. In a thread. Raises StorageError, UsageError."""
        check_fits(_INDEX, len(index), self._limit)
        last = self._parts[-1].tar
        if self._limit and last.size + _taken(_INDEX, len(index)) + len(END) > self._limit:
            self._begin_part()
        for part in self._parts[:-1]:
            part.tar.add(_INDEX, _INDEX, EMPTY_INDEX)
        self._parts[-1].tar.add(_INDEX, _INDEX, index)
        for part in self._parts:
            part.tar.finish()

    def land(self, path: Path) -> list[Path]:
        """Make them the archive, the part that names the images last. Returns its files. In a thread. Raises
        StorageError."""
        if self._limit is None:
            self._parts[0].arriving.land(path)
            return [path]
        files = [part_path(path, number) for number in range(1, len(self._parts) + 1)]
        for part, file in zip(self._parts, files, strict=True):
            part.arriving.land(file)
        for left in numbered_parts(path)[len(self._parts) :]:
            with suppress(OSError):  # of an archive that had more of them
                left.unlink()
        return files

    @property
    def fd(self) -> int:
        """The file of an archive that is one."""
        return self._parts[0].arriving.fd

    def _begin_part(self) -> None:
        arriving = self._stack.enter_context(AtomicFile(self._folder))
        tar = TarWriter(arriving.fd, self._name)
        tar.add(_MARK, _MARK, OCI_LAYOUT_FILE)
        self._parts.append(_Part(arriving, tar))


def _taken(path: str, size: int) -> int:
    """Bytes that a file takes in a tar."""
    return len(header_of(path, size)) + size + len(padding(size))


# What every part has at its end: an index.json without images, and what ends a tar.
_ENDING = _taken(_INDEX, len(EMPTY_INDEX)) + len(END)
_BEGINNING = _taken(_MARK, len(OCI_LAYOUT_FILE))


def check_fits(path: str, size: int, limit: int | None) -> None:
    """Raise UsageError for a file that no part of `limit` bytes can hold."""
    needed = _BEGINNING + _taken(path, size) + _ENDING
    if limit is not None and needed > limit:
        raise UsageError(
            f"{path} has {size} bytes and goes into one part, so --split-size has to be {needed} or more, "
            f"not {limit}"
        )


def part_path(path: Path, number: int) -> Path:
    """The n-th part of an archive, from 1."""
    return path.with_name(f"{path.stem}.{number:03}{path.suffix}")


def numbered_parts(path: Path) -> list[Path]:
    """The parts of an archive that there are, in order."""
    return [*_parts_by_number(path).values()]


def _parts_by_number(path: Path) -> dict[int, Path]:
    form = re.compile(rf"{re.escape(path.stem)}\.(\d{{3,}}){re.escape(path.suffix)}")
    with translate_os_errors("look at", path.parent):
        if not path.parent.is_dir():
            return {}
        found = {
            int(match[1]): each for each in path.parent.iterdir() if (match := form.fullmatch(each.name))
        }
    return {number: found[number] for number in sorted(found) if part_path(path, number) == found[number]}


class BundleFiles(msgspec.Struct, frozen=True):
    """The files of one archive: `path` is its name without a part's number, `there` are those that exist, in
    order. `missing`: those that have to exist because a later one does, as runs of a first and a last.

    Whether more come after the last one, its content says: it names the images.
    """

    path: Path
    there: tuple[Path, ...]
    missing: tuple[tuple[Path, Path], ...] = ()
    numbered: bool = False

    @property
    def following(self) -> Path:
        """The part that comes after the last one that is there."""
        return part_path(self.path, part_number(self.there[-1]) + 1 if self.there else 1)


def part_number(path: Path) -> int:
    """The number of a part; 0 for a file that is none."""
    match = _PART_NAME.fullmatch(path.name)
    return int(match["number"]) if match else 0


def whole_of(path: Path) -> Path:
    """The archive that a part is one of; of what is no part, itself."""
    match = _PART_NAME.fullmatch(path.name)
    return path.with_name(f"{match['stem']}{match['suffix'] or ''}") if match else path


def files_of_bundle(path: Path) -> BundleFiles:
    """The files of the archive that `path` names: itself, or the parts of that name, or those beside it if it
    is one of them. `there` is empty if there is none. Raises StorageError.

    A part's number has three digits, and more only from 1000 on: `backup.2024.tar` is no part unless there is
    a first one.
    """
    match = _PART_NAME.fullmatch(path.name)
    if match is not None:
        whole = whole_of(path)
        parts = _parts_by_number(whole)
        if parts and (len(match["number"]) == 3 or 1 in parts):
            return _numbered(whole, parts)
    with translate_os_errors("look at", path):
        exists = path.exists()
    if exists:
        return BundleFiles(path, (path,))
    return _numbered(path, _parts_by_number(path))


def run_text(first: Path, last: Path) -> str:
    """A run of parts, as `BundleFiles.missing` has it."""
    return str(first) if first == last else f"{first} to {last}"


def absent_parts(paths: Iterable[Path]) -> list[tuple[Path, Path]]:
    """The parts that come before others of these, and are not among them, as runs of a first and a last."""
    given: dict[Path, dict[int, Path]] = {}
    for path in paths:
        match = _PART_NAME.fullmatch(path.name)
        if match is not None and len(match["number"]) == 3:
            given.setdefault(whole_of(path), {})[int(match["number"])] = path
    return [
        run for whole, parts in given.items() for run in _numbered(whole, dict(sorted(parts.items()))).missing
    ]


def following_part(paths: Iterable[Path]) -> Path | None:
    """The part after these, if all of them are parts of one bundle, from the first on."""
    paths = sorted(paths)
    files = files_of_bundle(paths[0])
    return files.following if files.numbered and [*files.there] == paths and not files.missing else None


def _numbered(path: Path, parts: dict[int, Path]) -> BundleFiles:
    missing = []
    expected = 1
    for number in parts:
        if number > expected:
            missing.append((part_path(path, expected), part_path(path, number - 1)))
        expected = number + 1
    return BundleFiles(path, tuple(parts.values()), tuple(missing), numbered=True)
