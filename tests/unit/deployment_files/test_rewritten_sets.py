"""Whole sets of files rewritten: all formats at once, and files of public projects where they are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import islice
from pathlib import Path

import pytest

from blobflow.cli.inputs.mirror_place import is_at, places_below
from blobflow.cli.inputs.requests import parse_registry_prefix
from blobflow.deployment_files.contract import NamedImage
from blobflow.deployment_files.find import find_images
from blobflow.deployment_files.rewritten_files import RewrittenFile, rewrite_files
from blobflow.errors import InvalidConfig
from blobflow.oci import Reference
from tests.deployment_vectors import deployment_vectors
from tools.mutations import mutations

FILES = Path(__file__).parent / "files"
MIRROR = parse_registry_prefix("mirror.example:5000/hub")
PLACE_OF = places_below(MIRROR)


def place(image: NamedImage) -> Reference:
    return PLACE_OF(image.reference)


def check_set(paths: Sequence[str], folder: Path) -> Counter[str]:
    """Rewrite files, and check that each image is in the mirror or left, that nothing else changed, and that
    doing it again changes nothing. Returns why images were left."""
    found = find_images(paths, custom_resources=True)
    made = rewrite_files(found, place, custom_resources=True)
    left = {image for file in made for image, _ in (*file.left, *file.matched)}
    assert sum(file.replaced for file in made) + len(left) == len(set(found.images))
    written = [_write(folder / str(number), file) for number, file in enumerate(made)]
    now = find_images(written, custom_resources=True)
    outside = [image for image in now.images if not is_at(image.reference, MIRROR)]
    assert Counter(image.written for image in outside) == Counter(image.written for image in left)
    assert [(each.line, each.written) for each in now.untold] == [
        (each.line, each.written) for each in found.untold
    ]
    assert [file for file in rewrite_files(now, place, custom_resources=True) if file.changed] == []
    for file in made:
        _check_changes(file)
    return Counter(why for file in made for _, why in file.left)


def _write(folder: Path, file: RewrittenFile) -> str:
    """The file below a folder of its own, with the folders that tell what it is."""
    path = folder.joinpath(*Path(file.path).parts[-3:])
    path.parent.mkdir(parents=True)
    path.write_bytes(file.content)
    if (beside := Path(file.path).with_name(".env")).is_file():
        path.with_name(".env").write_bytes(beside.read_bytes())
    return str(path)


def _check_changes(file: RewrittenFile) -> None:
    """A line that changed names the mirror, and is the same around the name."""
    before, after = file.before.splitlines(), file.content.splitlines()
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        if old != new:
            same = SequenceMatcher(None, old, new, autojunk=False).find_longest_match()
            assert same.size > 0
            assert b"mirror.example:5000" in new or b"hub/" in new


def test_every_format_is_rewritten(tmp_path: Path) -> None:
    left = check_set([str(FILES)], tmp_path)
    assert set(left) <= {
        "is put together from variables",
        "is written there in a way that can't be replaced",
        "is only matched by its name there; give the entry a newName",
    }


def test_files_of_public_projects_are_rewritten(tmp_path: Path) -> None:
    files = [str(each.file) for each in deployment_vectors()]
    left = check_set(files, tmp_path)
    assert left.total() <= 5, left


def test_mutated_files_are_rewritten_rightly_or_not_at_all(tmp_path: Path) -> None:
    """Whatever stands in a file, its images are in the mirror afterwards, or are told as left."""
    source, replaced = random.Random(7), 0
    for seed in sorted(path for path in FILES.rglob("*") if path.is_file() and path.suffix != ".tsv"):
        file = tmp_path.joinpath(*seed.parts[-3:])
        file.parent.mkdir(parents=True, exist_ok=True)
        for content in islice(mutations([seed.read_bytes()], source), 1, 4):
            file.write_bytes(content)
            try:
                found = find_images([str(file)], custom_resources=True)
            except InvalidConfig:
                continue
            (made,) = rewrite_files(found, place, custom_resources=True)
            file.write_bytes(made.content)
            now = find_images([str(file)], custom_resources=True)
            outside = sum(not is_at(image.reference, MIRROR) for image in now.images)
            assert outside == len(made.left) + len(made.matched)
            replaced += made.replaced
    assert replaced > 50


def test_a_mirror_without_a_prefix_will_do(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("image: {registry: quay.io, repository: a/b, tag: v1}\n")
    place_of = places_below(parse_registry_prefix("m.example"))
    (made,) = rewrite_files(find_images([str(file)]), lambda image: place_of(image.reference))
    assert made.content == b"image: {registry: m.example, repository: a/b, tag: v1}\n"


@pytest.mark.parametrize("name", ["a.yaml", "Dockerfile", "images.txt", "compose.yaml"])
def test_a_file_that_names_nothing_stays(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(b"# nothing\r\n")
    (made,) = rewrite_files(find_images([str(file)]), place)
    assert (made.content, made.left) == (b"# nothing\r\n", ())
