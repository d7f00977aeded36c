"""`blobflow rewrite`: where the result goes, which mirror is meant, and what is said of what stays."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from blobflow import mirror_places
from blobflow.cli import cli
from blobflow.cli.inputs.expansion import expand
from blobflow.cli.inputs.lock_file import LockedImage, lock_lines, make_lock
from blobflow.cli.inputs.mirror_place import places_below, read_places
from blobflow.cli.inputs.requests import parse_registry_prefix
from blobflow.cli.inputs.selection import read_request
from blobflow.cli.options.images import SelectionOptions
from blobflow.cli.runtime.files import StagedFiles
from blobflow.errors import UsageError
from blobflow.oci import parse_reference

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
MIRROR = "m.example/hub"
POD = """\
# Two of them.
apiVersion: v1
kind: Pod
spec:
  containers:
  - {name: a, image: "nginx:1.29"}   # the web
  - name: b
    image: quay.io/org/app:2
"""
MIRRORED = POD.replace("nginx:1.29", f"{MIRROR}/library/nginx:1.29").replace("quay.io", MIRROR)
COMPOSE = "services: {a: {image: redis}, b: {image: '${B}'}, c: {image: '${H:-quay.io}/c:1'}}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "k8s" / "web").mkdir(parents=True)
    (tmp_path / "k8s" / "web" / "pod.yaml").write_text(POD)
    (tmp_path / "k8s" / "none.yaml").write_text("apiVersion: v1\nkind: ConfigMap\ndata: {a: b}\n")
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    yield tmp_path
    asyncio.set_event_loop(None)


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["rewrite", *arguments], input=stdin)


def done(*arguments: str, stdin: str | None = None) -> Result:
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


# Where it goes


def test_one_file_is_printed_as_it_is_but_for_its_images() -> None:
    result = done("k8s/web/pod.yaml", "--to", MIRROR)
    assert result.stdout == MIRRORED
    assert result.stderr == "2 images replaced in 1 of 1 file\n"
    assert done("-", "--to", MIRROR, "-q", stdin=POD).output == MIRRORED


def test_what_is_in_the_mirror_stays() -> None:
    result = done("-", "--to", MIRROR, stdin=MIRRORED)
    assert result.stdout == MIRRORED
    assert result.stderr == "0 images replaced in 0 of 1 file\n"


def test_files_of_yaml_are_printed_as_documents(folder: Path) -> None:
    (folder / "k8s" / "none.yaml").write_text("a: 1")
    result = done("k8s", "--to", MIRROR)
    assert result.stdout == f"a: 1\n---\n{MIRRORED}"
    assert len(list(yaml.safe_load_all(result.stdout))) == 2


def test_other_files_are_not_mixed(folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM nginx:1\n")
    result = run("Dockerfile", "k8s", "--to", MIRROR)
    assert result.exit_code == 2
    assert "Dockerfile can't be printed among other files" in result.stderr


def test_files_are_replaced_in_place_with_their_modes_and_links(folder: Path) -> None:
    pod, link = folder / "k8s" / "web" / "pod.yaml", folder / "link.yaml"
    pod.chmod(0o640)
    link.symlink_to(pod)
    untouched = (folder / "k8s" / "none.yaml").stat()
    assert done("k8s", "link.yaml", "--to", MIRROR, "-i").stdout == ""
    assert pod.read_text() == MIRRORED
    assert stat.S_IMODE(pod.stat().st_mode) == 0o640
    assert link.is_symlink()
    now = (folder / "k8s" / "none.yaml").stat()
    assert (now.st_ino, now.st_mtime_ns) == (untouched.st_ino, untouched.st_mtime_ns)


def test_files_are_written_below_a_folder_as_they_are_in_theirs(folder: Path) -> None:
    result = run("k8s", "compose.yaml", "--to", MIRROR, "-o", "out")
    assert result.stdout == ""
    assert (folder / "out" / "web" / "pod.yaml").read_text() == MIRRORED
    assert (folder / "out" / "none.yaml").read_text() == (folder / "k8s" / "none.yaml").read_text()
    assert f"image: {MIRROR}/library/redis" in (folder / "out" / "compose.yaml").read_text()
    assert (folder / "k8s" / "web" / "pod.yaml").read_text() == POD


def test_two_files_never_become_one(folder: Path) -> None:
    (folder / "web").mkdir()
    (folder / "web" / "pod.yaml").write_text(POD)
    result = run("k8s/web/pod.yaml", "web/pod.yaml", "--to", MIRROR, "-o", "out")
    assert result.exit_code == 2
    assert "would both be out/pod.yaml" in result.stderr
    assert not (folder / "out").exists()
    over = run("compose.yaml", "--to", MIRROR, "-o", ".")
    assert (over.exit_code, (folder / "compose.yaml").read_text()) == (2, COMPOSE)


# In place, when something comes between


def test_a_pipe_is_read_once_and_printed() -> None:
    """As `<(helm template chart)` is one."""
    read, write = os.pipe()
    os.write(write, POD.encode())
    os.close(write)
    try:
        result = done(f"/dev/fd/{read}", "--to", MIRROR)
    finally:
        os.close(read)
    assert result.stdout == MIRRORED


def test_streams_are_one_and_are_not_replaced(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert "- and pipe are both streams" in run("-", "pipe", "--to", MIRROR, stdin=POD).stderr
    assert "what comes from stdin goes to stdout" in run("pipe", "--to", MIRROR, "-i").stderr


def test_a_full_disk_leaves_all_files_as_they_were(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "k8s" / "zoo.yaml").write_text(POD)
    before = files_of(folder)
    written: list[int] = []
    change_mode = os.fchmod

    def full(handle: int, mode: int) -> None:
        if written:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(handle)
        change_mode(handle, mode)

    monkeypatch.setattr(os, "fchmod", full)
    result = run("k8s", "--to", MIRROR, "-i")
    assert (result.exit_code, files_of(folder)) == (8, before)
    assert "blobflow: can't write" in result.stderr and "the disk is full" in result.stderr
    written.clear()
    assert run("k8s", "--to", MIRROR, "-o", "out").exit_code == 8
    assert files_of(folder) == before


def test_a_file_that_may_not_be_written_leaves_all_as_they_were(folder: Path) -> None:
    (folder / "k8s" / "zoo.yaml").write_text(POD)
    (folder / "k8s" / "zoo.yaml").chmod(0o444)
    before = files_of(folder)
    result = run("k8s", "--to", MIRROR, "-i")
    assert (result.exit_code, files_of(folder)) == (8, before)
    assert "zoo.yaml is read-only; make it writable, or write elsewhere" in result.stderr


def test_other_names_of_a_file_keep_what_they_had_and_are_told_of(folder: Path) -> None:
    other = folder / "other.yaml"
    other.hardlink_to(folder / "k8s" / "web" / "pod.yaml")
    result = done("k8s", "--to", MIRROR, "-i")
    assert "warning: k8s/web/pod.yaml has further names (hard links), which keep" in result.stderr
    assert (other.read_text(), (folder / "k8s" / "web" / "pod.yaml").read_text()) == (POD, MIRRORED)


def test_a_file_named_twice_is_replaced_once(folder: Path) -> None:
    (folder / "k8s" / "same.yaml").symlink_to("web/pod.yaml")
    done("k8s", "k8s/web/pod.yaml", "--to", MIRROR, "-i")
    assert (folder / "k8s" / "web" / "pod.yaml").read_text() == MIRRORED


@pytest.mark.parametrize("theirs", ["theirs: 1\n", None])
def test_what_somebody_changed_meanwhile_is_his(
    folder: Path, monkeypatch: pytest.MonkeyPatch, theirs: str | None
) -> None:
    pod, zoo = folder / "k8s" / "web" / "pod.yaml", folder / "k8s" / "zoo.yaml"
    zoo.write_text(POD)
    add = StagedFiles.add

    def change(*arguments: Any, **named: Any) -> None:
        add(*arguments, **named)
        pod.unlink(missing_ok=True)
        if theirs is not None:
            pod.write_text(theirs)

    monkeypatch.setattr(StagedFiles, "add", change)
    if theirs is None:
        zoo.unlink()  # a file that is away can't be looked at, if it is not the last one
        zoo = folder / "compose.yaml"
    result = run("k8s", "--to", MIRROR, "-i")
    assert result.exit_code == 3
    assert "left: k8s/web/pod.yaml was changed by somebody" in result.stderr
    assert result.stderr.endswith("1 file changed meanwhile, and stays as it is\n")
    assert (pod.read_text() if pod.exists() else None) == theirs
    assert zoo.read_text() in (MIRRORED, COMPOSE)
    assert not [name for name in files_of(folder) if ".blobflow" in name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_each_file_as_it_was_or_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    for name in "bcd":
        (folder / "k8s" / f"{name}.yaml").write_text(POD)
    place, placed = StagedFiles.place, []

    def interrupted(staged: StagedFiles, path: Path) -> None:
        place(staged, path)
        placed.append(path)
        if len(placed) == 2:
            signal.raise_signal(number)

    monkeypatch.setattr(StagedFiles, "place", interrupted)
    before = signal.getsignal(number)
    result = run("k8s", "--to", MIRROR, "-i")
    assert (result.exit_code, signal.getsignal(number)) == (130, before)
    texts = [text for name, text in files_of(folder).items() if name.startswith("k8s/")]
    assert sorted(map(texts.count, (MIRRORED, POD))) == [2, 2] and len(texts) == 5
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    done("k8s", "--to", MIRROR, "-i")
    assert list(files_of(folder).values()).count(MIRRORED) == 4


def files_of(folder: Path) -> dict[str, str]:
    """What stands in all files below a folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_script_that_can_be_run_can_be_afterwards(folder: Path) -> None:
    (folder / "k8s" / "up.sh").write_text("docker run nginx:1\n")
    (folder / "k8s" / "up.sh").chmod(0o750)
    done("k8s", "--to", MIRROR, "-o", "out")
    assert stat.S_IMODE((folder / "out" / "up.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "out" / "none.yaml").stat().st_mode) == 0o644


# What stays


def test_what_can_not_be_replaced_is_told_and_ends_with_3() -> None:
    result = run("compose.yaml", "--to", MIRROR)
    assert result.exit_code == 3
    assert f"a: {{image: {MIRROR}/library/redis}}" in result.stdout
    assert "'${B}'" in result.stdout
    said = result.stderr.splitlines()
    assert said[1].startswith("warning: compose.yaml line 1: '${B}' (compose image) can't be told")
    assert said[2] == "left: compose.yaml line 1: ${H:-quay.io}/c:1 is put together from variables"
    assert said[3] == "blobflow: 1 of 2 images stay as they are"


def test_what_can_not_be_told_is_an_error_if_that_is_wanted(folder: Path) -> None:
    (folder / "compose.yaml").write_text("services: {a: {image: redis}, b: {image: '${B}'}}\n")
    assert run("compose.yaml", "--to", MIRROR).exit_code == 0
    assert run("compose.yaml", "--to", MIRROR, "--strict").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("k8s",), "say where the images are now: --to HOST[/prefix], or --spec SPEC"),
        (("k8s", "--to", MIRROR, "-i", "-o", "out"), "choose one"),
        (("-", "--to", MIRROR, "-i"), "what comes from stdin goes to stdout"),
        (("nowhere", "--to", MIRROR), "there is no file or folder nowhere"),
        (("k8s", "--to", "oci:here"), "oci:here is no registry"),
        (("k8s", "--to", MIRROR, "--lock", "compose.yaml"), "compose.yaml is no lock file"),
        (("k8s", "--spec", "spec.yaml"), "spec.yaml"),
    ],
)
def test_what_can_not_be_asked_for_is_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr.splitlines()[-1]


# Digests


def lock(folder: Path, *images: tuple[str, str]) -> None:
    made = make_lock(LockedImage(name, digest) for name, digest in images)
    (folder / "images.lock").write_text("\n".join(lock_lines(made)))


def test_digests_of_a_lock_file_are_written_also_into_what_is_rewritten(folder: Path) -> None:
    lock(folder, ("docker.io/library/nginx:1.29", A), ("quay.io/org/app:2", B))
    by_digest = MIRRORED.replace("nginx:1.29", f"nginx:1.29@{A}").replace("app:2", f"app:2@{B}")
    for text in (POD, MIRRORED, by_digest):
        assert done("-", "--to", MIRROR, "--lock", "images.lock", stdin=text).stdout == by_digest


def test_an_image_that_is_not_locked_is_left(folder: Path) -> None:
    lock(folder, ("docker.io/library/nginx:1.29", A))
    result = run("k8s/web/pod.yaml", "--to", MIRROR, "--lock", "images.lock")
    assert result.exit_code == 3
    assert "left: k8s/web/pod.yaml line 8: quay.io/org/app:2 is not in images.lock" in result.stderr
    assert "image: quay.io/org/app:2\n" in result.stdout


def test_images_that_have_one_place_are_told(folder: Path) -> None:
    (folder / "list.txt").write_text("quay.io/a/b:1\nghcr.io/a/b:1\nghcr.io/a/b:2\nm.example/hub/a/b:2\n")
    result = done("list.txt", "--to", MIRROR)
    assert result.stderr.splitlines()[1:] == [
        "warning: m.example/hub/a/b:1 is the place of ghcr.io/a/b:1 and of quay.io/a/b:1; a spec can give one"
        " another name"
    ]
    lock(folder, ("quay.io/a/b:1", A), ("ghcr.io/a/b:1", B), ("ghcr.io/a/b:2", B))
    locked = run("list.txt", "--to", MIRROR, "--lock", "images.lock")
    assert locked.exit_code == 3
    assert locked.stderr.count("has several digests in images.lock") == 2


# Kustomize


def test_a_list_for_kustomize_names_each_image_once(folder: Path) -> None:
    (folder / "k8s" / "more.yaml").write_text(POD)
    assert yaml.safe_load(done("k8s", "--to", MIRROR, "--kustomize").stdout) == {
        "images": [
            {"name": "nginx", "newName": f"{MIRROR}/library/nginx"},
            {"name": "quay.io/org/app", "newName": f"{MIRROR}/org/app"},
        ]
    }
    lock(folder, ("docker.io/library/nginx:1.29", A), ("quay.io/org/app:2", B))
    (entry, _) = yaml.safe_load(done("k8s", "--to", MIRROR, "--kustomize", "--lock", "images.lock").stdout)[
        "images"
    ]
    assert entry == {"name": "nginx", "newName": f"{MIRROR}/library/nginx", "digest": A}


def test_an_image_that_needs_an_entry_of_its_own_is_told(folder: Path) -> None:
    (folder / "k8s" / "more.yaml").write_text(POD.replace("nginx:1.29", "nginx:1.30"))
    lock(
        folder,
        ("docker.io/library/nginx:1.29", A),
        ("docker.io/library/nginx:1.30", B),
        ("quay.io/org/app:2", B),
    )
    result = run("k8s", "--to", MIRROR, "--kustomize", "--lock", "images.lock")
    assert result.exit_code == 3
    assert "needs another entry for nginx" in result.stderr


# Mirrors


def spec(folder: Path, text: str) -> Path:
    (folder / "spec.yaml").write_text(text)
    return Path("spec.yaml")


SPEC = """\
version: 1
defaults: {targets: [m.example/hub, n.example]}
images:
- {image: nginx, tags: ['1.29', '1.30'], target: web/nginx}
- {image: quay.io/org/app, tags: {semver: '>=2'}, rename: {tag: 'v{tag}', repository: 'apps/{name}'}}
- a/b:1
"""


def test_a_spec_says_where_its_images_are_renamed_ones_too(folder: Path) -> None:
    file = spec(folder, SPEC)
    result = done("k8s/web/pod.yaml", "--spec", "spec.yaml", "--to", "n.example")
    assert 'image: "n.example/web/nginx:1.29"' in result.stdout
    assert "image: n.example/apps/app:v2\n" in result.stdout
    place_of = read_places(file, parse_registry_prefix("m.example/hub"))
    asked = read_request(SelectionOptions(spec=file))
    exact = tuple(image for image in asked.images if image.search is None)
    for pair in expand(msgspec.structs.replace(asked, images=exact), {}).pairs:
        if pair.target.host == "m.example":
            assert place_of(pair.source) == pair.target
    assert str(place_of(parse_reference(f"nginx@{A}"))) == f"m.example/hub/web/nginx@{A}"
    assert str(place_of(parse_reference(f"nginx:1.30@{A}"))) == f"m.example/hub/web/nginx:1.30@{A}"
    for name in ("nginx:1.31", "quay.io/org/app:1", "a/c:1", "quay.io/a/b:1"):
        with pytest.raises(UsageError, match=r"is not among the images of spec\.yaml"):
            place_of(parse_reference(name))


@pytest.mark.parametrize(
    ("text", "mirror", "sentence"),
    [
        (SPEC, None, r"several targets; say with --to which is meant: m\.example/hub, n\.example"),
        (SPEC, "o.example", r"o\.example is no target of spec\.yaml"),
        ("version: 1\nimages: [a/b:1]\n", None, "has no target"),
    ],
)
def test_the_mirror_has_to_be_one_of_the_spec(
    folder: Path, text: str, mirror: str | None, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        read_places(spec(folder, text), parse_registry_prefix(mirror) if mirror else None)


def test_other_tools_specs_say_it_too(folder: Path) -> None:
    skopeo = spec(folder, "quay.io:\n  images:\n    org/app: ['2']\n")
    assert str(read_places(skopeo, parse_registry_prefix(MIRROR))(parse_reference("quay.io/org/app:2"))) == (
        f"{MIRROR}/app:2"
    )
    regsync = spec(
        folder,
        "version: 1\nsync:\n- {source: nginx:1.29, target: 'm.example/x:1.29', type: image}\n",
    )
    assert str(read_places(regsync, None)(parse_reference("nginx:1.29"))) == "m.example/x:1.29"


def test_places_are_those_that_sync_brings_images_to(folder: Path) -> None:
    names = [
        "nginx",
        "a/b:1",
        f"quay.io/c/d:2@{A}",
        f"quay.io/c/d@{B}",
        "localhost:5000/x:1",
        "ghcr.io/e/f/g:h",
    ]
    (folder / "list.txt").write_text("\n".join(names))
    for mirror in ("m.example", "m.example:5000/a/b"):
        place_of = places_below(parse_registry_prefix(mirror))
        selection = SelectionOptions(images_from=("list.txt",), targets=(mirror,))
        for pair in expand(read_request(selection), {}).pairs:
            place = place_of(pair.source)
            assert (place.host, place.repository, place.tag) == (
                pair.target.host,
                pair.target.repository,
                pair.target.tag,
            )
            assert place.digest == pair.source.digest
            assert mirror_places.places_below(mirror).place_of(pair.source) == place


def test_from_says_which_part_of_a_registry_is_mirrored(folder: Path) -> None:
    result = run("k8s/web/pod.yaml", "--from", "quay.io/org", "--to", MIRROR)
    assert result.exit_code == 3
    assert f"image: {MIRROR}/app:2\n" in result.stdout
    assert "nginx:1.29 is not of quay.io/org, as --from says" in result.stderr
