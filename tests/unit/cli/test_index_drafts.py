"""Staged indexes on disk: the user's alone, whole or not at all, and nothing lost between two commands."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import msgspec
import pytest

from blobflow.cli.index_drafts import IndexDrafts, open_index_drafts
from blobflow.errors import StorageError, UsageError
from blobflow.oci import Descriptor, Platform, Reference, digest_of, media, parse_reference
from blobflow.oci.index_draft import DraftImage, IndexDraft

TARGET = parse_reference("127.0.0.1:5000/app:1")


def member(number: int) -> DraftImage:
    return DraftImage(
        parse_reference(f"127.0.0.1:5000/app:{number}"),
        Descriptor(media.OCI_MANIFEST, digest_of(b"%d" % number), 3),
        Platform("amd64", "linux"),
    )


def amend(staging: IndexDrafts, *members: DraftImage) -> None:
    with staging.changing():
        staging.keep((staging.find(TARGET) or IndexDraft(TARGET)).amended(IndexDraft(TARGET, members)))


@pytest.fixture
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IndexDrafts:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return open_index_drafts()


def files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state" / "blobflow" / "indexes").glob("*.json"))


def test_what_is_kept_is_found_again_and_dropped(staging: IndexDrafts) -> None:
    assert staging.find(TARGET) is None
    amend(staging, member(1))
    assert staging.get(TARGET) == IndexDraft(TARGET, (member(1),))
    assert staging.targets() == [TARGET]
    assert (staging.drop(TARGET), staging.drop(TARGET)) == (True, False)
    assert staging.find(TARGET) is None


def test_folder_and_files_are_the_users_alone(staging: IndexDrafts, tmp_path: Path) -> None:
    amend(staging, member(1))
    folder = tmp_path / "state" / "blobflow" / "indexes"
    assert {stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "oci:lay\udcff"])
def test_a_name_that_is_not_utf_8_is_refused_and_nothing_is_staged(
    host: str, staging: IndexDrafts, tmp_path: Path
) -> None:
    source = msgspec.structs.replace(member(1), image=Reference("oci:lay\udcff", "", "1"))
    target = Reference(host, "app", "1")
    with staging.changing(), pytest.raises(UsageError, match=r"can't keep the name oci:lay\\udcff"):
        staging.keep(IndexDraft(target, (source,)))
    assert (staging.find(target), files(tmp_path)) == (None, [])


def test_amendments_at_once_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    threads = [threading.Thread(target=amend, args=(open_index_drafts(), member(n))) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(open_index_drafts().get(TARGET).members) == 16
    assert len(files(tmp_path)) == 1


def test_a_write_that_fails_leaves_what_was_there(
    staging: IndexDrafts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    amend(staging, member(1))

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match=r"can't write .*the disk is full"):
        amend(staging, member(2))
    assert staging.get(TARGET).members == (member(1),)
    assert len(list(files(tmp_path)[0].parent.iterdir())) == 2, "the file and the lock"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"{", "is damaged"), (b"[]", "is damaged"), (b"\xff", "is damaged")],
)
def test_a_damaged_file_says_what_to_do_and_can_be_dropped(
    staging: IndexDrafts, tmp_path: Path, content: bytes, sentence: str
) -> None:
    amend(staging, member(1))
    files(tmp_path)[0].write_bytes(content)
    with pytest.raises(StorageError, match=f"{sentence}.*remove it and create the index again"):
        staging.get(TARGET)
    assert staging.targets() == []
    assert staging.drop(TARGET)


def test_a_file_of_a_later_version_is_left_alone(staging: IndexDrafts, tmp_path: Path) -> None:
    amend(staging, member(1))
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b'"version":1', b'"version":2'))
    with pytest.raises(StorageError, match="is of version 2, this blobflow reads version 1"):
        staging.get(TARGET)


def test_what_is_not_staged_is_told_with_what_is(staging: IndexDrafts) -> None:
    with pytest.raises(UsageError, match=r"other:1 is not staged \(nothing is\)"):
        staging.get(parse_reference("127.0.0.1:5000/other:1"))
    amend(staging, member(1))
    with pytest.raises(UsageError, match=r"other:1 is not staged \(127.0.0.1:5000/app:1 is\)"):
        staging.get(parse_reference("127.0.0.1:5000/other:1"))


def test_places_with_long_paths_can_be_staged(staging: IndexDrafts) -> None:
    target = parse_reference(f"oci:/{'x' * 200}/{'y' * 200}:{'n' * 300}")
    with staging.changing():
        staging.keep(IndexDraft(target))
    assert staging.get(target).target == target


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match=r"can't write .*file/indexes"),
        IndexDrafts(tmp_path / "file" / "indexes").changing(),
    ):
        pass
    with pytest.raises(StorageError, match="can't read "):
        IndexDrafts(tmp_path / "file" / "indexes").find(TARGET)


def test_without_a_home_there_is_nowhere_to_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    with pytest.raises(UsageError, match="XDG_STATE_HOME"):
        open_index_drafts()
