"""Small files of each format, with what they name in `files/expected.tsv`: `-` for what can't be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from blobflow.deployment_files.contract import FoundImages, NamedImage
from blobflow.deployment_files.find import find_images
from blobflow.deployment_files.source_text import decode
from blobflow.oci import parse_reference

FILES = Path(__file__).parent / "files"
HEADER, *ROWS = [line.split("\t") for line in (FILES / "expected.tsv").read_text().splitlines()]
BY_FILE: dict[str, set[tuple[str, ...]]] = {}
for row in ROWS:
    BY_FILE.setdefault(row[0], set()).add(tuple(row[1:]))


@pytest.fixture(scope="module")
def found() -> FoundImages:
    return find_images([str(FILES)], custom_resources=True)


@pytest.mark.parametrize("file", sorted(BY_FILE))
def test_a_file_names_what_its_list_says(found: FoundImages, file: str) -> None:
    path = str(FILES / file)
    said = {
        (str(each.line), each.written, str(each.reference), each.field, "")
        for each in found.images
        if each.path == path
    }
    said |= {
        (str(each.line), each.written, "-", each.field, each.likely)
        for each in found.untold
        if each.path == path
    }
    assert said == BY_FILE[file]


def test_the_lists_are_of_all_files_that_are_read(found: FoundImages) -> None:
    assert {str(Path(file).relative_to(FILES)) for file in found.files} == BY_FILE.keys()
    assert found.passed_over == ()


def test_a_file_read_alone_names_the_same(found: FoundImages) -> None:
    alone = [find_images([path], custom_resources=True) for path in found.files]
    assert tuple(image for each in alone for image in each.images) == found.images
    assert tuple(place for each in alone for place in each.untold) == found.untold


def piece_of(image: NamedImage, start: int, end: int) -> str:
    return decode(Path(image.path).read_bytes(), image.path)[start:end]


def test_the_pieces_to_replace_are_what_the_images_are_called(found: FoundImages) -> None:
    whole = 0
    for image in found.images:
        pieces = [piece_of(image, part.start, part.end) for part in image.parts]
        if [part.kind for part in image.parts] == ["reference"]:
            assert parse_reference(pieces[0]) == image.reference
            assert pieces[0] in image.written or image.written == "var.image"  # by its default
            whole += 1
        elif len(pieces) > 1:
            assert " + ".join(pieces) == image.written
    assert whole > 80


def test_pieces_stand_in_no_quotes_and_know_them(found: FoundImages) -> None:
    for image in found.images:
        for part in image.parts:
            before = piece_of(image, part.start - 1, part.start)
            assert piece_of(image, part.start, part.end).strip("\"' \r\n") == piece_of(
                image, part.start, part.end
            )
            if (
                part.quote in ("'", '"')
                and len(image.parts) == 1
                and "://" not in piece_of(image, part.start - 3, part.start)
            ):
                assert before in (part.quote, "=", ",", " ")
