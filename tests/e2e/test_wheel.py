"""The wheel, and what is installed from it: nothing of the checkout is imported, and all that people get is
there.

The dependencies of the checkout's own environment serve the wheel, too, so that this needs no network. Every
other Python that is here has its own, which are kept for the next time; pipx and uv install them anew, by
name (`-m clients`).
"""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.deadlines import HANGS_AFTER
from tests.e2e.kept import claimed, kept_folder
from tools.checkout import TOP
from tools.manpages import pages

# What a wheel is made of; a clean folder, so that nothing else gets in and nothing is left in the checkout.
PARTS = ("blobflow", "tools", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))


def other_pythons() -> dict[str, Path]:
    """The interpreters here of every other version that blobflow runs on, by it. pyenv's shims are none."""
    found: dict[str, Path] = {}
    for minor in {*range(11, 20)} - {sys.version_info.minor}:
        name = f"python3.{minor}"
        beside = [*PYENV.glob(f"versions/3.{minor}.*/bin/{name}")]
        on_path = [Path(shutil.which(name, path=folder) or "") for folder in os.get_exec_path()]
        for path in (*(each for each in on_path if each.name and PYENV not in each.parents), *beside):
            found.setdefault(name, path)
    return found


# What runs these tests is the oldest here; the newest is tried always, and those between by name.
OTHER_PYTHONS = [
    pytest.param(path, id=name, marks=[] if last else [pytest.mark.clients])
    for number, (name, path) in enumerate(sorted(other_pythons().items()), start=1)
    for last in [number == len(other_pythons())]
]


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, code: int = 0
) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=None if env is None else {**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once, by what the checkout's environment has."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for part in PARTS:
        if (TOP / part).is_dir():
            shutil.copytree(TOP / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(TOP / part, source / part)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder, source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment with the wheel in it, and the dependencies of this one behind it."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    run(*pip_for(folder), "install", "--quiet", "--no-deps", "--no-index", wheel)
    site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    # A plain path: the .pth files there, one of which leads to the checkout, are not read.
    (Path(site) / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder


def test_its_metadata_says_what_indexes_and_installers_ask_for(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
        about = next(name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(opened.read(about))
        licence = opened.read(about.replace("METADATA", "licenses/LICENSE"))
    assert wheel.name == f"blobflow-{metadata['Version']}-py3-none-any.whl"
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["License-File"] == "LICENSE"
    assert licence == (TOP / "LICENSE").read_bytes() and b"Version 2.0, January 2004" in licence
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True) == (TOP / "README.md").read_bytes()
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])
    assert "blobflow/py.typed" in names
    packages = {name.split("/")[0] for name in names}
    assert {each.partition("-")[0] for each in packages} == {"blobflow"}, "no tests, no tools"


def test_all_modules_are_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        there = {name for name in opened.namelist() if name.endswith(".py")}
    assert there == {str(path.relative_to(TOP)) for path in (TOP / "blobflow").rglob("*.py")}


def test_it_brings_the_man_pages(installed: Path) -> None:
    man = installed / "share" / "man"
    assert {path.name for path in man.rglob("*.[17]")} == pages().keys()
    assert (
        (man / "man1" / "blobflow-bundle-verify.1")
        .read_text()
        .startswith('.TH "BLOBFLOW\\-BUNDLE\\-VERIFY" 1')
    )


def test_what_is_installed_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "PYTHONPATH": ""}
    python = installed / "bin" / "python"
    where = "import blobflow; print(blobflow.__file__); print(blobflow.Client, blobflow.Settings)"
    assert run(python, "-c", where, cwd=tmp_path, env=home).startswith(f"{installed}/lib")
    blobflow = installed / "bin" / "blobflow"
    assert run(blobflow, "--version", cwd=tmp_path, env=home) == "blobflow 0.1.0\n"
    assert "all done" in run(blobflow, "help", "exit-codes", cwd=tmp_path, env=home)
    run(blobflow, "demo", cwd=tmp_path, env=home)
    run(blobflow, "bundle", "ls", "none.tar", cwd=tmp_path, env=home, code=2)


def pip_for(folder: Path) -> tuple[str | Path, ...]:
    """pip, to install into the environment there."""
    python = folder / "bin" / "python"
    return (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)


def dependencies(wheel: Path, python: Path) -> Path:
    """The folder of packages with all that the wheel needs for that Python, at CI's versions.

    It is kept for as long as none of these changes.
    """
    constraints = TOP / "tools" / "constraints.txt"
    with zipfile.ZipFile(wheel) as opened:
        about = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        needs = email.message_from_bytes(opened.read(about)).get_all("Requires-Dist") or []
    recipe = [run(python, "-VV"), constraints.read_text(), *needs]
    folder = kept_folder(f"dependencies-{python.name}", "\n".join(recipe))
    with claimed(folder) as complete:
        if not complete:
            run(python, "-m", "venv", "--clear", "--without-pip", folder)
            install = ("install", "--quiet", "--no-compile", "--constraint", constraints)
            run(*pip_for(folder), *install, wheel)
            run(*pip_for(folder), "uninstall", "--quiet", "--yes", "blobflow")
    (packages,) = (folder / "lib").glob("python*/site-packages")
    return packages


@pytest.mark.parametrize("python", OTHER_PYTHONS)
def test_other_pythons_that_are_here_install_it(wheel: Path, tmp_path: Path, python: Path) -> None:
    """With dependencies of their own."""
    folder = tmp_path / "venv"
    run(python, "-m", "venv", "--without-pip", folder)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{dependencies(wheel, python)}\n")
    run(*pip_for(folder), "install", "--quiet", "--no-compile", "--no-deps", "--no-index", wheel)
    assert "No broken requirements" in run(*pip_for(folder), "check")
    home = {"HOME": str(tmp_path), "PYTHONPATH": ""}
    assert run(folder / "bin" / "blobflow", "--version", env=home) == "blobflow 0.1.0\n"
    run(folder / "bin" / "blobflow", "demo", cwd=tmp_path, env=home)


@pytest.mark.clients
@pytest.mark.parametrize("tool", ["pipx", "uv"])
def test_pipx_and_uv_install_it_as_a_tool(wheel: Path, tmp_path: Path, tool: str) -> None:
    home = {"HOME": str(tmp_path), "PYTHONPATH": ""}
    venv.create(tmp_path / "tool", with_pip=True)
    run(tmp_path / "tool" / "bin" / "pip", "install", "--quiet", tool)
    words = ("install",) if tool == "pipx" else ("tool", "install")
    run(tmp_path / "tool" / "bin" / tool, *words, wheel, env=home)
    blobflow = tmp_path / ".local" / "bin" / "blobflow"
    assert run(blobflow, "--version", cwd=tmp_path, env=home) == "blobflow 0.1.0\n"
    run(blobflow, "demo", cwd=tmp_path, env=home)


@pytest.mark.clients
def test_the_single_file_starts_anywhere(tmp_path: Path) -> None:
    file = tmp_path / "blobflow.pyz"
    told = run(TOP / "tools" / "single-file", file)
    assert "MB, for Python 3." in told
    home = {"HOME": str(tmp_path), "PYTHONPATH": ""}
    for _ in range(2):  # unpacked, and found unpacked
        assert run(file, "--version", cwd=tmp_path, env=home) == "blobflow 0.1.0\n"
    run(file, "demo", cwd=tmp_path, env=home)
