"""`blobflow bundle`, and archives from standard input: what is there, what is missing, what is spoilt."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow import cli
from blobflow.cli.output.units import size_text
from tests.deadlines import HANGS_AFTER
from tests.fakes.archives import layer_of, podman_entries, tar_of, write
from tools import imageset


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing of the machine's; what is kept is the test's."""
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "TMPDIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    yield tmp_path / "home"
    asyncio.set_event_loop(None)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> imageset.Layout:
    return imageset.synthetic(tmp_path_factory.mktemp("set"), seed=1, images=3, layer_size=8_000)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.cli, list(map(str, arguments)))


def done(*arguments: str | Path) -> list[str]:
    """The lines on stdout of a command that works."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def failed(code: int, *arguments: str | Path) -> Result:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert result.stderr.splitlines()[-1].startswith("blobflow: ")
    assert "Traceback" not in result.output
    return result


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path, small_set: imageset.Layout) -> Save:
    def save(name: str, *options: str | Path, images: int = 3) -> Path:
        """A bundle of so many images of the set."""
        listed = tmp_path / f"{name}.txt"
        listed.write_text("".join(f"{image}\n" for image in [*small_set.images][:images]))
        done("save", "--from", f"oci:{small_set.path}", "--images", listed, "-o", tmp_path / name, *options)
        return tmp_path / name

    return save


def parts_of(bundle: Path) -> list[Path]:
    return sorted(bundle.parent.glob(f"{bundle.stem}.*{bundle.suffix}"))


def test_ls_tells_images_platforms_sizes_and_the_sum(save: Save, small_set: imageset.Layout) -> None:
    *images, total = done("bundle", "ls", save("b.tar"))
    assert len(images) == len(small_set.images)
    for line in images:
        name, digest, *platforms = line.split()
        assert small_set.images[name].digest == digest
        assert [each.strip(",") for each in platforms[:3]] == [
            "linux/amd64",
            "linux/arm64/v8",
            "linux/arm/v7",
        ]
        assert platforms[4] == "kB"
    assert total.startswith("3 images: ") and total.endswith(" in 1 file")


def test_ls_for_programs_has_bytes_and_all_names(save: Save, small_set: imageset.Layout) -> None:
    found = json.loads("\n".join(done("bundle", "ls", "--json", save("b.tar"))))
    assert found["version"] == 1 and found["missing"] == []
    digests = {image["digest"] for image in found["images"]}
    assert digests == {image.digest for image in small_set.images.values()}
    held = [path.stat().st_size for path in (small_set.path / "blobs").rglob("*") if path.is_file()]
    assert (found["contents"], found["bytes"]) == (len(held), sum(held))
    assert sum(image["bytes"] for image in found["images"]) > sum(held), "layers are shared"
    assert all(len(image["names"]) == 2 for image in found["images"])


def test_equal_images_are_shown_by_all_their_names(tmp_path: Path, small_set: imageset.Layout) -> None:
    first, *_ = small_set.images
    for name in ("team/one:1", "team/two:1"):
        done("copy", f"oci:{small_set.path}:{first}", f"oci:{tmp_path / 'layout'}:{name}")
    (tmp_path / "list.txt").write_text("team/one:1\nteam/two:1\n")
    bundle = tmp_path / "equal.tar"
    done("save", "--from", f"oci:{tmp_path / 'layout'}", "--images", tmp_path / "list.txt", "-o", bundle)
    *rows, total = done("bundle", "ls", bundle)
    assert [row.split()[0] for row in rows] == ["team/one:1", "team/two:1"]
    assert total.startswith("1 image under 2 names: ")
    *verdicts, total = done("bundle", "verify", bundle)
    assert verdicts == ["right: team/one:1", "right: team/two:1"]
    assert total.startswith("1 image under 2 names: ")


def test_what_was_left_out_is_told_and_not_missing(save: Save) -> None:
    bundle = save("b.tar", "--platform", "linux/arm64", images=1)
    image, _ = done("bundle", "ls", bundle)
    assert "linux/arm64/v8 (not linux/amd64, linux/arm/v7)" in image
    assert done("bundle", "verify", bundle)[0].startswith("right: ")


def test_verify_says_right_of_each_image_and_quiet_says_nothing(save: Save) -> None:
    bundle = save("b.tar")
    assert [line.split(":")[0] for line in done("bundle", "verify", bundle)[:-1]] == ["right"] * 3
    assert done("bundle", "verify", "-q", bundle) == []


def spoil(path: Path, at: float = 0.5) -> Path:
    """The same file with one bit of a blob turned over."""
    content = bytearray(path.read_bytes())
    place = content.index(b"blobs/", int(len(content) * at)) + 512 + 100
    content[place] ^= 1
    spoilt = path.with_name(f"spoilt-{path.name}")
    spoilt.write_bytes(content)
    return spoilt


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_a_turned_bit_is_found_wherever_it_is(save: Save, packed: str) -> None:
    spoilt = spoil(save("b.tar"), 0.1)
    if packed:
        spoilt = spoilt.with_name(f"{spoilt.name}.gz")
        spoilt.write_bytes(gzip.compress(spoilt.with_suffix("").read_bytes(), 1))
    told = failed(8, "bundle", "verify", spoilt)
    assert "has digest sha256:" in told.output
    assert f"blobflow: {spoilt}: damaged: " in told.stderr


def test_what_no_image_uses_is_verified_too(tmp_path: Path, save: Save) -> None:
    bundle = save("b.tar", images=1)
    stray = tmp_path / "stray.tar"
    content = b"what nobody names"
    with_stray = [(f"blobs/sha256/{'0' * 64}", content)]
    bare = bundle.read_bytes().rstrip(b"\0")
    bare += bytes(-len(bare) % 512)
    stray.write_bytes(bare + tar_of(with_stray))
    told = failed(8, "bundle", "verify", stray)
    assert "it belongs to no image" in told.stdout
    assert [line.split(":")[0] for line in told.stdout.splitlines()[:-1]] == ["right", "wrong"]


def test_parts_are_told_by_name_from_any_of_them(save: Save) -> None:
    bundle = save("b.tar", "--split-size", "40kB")
    parts = parts_of(bundle)
    for named in (bundle, parts[0], parts[2]):
        *lines, last = done("bundle", "parts", named)
        assert [line.split()[0] for line in (*lines, last)] == [str(part) for part in parts]
        assert last.endswith("names 3 images")
    assert done("bundle", "verify", parts[1]) == done("bundle", "verify", bundle)
    assert done("bundle", "ls", bundle)[-1].endswith(f"in {len(parts)} parts")


@pytest.mark.parametrize("verb", ["ls", "verify", "parts"])
def test_missing_parts_are_named(save: Save, verb: str) -> None:
    bundle = save("b.tar", "--split-size", "40kB")
    first, second, third, fourth, *_, last = parts_of(bundle)
    for part in (first, third, fourth):
        part.unlink()
    told = failed(2, "bundle", verb, second)
    assert f"parts of {bundle} are missing: {first}, {third} to {fourth}\n" in told.stderr
    last.unlink()
    told = failed(2, "bundle", verb, bundle)
    assert f"{third} to {fourth}, {last}, and what comes after it" in told.stderr
    if verb == "parts":
        lines = told.stdout.splitlines()
        assert lines[0].split() == [str(first), "missing"]
        assert lines[-1].split()[:2] == [str(last), "missing,"]
        found = json.loads(run("bundle", "parts", "--json", bundle).stdout)["bundles"][0]
        assert found["missing"][1] == {"first": str(third), "last": str(fourth)}
        assert found["last_is_missing"] is True


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("-", "standard input is one file, and has no parts"),
        ("oci-archive:b.tar", "oci-archive:b.tar is one file; for its parts give b.tar"),
    ],
)
def test_what_is_one_file_has_no_parts_to_tell_of(name: str, says: str) -> None:
    assert says in failed(2, "bundle", "parts", name).stderr


def test_a_file_with_a_year_in_its_name_is_no_part(save: Save) -> None:
    bundle = save("b.2026.tar", images=1)
    assert done("bundle", "parts", bundle) == [f"{bundle}  {size_text(bundle.stat().st_size)}  names 1 image"]


def test_a_bundle_since_another_is_whole_only_with_that(save: Save) -> None:
    april = save("april.tar", images=2)
    may = save("may.tar", "--since", april)
    told = failed(2, "bundle", "verify", may)
    assert "saved --since another give that one, too" in told.stderr
    assert told.stdout.count("wrong: ") == 3
    assert "missing" in failed(2, "bundle", "ls", may).stdout
    assert [line[:6] for line in done("bundle", "verify", may, april)[:-1]] == ["right:"] * 3


def test_archives_of_docker_are_looked_into_as_well(tmp_path: Path) -> None:
    archive = write(tmp_path / "d.tar", podman_entries({"localhost/tool:1": (layer_of("a", 5000),)}))
    image, total = done("bundle", "ls", archive)
    assert image.split()[0] == "localhost/tool:1" and "linux/amd64" in image
    assert done("bundle", "verify", archive) == ["right: localhost/tool:1", total]
    spoilt = archive.read_bytes().replace(layer_of("a", 5000)[2000:2020], bytes(20))
    (tmp_path / "e.tar").write_bytes(spoilt)
    failed(8, "bundle", "verify", tmp_path / "e.tar")


# Standard input


def piped(content: bytes, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "blobflow", *map(str, arguments)]
    return subprocess.run(command, input=content, capture_output=True, timeout=HANGS_AFTER)


def test_an_archive_may_come_through_a_pipe_or_a_redirection(tmp_path: Path, save: Save) -> None:
    bundle = save("b.tar")
    plain = bundle.read_bytes()
    told = piped(gzip.compress(plain, 1), "bundle", "verify", "-")
    assert told.stdout.decode().splitlines() == done("bundle", "verify", bundle)
    loaded = piped(plain, "load", "-", "--to", f"oci:{tmp_path}/out", "--report", f"{tmp_path}/r.json")
    assert loaded.returncode == 0, loaded.stderr
    done("load", bundle, "--to", f"oci:{tmp_path}/other", "--report", f"{tmp_path}/other.json")
    read = [json.loads((tmp_path / name).read_text())["totals"] for name in ("r.json", "other.json")]
    assert read[0]["bytes_read"] == read[1]["bytes_read"], "what was put aside counts once"
    with bundle.open("rb") as redirected:
        command = [sys.executable, "-m", "blobflow", "bundle", "ls", "-"]
        told_ls = subprocess.run(command, stdin=redirected, capture_output=True, text=True, check=True)
    assert told_ls.stdout.splitlines() == done("bundle", "ls", bundle)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == len(plain)]
    assert left == [bundle]


def test_what_can_not_be_read_from_standard_input_is_told(tmp_path: Path, save: Save) -> None:
    cut = piped(save("b.tar", images=1).read_bytes()[:5000], "bundle", "ls", "-")
    assert (cut.returncode, cut.stderr) == (
        8,
        b"blobflow: standard input is cut off: it ends at byte 5000, inside an entry\n",
    )
    since = ("save", "--from", "oci:x", "--images", f"{tmp_path}/b.tar.txt", "-o", "n.tar", "--since", "-")
    told = piped(b"", *since)
    assert told.returncode == 2 and b"say what standard input is: oci-archive:-" in told.stderr
    lists = ("load", "-", "--images", "-", "--to", f"oci:{tmp_path}/out")
    assert "an archive or the list of --images, not both" in failed(2, *lists).stderr
    master, terminal = os.openpty()
    try:
        command = [sys.executable, "-m", "blobflow", "load", "-", "--to", f"oci:{tmp_path}/out"]
        asked = subprocess.run(command, stdin=terminal, capture_output=True, timeout=HANGS_AFTER)
    finally:
        os.close(master)
        os.close(terminal)
    assert asked.returncode == 2 and b"is a terminal; pipe an archive into it" in asked.stderr


def test_a_pipe_from_which_nothing_comes_is_left_at_ctrl_c(tmp_path: Path) -> None:
    read, write_end = os.pipe()
    script = (
        "import os, signal, threading\nfrom blobflow.cli.runtime import stdin_spool\n"
        "ask = stdin_spool.select.select\n"
        "def asked(*arguments):\n"
        "    stdin_spool.select.select = ask\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return ask(*arguments)\n"
        "stdin_spool.select.select = asked\n"
        f"from blobflow.cli import cli\ncli(['load', '-', '--to', 'oci:{tmp_path}/out'])"
    )
    try:
        told = subprocess.run(
            [sys.executable, "-c", script], stdin=read, capture_output=True, timeout=HANGS_AFTER
        )
    finally:
        os.close(read)
        os.close(write_end)
    assert (told.returncode, told.stderr) == (130, b"blobflow: interrupted\n")


@pytest.mark.parametrize("verb", ["ls", "verify"])
@pytest.mark.parametrize("files", [("-", "-"), ("-", "oci-archive:-"), ("docker-archive:-", "oci-archive:-")])
def test_standard_input_that_is_given_twice_is_told(verb: str, files: tuple[str, str]) -> None:
    result = CliRunner().invoke(cli.cli, ["bundle", verb, *files])
    assert result.exit_code == 2
    assert result.stderr == "blobflow: standard input is given twice, and can be read once\n"
