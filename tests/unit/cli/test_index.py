"""`blobflow index` at the door: what it is given, and one sentence for what can't be done with it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from blobflow.cli import cli
from blobflow.cli.index_drafts import open_index_drafts
from blobflow.oci import Descriptor, Platform, digest_of, media, parse_reference
from blobflow.oci.index_draft import DraftImage, IndexDraft

TARGET, IMAGE = "127.0.0.1:1/app:1", "127.0.0.1:1/app:1-amd64"
DIGEST = digest_of(b"image")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def staged() -> None:
    """TARGET, of one image whose config says linux/arm."""
    image = DraftImage(
        parse_reference(IMAGE), Descriptor(media.OCI_MANIFEST, DIGEST, 5), Platform("arm", "linux")
    )
    staging = open_index_drafts()
    with staging.changing():
        staging.keep(IndexDraft(parse_reference(TARGET), (image,)))


def index(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, ["index", *words])
    assert done.exit_code == code, done.output
    return done


def member() -> DraftImage:
    return open_index_drafts().get(parse_reference(TARGET)).members[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "give TARGET and REFs, or --from-spec FILE, or --from-args, and only one of these"),
        ((TARGET, IMAGE, "--from-args"), "and only one of these"),
        ((TARGET, IMAGE, "--from-spec", "x.yml"), "and only one of these"),
        ((TARGET,), f"{TARGET} is to be an index of which images? Name at least one REF after it"),
        ((TARGET, IMAGE, "--template", "x"), "--platforms, --template and --target go with --from-args"),
        (("--from-args",), "--from-args needs --platforms, --template, --target as well"),
        (("--from-args", "--platforms", "linux/arm"), "--from-args needs --template, --target as well"),
        ((f"{TARGET}@{DIGEST}", IMAGE), "has a digest, which an index has only when it is made; give a tag"),
        ((TARGET, IMAGE, TARGET), f"{TARGET} can't contain itself"),
        ((TARGET, "127.0.0.1:1/App"), "'127.0.0.1:1/App' is not a reference"),
        ((TARGET, IMAGE, "--tags", "a,b c"), "--tags: 'b c' is not a reference: bad tag"),
        (("--from-spec", "x.yml"), "can't read x.yml"),
    ],
)
def test_what_can_not_be_created_is_told_before_anything_is_asked(
    words: tuple[str, ...], sentence: str
) -> None:
    done = index("create", *words, code=2)
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert open_index_drafts().targets() == []


@pytest.mark.usefixtures("staged")
def test_a_staged_index_is_not_created_over(tmp_path: Path) -> None:
    done = index("create", TARGET, IMAGE, code=2)
    assert f"{TARGET} is staged already; --amend adds to it, `blobflow index rm` drops it" in done.stderr
    assert index("create", TARGET, "oci:gone:1", "--amend", code=2).stderr.startswith("blobflow: source: ")
    assert member().descriptor.digest == DIGEST, "an amendment that fails changes nothing"


@pytest.mark.usefixtures("staged")
def test_what_is_said_of_an_image_adds_up() -> None:
    index("annotate", TARGET, IMAGE, "--variant", "v6", "--annotation", "a=1", "--os-features", "x,y")
    index("annotate", TARGET, f"127.0.0.1:1/app@{DIGEST}", "--arch", "ARM", "--annotation", "b=2=3")
    assert member().platform == Platform("arm", "linux", "v6", os_features=("x", "y"))
    assert member().annotations == {"a": "1", "b": "2=3"}


@pytest.mark.usefixtures("staged")
def test_what_contradicts_the_config_is_refused_unless_forced() -> None:
    done = index("annotate", TARGET, IMAGE, "--arch", "arm64", code=2)
    assert f"{IMAGE} is labelled linux/arm64, but its config says linux/arm; " in done.stderr
    assert str(member().platform) == "linux/arm"
    index("annotate", TARGET, IMAGE, "--arch", "arm64", "--force")
    assert str(member().platform) == "linux/arm64"


@pytest.mark.usefixtures("staged")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((TARGET, IMAGE), "nothing is said of it; give --os, --arch"),
        ((TARGET, IMAGE, "--annotation", "a"), "--annotation 'a' is not KEY=VALUE"),
        ((TARGET, IMAGE, "--annotation", "=a"), "--annotation '=a' is not KEY=VALUE"),
        ((TARGET, IMAGE, "--arch", "a/b/c"), "'linux/a/b/c' is not a platform"),
        ((TARGET, "127.0.0.1:1/app:2", "--os", "linux"), f"has no image 127.0.0.1:1/app:2; it has {IMAGE}"),
        (("127.0.0.1:1/other", IMAGE, "--os", "linux"), f"other:latest is not staged ({TARGET} is)"),
    ],
)
def test_what_can_not_be_annotated_is_told(words: tuple[str, ...], sentence: str) -> None:
    before = member()
    assert sentence in index("annotate", *words, code=2).stderr
    assert member() == before


@pytest.mark.usefixtures("staged")
def test_what_is_staged_is_shown() -> None:
    index("annotate", TARGET, IMAGE, "--variant", "v6")
    lines = index("inspect", TARGET).stdout.splitlines()
    assert lines[0].split() == ["name", TARGET]
    assert [line.split() for line in lines[3:]] == [
        ["digest", DIGEST],
        ["size", "5", "B"],
        ["platform", "linux/arm/v6"],
        ["its", "config", "linux/arm"],
    ]
    assert (
        index("inspect", TARGET, "--raw").stdout
        == open_index_drafts().get(parse_reference(TARGET)).index().raw.decode()
    )
    assert "exclude each other" in index("inspect", TARGET, "--raw", "--json", code=2).stderr


@pytest.mark.usefixtures("staged")
def test_what_is_dropped_is_gone_and_what_was_not_there_is_told() -> None:
    done = index("rm", "127.0.0.1:1/other", TARGET, code=2)
    assert "127.0.0.1:1/other:latest: not staged, so there was nothing to drop" in done.stderr
    assert "is not staged (nothing is)" in index("push", TARGET, code=2).stderr


@pytest.mark.usefixtures("staged")
def test_a_push_that_fails_keeps_what_is_staged() -> None:
    target, staging = parse_reference("oci:out:1"), open_index_drafts()
    gone = msgspec.structs.replace(member(), image=parse_reference("oci:gone:1"))
    with staging.changing():
        staging.keep(IndexDraft(target, (gone,)))
    done = index("push", "oci:out:1", "--purge", code=5)
    assert done.stderr.splitlines()[-1].startswith("blobflow: source: ")
    assert staging.get(target).members == (gone,)
