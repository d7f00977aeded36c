"""Finds the images that deployment files name, in files, folders and a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from blobflow.bounded_file import read_beginning
from blobflow.deployment_files.compose_files import read_env_file
from blobflow.deployment_files.contract import FoundImages, NamedImage, UntoldImage
from blobflow.deployment_files.formats import Reading, is_worth_reading
from blobflow.deployment_files.kustomize_builds import Kustomization, build
from blobflow.deployment_files.skaffold_builds import SkaffoldArtifacts, builders_of, without_built
from blobflow.deployment_files.source_text import SourceText, decode
from blobflow.errors import InvalidConfig, UsageError
from blobflow.printable import first_of, one_line

# Bytes of one file. The longest manifests of large projects have some; more is a file of another kind.
MAX_BYTES = 16 * 1024**2
# Files of all folders, and bytes of an `.env`.
MAX_FILES = 100_000
MAX_ENV = 1024**2
# What the stream is called.
STDIN = "stdin"
# Folders whose files are not what is deployed. Hidden ones are left out but for those of CI systems and
# of development containers.
_LEFT_OUT = frozenset(("node_modules", "vendor", "__pycache__", "venv"))
_HIDDEN = frozenset(
    (".github", ".gitlab", ".gitlab-ci", ".circleci", ".woodpecker", ".forgejo", ".gitea", ".devcontainer")
)


def find_images(
    paths: Sequence[str], *, stdin: bytes | None = None, custom_resources: bool = False
) -> FoundImages:
    """Every image that these files name, and what can't be told, in the order of files and lines. Names in
    resources that a kustomization among the files replaces are what it replaces them by.

    A path may be a folder: its files with names as deployment files have them are read, in order of their
    names, also below it; not hidden folders (but those of CI systems), node_modules and vendor; links are
    not followed out of the file's place. What can't be read in a folder is passed over, with why. `-` is
    `stdin`. `custom_resources`: also fields by which custom resources mostly name images.

    The formats are told by name and content: Kubernetes objects, also as JSON and in lists, Helm values and
    templates, Kustomize, Compose, GitLab CI, GitHub Actions, Dockerfiles, Ansible, lists of one image a
    line, and shell scripts that write such.

    Raises UsageError for a path that is not there, and InvalidConfig for a file that was named and can't be
    read, is no text, has over 16 MiB, or breaks the rules of its format; each is one sentence.
    """
    search = _Search(custom_resources=custom_resources)
    for path in paths:
        if path == "-":
            search.read(STDIN, _checked_stdin(stdin))
        elif Path(path).is_dir():
            search.read_folder(path)
        else:
            search.read(path, _read_file(path))
    return search.found()


def _checked_stdin(stdin: bytes | None) -> bytes:
    if stdin is None:
        raise UsageError("- is stdin, which is not there")
    if len(stdin) > MAX_BYTES:
        raise InvalidConfig(f"stdin has more than {MAX_BYTES // 1024**2} MiB; is it a deployment file?")
    return stdin


def _read_file(path: str) -> bytes:
    try:
        raw = read_beginning(Path(path), MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"there is no file or folder {one_line(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise InvalidConfig(f"can't read {one_line(path)}: {reason}") from None
    if len(raw) > MAX_BYTES:
        raise InvalidConfig(
            f"{one_line(path)} has more than {MAX_BYTES // 1024**2} MiB; is it a deployment file?"
        )
    return raw


def _files_of(folder: str) -> Iterator[str]:
    """The files below a folder that have telling names, in order. Links to folders are not followed."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _LEFT_OUT and (not name.startswith(".") or name in _HIDDEN)
        )
        for name in sorted(files):
            path = str(Path(place, name))
            if is_worth_reading(path):
                yield path


class _Search:
    """Reads one file after the other."""

    def __init__(self, *, custom_resources: bool) -> None:
        self._custom_resources = custom_resources
        self._images: list[NamedImage] = []
        self._untold: list[UntoldImage] = []
        self._open_names: list[NamedImage] = []
        self._kustomizations: list[Kustomization] = []
        self._artifacts: list[SkaffoldArtifacts] = []
        self._read: set[str] = set()
        self._files: list[str] = []
        self._passed_over: list[tuple[str, str]] = []
        self._env: dict[str, dict[str, str]] = {}

    def read_folder(self, folder: str) -> None:
        root = Path(folder).resolve()
        for path in _files_of(folder):
            if len(self._files) + len(self._passed_over) >= MAX_FILES:
                raise InvalidConfig(f"{one_line(folder)} has over {MAX_FILES} files that may name images")
            if not Path(path).resolve().is_relative_to(root):
                self._passed_over.append((path, "is a link out of the folder"))
                continue
            if not Path(path).is_file():
                continue
            try:
                self.read(path, _read_file(path))
            except UsageError as error:
                name = one_line(path)  # the sentence's subject, which stands before the reason already
                why = error.message.replace(f"can't read {name}: ", "can't be read: ", 1)
                self._passed_over.append((path, why.removeprefix(f"{name} ")))

    def read(self, path: str, raw: bytes) -> None:
        """One file, once however often it is named. Raises InvalidConfig."""
        if path in self._read:
            return
        self._read.add(path)
        source = SourceText(path, decode(raw, one_line(path)))
        reading = Reading(source, custom_resources=self._custom_resources, env=lambda: self._env_beside(path))
        reason = reading.read()
        images, untold = reading.findings.in_order()
        self._files.append(path)
        self._images += images
        self._untold += untold
        self._open_names += reading.findings.open_names
        self._kustomizations += reading.kustomizations
        self._artifacts += reading.artifacts
        if reading.left:
            kinds = first_of([one_line(kind, 60) for kind in sorted(reading.left)], 5)
            self._passed_over.append((path, f"has custom resources whose fields may name images: {kinds}"))
        elif reason:
            self._passed_over.append((path, reason))

    def _env_beside(self, path: str) -> Mapping[str, str]:
        """The `.env` in the folder of a Compose file; nothing if there is none that can be read."""
        if path == STDIN:
            return {}
        folder = str(Path(path).parent)
        if folder not in self._env:
            self._env[folder] = {}
            beside = Path(folder, ".env")
            if beside.is_file():
                try:
                    text = decode(read_beginning(beside, MAX_ENV), str(beside))
                except (OSError, InvalidConfig) as error:
                    reason = getattr(error, "strerror", None) or error
                    self._passed_over.append((str(beside), f"can't be read: {reason}"))
                else:
                    self._env[folder] = read_env_file(text)
        return self._env[folder]

    def found(self) -> FoundImages:
        built = build(self._images, self._untold, self._open_names, self._kustomizations)
        builders = builders_of(built.images, self._artifacts)
        images, untold = without_built(built.images, built.untold, builders, self._files)
        return FoundImages(
            images,
            untold,
            tuple(self._files),
            tuple(self._passed_over),
            tuple(self._images),
            tuple({**builders, **built.matched}.items()),
            tuple((name, built.finals.get(name, ())) for name in self._open_names),
        )
