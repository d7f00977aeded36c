"""The images that deployment files name, each with its place in the file, and what can't be told."""

from __future__ import annotations

from typing import Literal

import msgspec

from blobflow.oci import Reference

# What a part of a file holds of an image's name. Where a name stands in one piece, that is its "reference".
PartKind = Literal["reference", "registry", "repository", "name", "tag", "digest"]


class NamePart(msgspec.Struct, frozen=True):
    """A piece of a file that holds an image's name or a part of it: the characters `start` ≤ i < `end` of the
    file's text, quotes and prefixes such as `docker://` left out.

    `quote`: the quote in which it stands in YAML or JSON, "" for none, "|" for a block scalar.
    """

    start: int
    end: int
    kind: PartKind = "reference"
    quote: str = ""


class NamedImage(msgspec.Struct, frozen=True):
    """An image that a file names.

    `path` is the file as it was named, or found below the folder that was; `line` counts from 1. `written` is
    the name as it stands there, parts that stand apart joined by ` + `. `reference` is that name in full:
    the registry, `library/`, `:latest` where there is neither tag nor digest, and variables by the defaults
    that the same file gives. `field` says what kind of place it is (`container`, `env`, `FROM`, …).
    `parts`: the pieces of the text that would be replaced to name another image; empty where the name is put
    together from variables, so that no piece of it could be.
    """

    path: str
    line: int
    written: str
    reference: Reference
    field: str
    parts: tuple[NamePart, ...] = ()


class UntoldImage(msgspec.Struct, frozen=True):
    """A place that names an image which can't be told from the file: a template, a variable without a
    default, a name that is cut off. `reason` is a sentence's end for people. `likely`: what it would be by
    the source that `reason` names (an `.env` beside the file, say), which is never taken for it; "" where
    there is none. `parts`: pieces of its name that may stand elsewhere as well, as the registry behind an
    alias, where these are known."""

    path: str
    line: int
    written: str
    field: str
    reason: str
    likely: str = ""
    parts: tuple[NamePart, ...] = ()


class FoundImages(msgspec.Struct, frozen=True):
    """What was found, in the order of files and lines. `files`: every file that was read; `passed_over`:
    files that name no images as far as is known, each with why.

    `images` is what is pulled: a name in a resource that Kustomize replaces is what it is replaced by.
    `named` is what stands in each file, whatever the others say; of those, `matched` are names that an entry
    of a kustomization is for, each with that. `open_names`: new names in kustomizations whose tag stands in
    resources, as `:latest`, each with the images that come of it, as far as these are among the files.
    """

    images: tuple[NamedImage, ...]
    untold: tuple[UntoldImage, ...]
    files: tuple[str, ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()
    named: tuple[NamedImage, ...] = ()
    matched: tuple[tuple[NamedImage, str], ...] = ()
    open_names: tuple[tuple[NamedImage, tuple[Reference, ...]], ...] = ()
