"""The verbs and options about the store, against embedded registries: cache, verify, --cache, --verify."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from blobflow.byte_size import parse_size
from blobflow.cli import cli
from blobflow.cli.commands.demo import fill_registry
from blobflow.oci import Digest, digest_of
from blobflow.oci.sample_images import sample_set
from blobflow.transports.store import Store
from tests.scenarios.command_line import serving

SAMPLE = sample_set(7, images=3, layer_size=2048)
NAMES = list(SAMPLE.images)
BLOBS_SIZE = sum(map(len, SAMPLE.blobs.values()))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("DOCKER_CONFIG", "XDG_CACHE_HOME", "XDG_DATA_HOME", "BLOBFLOW_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def cache(home: Path) -> Path:
    return home / ".cache" / "blobflow"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("source")
    with closing(Store.open(root)) as store:
        fill_registry(store, SAMPLE)
    with serving(root) as address:
        yield address


@pytest.fixture
def places(source: str, home: Path) -> Iterator[tuple[str, ...]]:
    """The arguments that select the whole set."""
    images = home / "list.txt"
    images.write_text("\n".join(NAMES))
    with serving(home / "target") as target:
        yield ("--from", source, "--to", target, "--images", str(images))


def blobflow(*argv: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, [str(word) for word in argv])
    assert done.exit_code == code, done.output
    return done


def keep(root: Path, *contents: bytes) -> list[Digest]:
    with closing(Store.open(root)) as store:
        for content in contents:
            store.blobs.write_small(content, digest_of(content))
    return [digest_of(content) for content in contents]


def listed(*argv: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(blobflow("cache", "ls", "--json", *argv).stdout)
    return found


def files(root: Path) -> list[str]:
    return sorted(p.name for folder in ("blobs/sha256", "partials") for p in (root / folder).iterdir())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        ("20GB", 20 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5 kB", 1500),
        ("0.1TiB", 2**40 // 10),
        ("3g", 3 * 10**9),
        ("7b", 7),
    ],
)
def test_sizes_are_read_in_powers_of_ten_and_two(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "20 GBit", "٣GB", "1.GB"])
def test_what_is_no_size_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is no amount of bytes; write it as 20GB"):
        parse_size(text)
    done = blobflow("cache", "gc", f"--max-size={text}", code=2)
    assert ("is no amount of bytes" if text else "has an empty value") in done.output


def test_a_store_that_is_not_there_yet_is_empty_and_is_not_made(cache: Path) -> None:
    assert blobflow("cache", "ls").output == ""
    assert listed() == []
    assert "there is none" in blobflow("cache", "du").stdout
    assert json.loads(blobflow("cache", "du", "--json").stdout)["blobs"] == 0
    assert "0 blobs" in blobflow("cache", "verify").stdout
    assert "0 blobs removed" in blobflow("cache", "gc").stdout
    assert "there is no store" in blobflow("cache", "rm", digest_of(b"x"), code=8).stderr
    assert not cache.exists()


def test_without_home_the_store_has_to_be_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    assert "name it with --cache-dir" in blobflow("cache", "ls", code=2).stderr
    assert blobflow("cache", "ls", "--cache-dir", tmp_path / "empty").output == ""


def test_ls_and_du_tell_what_is_held_also_read_only(cache: Path) -> None:
    digests = keep(cache, b"one", b"two two")
    assert {row["digest"]: row["size"] for row in listed()} == dict(zip(digests, (3, 7), strict=True))
    for digest in digests:
        assert digest in blobflow("cache", "ls").stdout
    usage = json.loads(blobflow("cache", "du", "--json").stdout)
    assert (usage["store"], usage["blobs"], usage["blob_bytes"]) == (str(cache), 2, 10)
    assert "2, 10 B" in blobflow("cache", "du").stdout


def test_a_place_that_is_no_store_is_refused(home: Path) -> None:
    (home / "file").write_text("x")
    assert "is a file" in blobflow("cache", "ls", "--cache-dir", home / "file", code=2).stderr
    assert "there is no store" in blobflow("cache", "du", "--cache-dir", home, code=8).stderr


def test_verify_drops_what_is_damaged_and_exits_with_6(cache: Path) -> None:
    good, bad = keep(cache, b"good", b"bad bad")
    assert "2 blobs, 11 B: nothing is damaged" in blobflow("cache", "verify").stdout
    flip(cache / "blobs" / bad.replace(":", "/"))
    done = blobflow("cache", "verify", code=6)
    assert f"dropped: {bad}, 7 B" in done.stdout
    assert "1 of 2 blobs were damaged and are dropped" in done.stderr
    assert [row["digest"] for row in listed()] == [good]
    flip(cache / "blobs" / good.replace(":", "/"))
    assert json.loads(blobflow("cache", "verify", "--json", code=6).stdout) == {"blobs": 1, "damaged": [good]}


def test_verify_leaves_what_is_damaged_where_it_can_not_write(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, bad = keep(cache, b"good", b"bad bad")
    flip(cache / "blobs" / bad.replace(":", "/"))
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    done = blobflow("cache", "verify", code=6)
    assert f"damaged: {bad}, 7 B" in done.stdout
    assert f"1 of 2 blobs were damaged and are left, since {cache} can't be written" in done.stderr
    assert len(listed()) == 2


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_store_is_shared_with_a_group_and_taken_back(cache: Path) -> None:
    (blob,) = keep(cache, b"one")
    file = cache / "blobs" / blob.replace(":", "/")
    done = blobflow("cache", "share", "on")
    assert done.stdout == f"the store {cache} is shared by the group {cache.group()}\n"
    assert (mode_of(cache), mode_of(file)) == (0o2770, 0o660)
    done = blobflow("cache", "share", "off")
    assert done.stdout == f"the store {cache} is its owner's alone\n"
    assert (mode_of(cache), mode_of(file)) == (0o700, 0o600)


def test_a_store_can_be_shared_before_there_is_anything_in_it(home: Path) -> None:
    root = home / "a" / "b"
    blobflow("cache", "share", "on", "--group", str(os.getgid()), "--cache-dir", root)
    (blob,) = keep(root, b"one")
    assert mode_of(root / "blobs" / blob.replace(":", "/")) == 0o660


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can choose any group")
def test_a_group_without_a_name_is_told_by_its_number(cache: Path) -> None:
    done = blobflow("cache", "share", "on", "--group", "54321")
    assert done.stdout == f"the store {cache} is shared by the group 54321\n"


def test_a_group_that_is_not_there_and_one_for_off_are_refused(cache: Path) -> None:
    assert (
        "there is no group 'no-such'" in blobflow("cache", "share", "on", "--group", "no-such", code=2).stderr
    )
    assert "--group goes with on" in blobflow("cache", "share", "off", "--group", "0", code=2).stderr
    assert not cache.exists()


def test_gc_removes_the_least_recently_used_down_to_a_size(cache: Path) -> None:
    old, new = keep(cache, b"a" * 1000, b"b" * 1000)
    with closing(Store.open(cache)) as store:
        store.state.write("UPDATE blobs SET used = 5 WHERE digest = ?", old)
    assert "0 blobs removed" in blobflow("cache", "gc").stdout
    done = blobflow("cache", "gc", "--max-size", "1kB")
    assert done.stdout == "1 blob removed, 1.0 kB; 0 downloads given up, 0 B; 1.0 kB of blobs left\n"
    assert [row["digest"] for row in listed()] == [new]


def test_rm_removes_all_or_none_and_nothing_that_is_leased_or_served(cache: Path) -> None:
    free, leased = keep(cache, b"free", b"leased")
    with closing(Store.open(cache)) as store:
        (served,) = keep(cache, b"served")
        store.repositories.set_tag("repo", "1", served)
        store.leases.acquire_now(leased)
        assert "in use by a running blobflow" in blobflow("cache", "rm", free, leased, code=8).stderr
        assert "is needed by a tag" in blobflow("cache", "rm", free, served, code=8).stderr
        assert "is not in the store" in blobflow("cache", "rm", free, digest_of(b"?"), code=8).stderr
        assert "is not a digest" in blobflow("cache", "rm", free, "nonsense", code=2).stderr
        assert len(listed()) == 3
        assert {row["digest"] for row in listed() if row["kept"]} == {leased, served}
    assert "2 blobs removed, 10 B" in blobflow("cache", "rm", free, leased, free).stdout
    assert [row["digest"] for row in listed()] == [served]


def test_a_run_in_mode_auto_leaves_nothing_but_its_memory(places: tuple[str, ...], cache: Path) -> None:
    for _ in range(2):
        blobflow("sync", *places)
        assert files(cache) == []
        with closing(Store.open(cache, read_only=True)) as store:
            assert store.state.rows("SELECT * FROM leases") == []
            assert len(store.state.rows("SELECT * FROM puts")) == len(NAMES)


def test_mode_all_keeps_every_blob_and_a_named_folder_is_used(
    places: tuple[str, ...], cache: Path, home: Path
) -> None:
    blobflow("sync", *places, "--cache", "all", "--cache-dir", home / "elsewhere", "--cache-size", "1GB")
    assert {row["digest"] for row in listed("--cache-dir", home / "elsewhere")} == set(SAMPLE.blobs)
    assert not cache.exists()


def test_mode_off_leaves_no_trace(places: tuple[str, ...], cache: Path) -> None:
    blobflow("sync", *places, "--cache", "off")
    assert not cache.exists()


def test_a_run_that_would_not_fit_is_refused_before_a_byte_moves(
    places: tuple[str, ...], cache: Path, home: Path
) -> None:
    report = home / "report.json"
    small = ("--cache", "all", "--cache-size", str(BLOBS_SIZE - 1), "--report", str(report))
    done = blobflow("sync", *places, *small, code=8)
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("blobflow: to keep all blobs of this run, the store ")
    assert "raise the cache size" in sentence
    assert json.loads(report.read_bytes())["totals"]["bytes_written"] == 0
    assert files(cache) == []
    blobflow("sync", *places, "--cache", "all", "--cache-size", str(BLOBS_SIZE))
    assert len(files(cache)) == len(SAMPLE.blobs)


def test_what_is_held_needs_no_room_and_what_is_not_needed_makes_room(
    places: tuple[str, ...], cache: Path, home: Path
) -> None:
    """A full cache does not refuse the next run: the least recently used goes after it."""
    keep(cache, os.urandom(BLOBS_SIZE))
    limit = ("--cache", "all", "--cache-size", str(BLOBS_SIZE))
    blobflow("sync", *places, *limit)
    assert sum(row["size"] for row in listed()) <= BLOBS_SIZE
    with serving(home / "second") as second:
        again = [second if word == places[3] else word for word in places]
        blobflow("sync", *again, *limit)


def test_verify_tells_a_line_an_image_and_exits_with_3_if_one_is_wrong(
    places: tuple[str, ...], home: Path
) -> None:
    blobflow("sync", *places)
    done = blobflow("verify", *places, "--verify", "content")
    assert done.stdout.splitlines() == [f"right: {places[3]}/{name}" for name in NAMES]
    config = next(iter(SAMPLE.blobs))
    with closing(Store.open(home / "target")) as store:
        store.blobs.drop(Digest(config))
    assert blobflow("verify", *places, "-q").output == ""
    done = blobflow("verify", *places, "-q", "--verify", "blobs", code=3)
    wrong = done.stdout.splitlines()
    assert wrong and all(line.startswith(f"wrong: {places[3]}/") and config in line for line in wrong)
    assert done.stderr == f"blobflow: {len(wrong)} of 3 images are not what they should be\n"


def test_what_verify_found_wrong_is_repaired_by_the_next_sync(places: tuple[str, ...], home: Path) -> None:
    """Although an earlier run remembers having put it there."""
    blobflow("sync", *places)
    repository, _, tag = NAMES[0].rpartition(":")
    with closing(Store.open(home / "target")) as store:
        root = store.repositories.resolve(repository, tag)
        assert root is not None
        child = next(
            d for d, kind in store.repositories.contents(repository) if d != root and "manifest" in kind
        )
        store.repositories.remove(repository, child)
    assert "1 image" not in blobflow("verify", *places).output
    blobflow("verify", *places, "--verify", "blobs", code=3)
    blobflow("sync", *places)
    blobflow("verify", *places, "--verify", "content")


def test_a_source_that_has_gone_is_wrong_too(places: tuple[str, ...], home: Path) -> None:
    (home / "list.txt").write_text(f"{NAMES[0]}\nno/such:1")
    blobflow("sync", *places, code=3)
    done = blobflow("verify", *places, code=3)
    assert done.stdout.splitlines()[0] == f"right: {places[3]}/{NAMES[0]}"
    assert done.stdout.splitlines()[1].startswith(f"wrong: {places[3]}/no/such:1: source: ")
