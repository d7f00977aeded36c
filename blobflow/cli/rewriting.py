"""The work of `rewrite`: files are read, their images get places in a mirror, and the files are made anew."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from blobflow.bounded_file import read_bounded, read_stream
from blobflow.cli.inputs.collected import is_pipe
from blobflow.cli.inputs.image_digests import Digests, asked_digests, locked_digests, with_digest
from blobflow.cli.inputs.mirror_place import PlaceOf
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions
from blobflow.cli.output.kustomize_text import kustomize_images, kustomize_lines
from blobflow.cli.runtime.files import FileToWrite, StagedFiles, write_files
from blobflow.cli.settings import Hosts, run_settings
from blobflow.deployment_files.contract import NamedImage
from blobflow.deployment_files.find import find_images
from blobflow.deployment_files.rewritten_files import STDIN, RewrittenFile, rewrite_files
from blobflow.errors import StorageError, UsageError
from blobflow.oci import Reference
from blobflow.transports.files import translate_os_errors

Left = tuple[NamedImage, str]
_YAML = (".yaml", ".yml", ".json")
_WRITABLE, _RUNNABLE, _PLAIN_MODE = 0o222, 0o111, 0o644
_SEPARATOR = b"---\n"


class Rewriting:
    """Deployment files, and where the images that they name are in a mirror. Raises as `find_images`, and
    UsageError for several streams."""

    def __init__(self, files: Sequence[str], custom_resources: bool, place_of: PlaceOf) -> None:
        self._stdin = None
        if stream := stream_among(files):
            self._stdin = (
                read_stream(sys.stdin.buffer, "stdin") if stream == STDIN else read_bounded(Path(stream))
            )
            files = [STDIN if file == stream else file for file in files]
        self._custom_resources = custom_resources
        self._place_of = place_of
        self.found = find_images(files, stdin=self._stdin, custom_resources=custom_resources)
        images = (*self.found.images, *self.found.named)
        self._places = {name: self._placed(name) for name in {each.reference for each in images}}

    @property
    def shared_places(self) -> list[str]:
        """A sentence for each place that images of several repositories have. `sync` brings no two to it that
        differ, so what is there is either of them, or not there."""
        names: dict[Reference, set[str]] = {}
        for name, place in self._places.items():
            if isinstance(place, Reference) and place.tag and _repository(place) != _repository(name):
                tagged = msgspec.structs.replace(place, digest="")
                names.setdefault(tagged, set()).add(f"{_repository(name)}:{name.tag}")
        return [
            f"{place} is the place of {' and of '.join(sorted(several))}; a spec can give one another name"
            for place, several in sorted(names.items())
            if len(several) > 1
        ]

    def _placed(self, name: Reference) -> Reference | UsageError:
        try:
            return self._place_of(name)
        except UsageError as error:
            return error

    def add_digests(self, lock: Path | None, connection: ConnectionOptions) -> None:
        """Give all places digests: those of a lock file, or those that they have at the mirror now."""
        places = sorted(
            {each for each in self._places.values() if isinstance(each, Reference) and not each.digest}
        )
        if lock is not None:
            digests: Digests = locked_digests(lock, self._place_of, places)
        elif places:
            settings = run_settings(connection, hosts=Hosts(targets=frozenset(each.host for each in places)))
            digests = run_one_shot(settings, connection.output, partial(asked_digests, places=places))
        else:
            return
        for name, place in self._places.items():
            if isinstance(place, Reference):
                try:
                    self._places[name] = with_digest(place, digests)
                except UsageError as error:
                    self._places[name] = error

    def _place(self, image: NamedImage) -> Reference:
        place = self._places[image.reference]
        if isinstance(place, UsageError):
            raise place
        return place

    def rewrite(self) -> list[RewrittenFile]:
        """The files, made anew. Nothing is written."""
        return rewrite_files(
            self.found, self._place, stdin=self._stdin, custom_resources=self._custom_resources
        )

    def kustomize(self) -> tuple[list[str], list[Left]]:
        """The `images:` list of a kustomization, and the images that it has no entry for."""
        placed: list[tuple[NamedImage, Reference]] = []
        left: list[Left] = []
        for image in self.found.images:
            place = self._places[image.reference]
            if isinstance(place, UsageError):
                left.append((image, place.message))
            elif place != image.reference:
                placed.append((image, place))
        entries, more = kustomize_images(placed)
        return kustomize_lines(entries), [*left, *more]


def stream_among(files: Sequence[str]) -> str:
    """The one of the files that can be read only once: `-` for stdin, or a pipe; "" if there is none. Raises
    UsageError for several."""
    streams = list(dict.fromkeys(file for file in files if file == STDIN or is_pipe(file)))
    if len(streams) > 1:
        raise UsageError(f"{streams[0]} and {streams[1]} are both streams; rewrite them one after the other")
    return streams[0] if streams else ""


def _repository(image: Reference) -> str:
    return f"{image.host}/{image.repository}"


def joined(files: Sequence[RewrittenFile]) -> bytes:
    """The files as one stream: one as it is, several as documents of YAML. Raises UsageError where they are
    something else, of which nobody could tell them apart."""
    if len(files) == 1:
        return files[0].content
    if other := next((file.path for file in files if not file.path.endswith(_YAML)), ""):
        raise UsageError(
            f"{other} can't be printed among other files; write them with --output DIR or --in-place"
        )
    whole = bytearray()
    for file in files:
        content = file.content.removeprefix(b"\xef\xbb\xbf") if whole else file.content
        if whole and not whole.endswith(b"\n"):
            whole += b"\n"
        whole += b"" if not whole or content.startswith(b"---") else _SEPARATOR
        whole += content
    return bytes(whole)


class Replaced(msgspec.Struct, frozen=True):
    """What became of files that were to be replaced. `moved`: those that somebody changed since they were
    read, which stay. `parted`: those that had further names, which keep what they had."""

    moved: tuple[RewrittenFile, ...] = ()
    parted: tuple[RewrittenFile, ...] = ()


def write_in_place(files: Sequence[RewrittenFile]) -> Replaced:
    """Replace each file that is to change, whole or not at all; a link stays one, and mode and owner what
    they were. All are written before the first is replaced, so where one can't be, none is. Raises UsageError
    and StorageError."""
    to_replace = {Path(file.path).resolve(): file for file in files if file.changed}
    moved: list[RewrittenFile] = []
    parted: list[RewrittenFile] = []
    with StagedFiles() as staged:
        for path, file in to_replace.items():
            about = _look_at(path)
            owner = about.st_uid, about.st_gid
            staged.add(path, file.content, stat.S_IMODE(about.st_mode), owner=_foreign(owner))
            if about.st_nlink > 1:
                parted.append(file)
        for path, file in to_replace.items():
            if _content(path) == file.before:
                staged.place(path)
            else:
                moved.append(file)
    return Replaced(tuple(moved), tuple(each for each in parted if each not in moved))


def _look_at(path: Path) -> os.stat_result:
    """What is known of a file that is to be replaced. Raises StorageError for one that nobody may write."""
    with translate_os_errors("look at", path):
        about = path.stat()
    if not about.st_mode & _WRITABLE or not os.access(path, os.W_OK):
        raise StorageError(f"{path} is read-only; make it writable, or write elsewhere with --output DIR")
    return about


def _foreign(owner: tuple[int, int]) -> tuple[int, int] | None:
    """The owner of a file that a superuser replaces, for whoever's it is; None where it would be his anyway,
    or can't be another's."""
    return owner if os.geteuid() == 0 and owner != (os.geteuid(), os.getegid()) else None


def _content(path: Path) -> bytes | None:
    """What stands in the file now; None if it is not there any more."""
    with translate_os_errors("read", path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def write_below(folder: Path, files: Sequence[RewrittenFile], given: Sequence[str]) -> None:
    """Write the files below a folder, those of a folder that was `given` with their paths in that.

    Raises UsageError for two that would be one, before anything is written; StorageError.
    """
    paths: dict[Path, FileToWrite] = {}
    sources: dict[Path, str] = {}
    for file in files:
        path = folder / _path_below(Path(file.path), given)
        if path in paths:
            raise UsageError(f"{sources[path]} and {file.path} would both be {path}; write them apart")
        if path.resolve() == Path(file.path).resolve():
            raise UsageError(f"{file.path} would be written over itself; --in-place does that")
        with translate_os_errors("look at", file.path):
            runs = Path(file.path).stat().st_mode & stat.S_IXUSR
        mode = _PLAIN_MODE | (_RUNNABLE if runs else 0)
        paths[path], sources[path] = FileToWrite(path, file.content, mode), file.path
    write_files(list(paths.values()))


def _path_below(file: Path, given: Sequence[str]) -> Path:
    folders = [Path(each) for each in given if Path(each).is_dir()]
    above = [each for each in folders if file.is_relative_to(each)]
    return file.relative_to(max(above, key=lambda each: len(each.parts))) if above else Path(file.name)
