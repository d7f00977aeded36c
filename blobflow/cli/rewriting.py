"""The work of `rewrite`: files are read, their images get places in a mirror, and the files are made anew."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from blobflow.bounded_file import read_stream
from blobflow.cli.inputs.image_digests import Digests, asked_digests, locked_digests, with_digest
from blobflow.cli.inputs.mirror_place import PlaceOf
from blobflow.cli.one_shot import run_one_shot
from blobflow.cli.options.connection import ConnectionOptions
from blobflow.cli.output.kustomize_text import kustomize_images, kustomize_lines
from blobflow.cli.runtime.files import write_atomic
from blobflow.cli.settings import Hosts, run_settings
from blobflow.deployment_files.contract import NamedImage
from blobflow.deployment_files.find import find_images
from blobflow.deployment_files.rewritten_files import STDIN, RewrittenFile, rewrite_files
from blobflow.errors import StorageError, UsageError
from blobflow.oci import Reference

Left = tuple[NamedImage, str]
_YAML = (".yaml", ".yml", ".json")
_SEPARATOR = b"---\n"


class Rewriting:
    """Deployment files, and where the images that they name are in a mirror. Raises as `find_images`."""

    def __init__(self, files: Sequence[str], custom_resources: bool, place_of: PlaceOf) -> None:
        self._stdin = read_stream(sys.stdin.buffer, "stdin") if STDIN in files else None
        self._custom_resources = custom_resources
        self._place_of = place_of
        self.found = find_images(files, stdin=self._stdin, custom_resources=custom_resources)
        self._places = {name: self._placed(name) for name in {each.reference for each in self.found.images}}

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


def write_in_place(files: Sequence[RewrittenFile]) -> None:
    """Replace each file that changed, whole or not at all; a link stays one. Raises StorageError."""
    for file in files:
        if file.changed:
            path = Path(file.path).resolve()
            write_atomic(path, file.content, mode=path.stat().st_mode & 0o7777)


def write_below(folder: Path, files: Sequence[RewrittenFile], given: Sequence[str]) -> None:
    """Write the files below a folder, those of a folder that was `given` with their paths in that.

    Raises UsageError for two that would be one, before anything is written; StorageError.
    """
    paths: dict[Path, RewrittenFile] = {}
    for file in files:
        path = folder / _path_below(Path(file.path), given)
        if path in paths:
            raise UsageError(f"{paths[path].path} and {file.path} would both be {path}; write them apart")
        if path.resolve() == Path(file.path).resolve():
            raise UsageError(f"{file.path} would be written over itself; --in-place does that")
        paths[path] = file
    for path, file in paths.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"can't make the folder {path.parent}: {error.strerror}") from None
        write_atomic(path, file.content)


def _path_below(file: Path, given: Sequence[str]) -> Path:
    folders = [Path(each) for each in given if Path(each).is_dir()]
    above = [each for each in folders if file.is_relative_to(each)]
    return file.relative_to(max(above, key=lambda each: len(each.parts))) if above else Path(file.name)
