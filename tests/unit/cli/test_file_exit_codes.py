"""Files have the same exit codes for every verb: 2 for one that is missing, 7 for one of another kind, 8 for
one that is damaged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from blobflow import cli
from blobflow.cli.exit_codes import error_of_set
from blobflow.errors import NoSuchFile, NotFound, RunIncomplete
from tools import imageset

MISSING, FOREIGN, DAMAGED = 2, 7, 8
# What takes an archive, a layout or a plan, with FILE where that is, LIST for a list of images, and AWAY for
# a place to write to.
ARCHIVES = {
    "load": "load FILE --to AWAY",
    "load, said to be OCI's": "load oci-archive:FILE --to AWAY",
    "load, said to be docker's": "load docker-archive:FILE --to AWAY",
    "copy": "copy oci-archive:FILE:NAME AWAY:x",
    "copy of docker's": "copy docker-archive:FILE AWAY:x",
    "inspect": "inspect oci-archive:FILE:NAME",
    "export": "export oci-archive:FILE:NAME --output type=local,dest=DIR/tree",
    "index": "index create 127.0.0.1:1/a:1 oci-archive:FILE:NAME",
    "sync": "sync --from oci-archive:FILE --to AWAY --images LIST",
    "sync of a spec": "sync SPEC",
    "plan": "plan --from oci-archive:FILE --to AWAY --images LIST",
    "verify of what came from it": "verify --from oci-archive:FILE --to AWAY --images LIST",
    "verify of what is in it": "verify --from oci:SET --to oci-archive:FILE --images LIST",
    "save --since": "save --from oci:SET --images LIST -o DIR/new.tar --since FILE",
    "save from it": "save --from oci-archive:FILE --images LIST -o DIR/new.tar",
    "bundle ls": "bundle ls FILE",
    "bundle verify": "bundle verify FILE",
    "bundle parts": "bundle parts FILE",
}
PLANS = {"apply": "apply FILE", "apply --dry-run": "apply --dry-run FILE"}
REPORTS = {
    "show": "report show FILE",
    "html": "report html FILE",
    "junit": "report junit FILE -o DIR/run.xml",
    "diff": "report diff DIR/whole.report FILE",
}
LAYOUTS = {
    "copy": "copy oci:FILE:NAME AWAY:x",
    "inspect": "inspect oci:FILE:NAME",
    "sync": "sync --from oci:FILE --to AWAY --images LIST",
    "verify": "verify --from oci:FILE --to AWAY --images LIST",
}
WRITTEN_BY_PEOPLE = {
    "sync": "sync FILE",
    "plan": "plan FILE",
    "sync --images": "sync --from oci:SET --to AWAY --images FILE",
    "--config": "inspect --config FILE oci:SET:NAME",
}


class Files(NamedTuple):
    """A folder with a set, a list and a spec; and of each kind what was cut."""

    folder: Path
    name: str

    def run(self, command: str, file: Path) -> tuple[int, str]:
        """The exit code, and all that was printed."""
        (self.folder / "spec.yaml").write_text(
            "version: 1\n"
            f"defaults: {{source: 'oci-archive:{file}', targets: ['oci:{self.folder}/away']}}\n"
            f"images: ['{self.name}']\n"
        )
        words = {
            "FILE": str(file),
            "LIST": f"{self.folder}/list.txt",
            "SPEC": f"{self.folder}/spec.yaml",
            "AWAY": f"oci:{self.folder}/away",
            "SET": f"{self.folder}/set",
            "DIR": str(self.folder),
            "NAME": self.name,
        }
        for word, value in words.items():
            command = command.replace(word, value)
        result = CliRunner().invoke(cli.cli, command.split(), env={"HOME": str(self.folder)})
        asyncio.set_event_loop(None)
        return result.exit_code, result.output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    folder = tmp_path_factory.mktemp("files")
    made = imageset.synthetic(folder / "set", seed=1, images=1, layer_size=4000)
    (name,) = made.images
    (folder / "list.txt").write_text(f"{name}\n")
    files = Files(folder, name)
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
            patch.setenv(variable, str(folder / "home"))
        save = "save --from oci:SET --images LIST -o FILE"
        plan = "plan --from oci:SET --to AWAY --images LIST --out FILE"
        run = "sync --from oci:SET --to oci:DIR/there --images LIST --report FILE"
        for command, whole, kind in (
            (save, "whole.tar", "cut.tar"),
            (plan, "whole.plan", "cut.plan"),
            (run, "whole.report", "cut.report"),
        ):
            assert files.run(command, folder / whole)[0] == 0
            content = (folder / whole).read_bytes()
            (folder / kind).write_bytes(content[: len(content) // 2])
        (folder / "foreign").write_text("A letter, and nothing else.\n" * 40)
        (folder / "foreign.d").mkdir()
        (folder / "foreign.d" / "letter.txt").write_text("nothing else")
        yield files


def check(files: Files, command: str, file: str, code: int) -> None:
    found, told = files.run(command, files.folder / file)
    assert found == code, told
    errors = [line for line in told.splitlines() if line.startswith("blobflow: ")]
    assert errors and file in errors[0] and "Traceback" not in told


@pytest.mark.parametrize(
    ("file", "code"),
    [("missing.tar", MISSING), ("foreign", FOREIGN), ("foreign.d", FOREIGN), ("cut.tar", DAMAGED)],
)
@pytest.mark.parametrize("command", ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive(files: Files, command: str, file: str, code: int) -> None:
    check(files, command, file, code)


@pytest.mark.parametrize(
    ("file", "code"), [("missing.plan", MISSING), ("foreign", FOREIGN), ("cut.plan", DAMAGED)]
)
@pytest.mark.parametrize("command", PLANS.values(), ids=PLANS)
def test_a_plan(files: Files, command: str, file: str, code: int) -> None:
    check(files, command, file, code)


@pytest.mark.parametrize(
    ("file", "code"),
    [("missing.json", MISSING), ("foreign", FOREIGN), ("whole.plan", FOREIGN), ("cut.report", DAMAGED)],
)
@pytest.mark.parametrize("command", REPORTS.values(), ids=REPORTS)
def test_a_report(files: Files, command: str, file: str, code: int) -> None:
    check(files, command, file, code)


@pytest.mark.parametrize(
    ("file", "code"), [("missing", MISSING), ("foreign", FOREIGN), ("foreign.d", FOREIGN)]
)
@pytest.mark.parametrize("command", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout(files: Files, command: str, file: str, code: int) -> None:
    check(files, command, file, code)


@pytest.mark.parametrize("file", ["missing.yaml", "foreign"])
@pytest.mark.parametrize("command", WRITTEN_BY_PEOPLE.values(), ids=WRITTEN_BY_PEOPLE)
def test_what_people_write_is_wrong_usage_whatever_is_wrong_with_it(
    files: Files, command: str, file: str
) -> None:
    check(files, command, file, 2)


def test_a_set_ends_with_the_code_of_a_file_only_if_nothing_but_that_is_wrong() -> None:
    gone, other = NoSuchFile("there is no archive a"), NoSuchFile("there is no archive b")
    gone.about_file = other.about_file = True
    assert error_of_set([gone, gone], 2, "2 failed") is gone
    for errors, images in (([gone], 2), ([gone, other], 2), ([gone, NotFound("no tag x")], 2), ([], 0)):
        assert isinstance(error_of_set(errors, images, "some failed"), RunIncomplete)
