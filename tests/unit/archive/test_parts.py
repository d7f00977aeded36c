"""The names of a bundle's parts: which belong together, which are missing, and what is no part."""

from __future__ import annotations

from pathlib import Path

import pytest

from blobflow.transports.archive.parts import (
    absent_parts,
    files_of_bundle,
    following_part,
    part_number,
    part_path,
)


def touched(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).touch()
    return [folder / name for name in names]


@pytest.mark.parametrize("name", ["b.tar", "bundle", "b.tar.zst", "a.b.c"])
def test_parts_are_found_from_the_bundle_and_from_any_of_them(tmp_path: Path, name: str) -> None:
    whole = tmp_path / name
    parts = [part_path(whole, number) for number in (1, 2, 3)]
    touched(tmp_path, *(part.name for part in parts), "other.001.tar", "b.1.tar", "b.0004.tar")
    for named in (whole, *parts):
        found = files_of_bundle(named)
        assert (found.path, found.there, found.missing) == (whole, tuple(parts), ())
        assert found.following == part_path(whole, 4)
    assert following_part(reversed(parts)) == part_path(whole, 4)
    assert following_part(parts[:2]) is None, "there is one after these"


def test_gaps_are_told_as_runs_in_the_order_of_numbers(tmp_path: Path) -> None:
    whole = tmp_path / "b.tar"
    touched(tmp_path, *(part_path(whole, number).name for number in (3, 4, 999, 1002)))
    found = files_of_bundle(whole)
    assert [part_number(part) for part in found.there] == [3, 4, 999, 1002]
    runs = [(part_number(first), part_number(last)) for first, last in found.missing]
    assert runs == [(1, 2), (5, 998), (1000, 1001)]


@pytest.mark.parametrize("name", ["backup.2024.tar", "b.tar", "b.12.tar", "b.001", "b.0001.tar"])
def test_a_file_alone_is_itself(tmp_path: Path, name: str) -> None:
    (path,) = touched(tmp_path, name)
    found = files_of_bundle(path)
    if name == "b.001":  # a bundle without a suffix, in one part
        assert (found.path, found.numbered) == (tmp_path / "b", True)
    else:
        assert (found.path, found.there, found.numbered) == (path, (path,), False)


def test_what_is_not_there_has_no_files(tmp_path: Path) -> None:
    for name in ("b.tar", "b.002.tar", "none/b.tar"):
        assert files_of_bundle(tmp_path / name).there == ()


def test_parts_that_were_not_given_are_known_by_the_names_of_the_others(tmp_path: Path) -> None:
    whole = tmp_path / "b.tar"
    given = [part_path(whole, number) for number in (2, 4)]
    assert absent_parts([*given, tmp_path / "april.tar", tmp_path / "x.2024.tar"]) == [
        (part_path(whole, 1), part_path(whole, 1)),
        (part_path(whole, 3), part_path(whole, 3)),
    ]
