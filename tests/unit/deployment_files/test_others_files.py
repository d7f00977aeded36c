"""Deployment files of others, with lists made by hand: all that they name is found, and nothing else."""

from __future__ import annotations

from blobflow.deployment_files.find import find_images
from blobflow.oci import parse_reference
from tests.deployment_vectors import Listed, Row, deployment_vectors

# Kinds that the lists' README lets a tool leave out, of which one is: it names an image and pulls none.
LEFT_OUT = "annotation containerImage"


def names(rows: tuple[Row, ...]) -> set[tuple[int, str, str]]:
    return {(row.line, row.reference, row.normalised) for row in rows if row.kind != LEFT_OUT}


def wrong_images(listed: Listed) -> list[str]:
    found = find_images([str(listed.file)], custom_resources=True)
    text = listed.file.read_bytes().decode()
    wrong = []
    told = {(image.line, image.written, str(image.reference)) for image in found.images}
    wrong += [f"missing {each}" for each in names(listed.images) - told]
    wrong += [f"too many {each}" for each in told - names(listed.images)]
    for image in found.images:
        if [part.kind for part in image.parts] == ["reference"]:
            [part] = image.parts
            if parse_reference(text[part.start : part.end]) != image.reference:
                wrong.append(f"another piece {image}")
        elif not image.parts and "$" not in image.written:
            wrong.append(f"no pieces {image}")
    return wrong


def wrong_untold(listed: Listed) -> list[str]:
    found = find_images([str(listed.file)], custom_resources=True)
    places = {(place.line, place.written): place.likely for place in found.untold}
    listed_places = {(row.line, row.reference): row.normalised for row in listed.untold}
    wrong = [f"missing {each}" for each in listed_places.keys() - places.keys()]
    wrong += [f"too many {each}" for each in places.keys() - listed_places.keys()]
    wrong += [
        f"likely {place}: {places[place]!r}, not {likely}"
        for place, likely in listed_places.items()
        if place in places and places[place] != likely.strip("-")
    ]
    return wrong


def test_all_images_are_found_and_nothing_else() -> None:
    vectors = deployment_vectors()
    assert len(vectors) >= 40
    assert {str(each.file): wrong for each in vectors if (wrong := wrong_images(each))} == {}


def test_what_cant_be_told_is_told_so() -> None:
    vectors = deployment_vectors()
    assert {str(each.file): wrong for each in vectors if (wrong := wrong_untold(each))} == {}


def test_a_folder_of_them_is_read_as_each_of_them_is() -> None:
    vectors = deployment_vectors()
    root = vectors[0].file.parents[1]
    found = find_images([str(root)], custom_resources=True)
    whole = {(image.path, image.line, image.written) for image in found.images}
    each = {
        (image.path, image.line, image.written)
        for listed in vectors
        for image in find_images([str(listed.file)], custom_resources=True).images
    }
    assert whole == each
