"""The pages hang together: links lead somewhere, the site has them all, generated ones are up to date."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deadlines import HANGS_AFTER
from tools.checkout import TOP
from tools.documentation.documents import DOCS, anchors_of, documents, links_of, name_of
from tools.documentation.reference import differences, pages

SITE = TOP / "mkdocs.yml"


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_link_within_leads_somewhere(document: Path) -> None:
    assert [f"{line}: {target}" for line, target in links_of(document) if not leads(document, target)] == []


def leads(document: Path, target: str) -> bool:
    """Whether a link of the document leads to what is there. Other hosts are not asked."""
    if "://" in target or target.startswith("mailto:"):
        return True
    path, _, anchor = target.partition("#")
    file = (document.parent / path).resolve() if path else document
    if not file.exists() or not file.is_relative_to(TOP):
        return False
    return not anchor or (file.suffix == ".md" and anchor in anchors_of(file))


def test_the_pages_of_verbs_are_what_the_verbs_say() -> None:
    """Where this fails: `tools/reference`."""
    assert [name_of(path) for path in differences(pages())] == []


def test_the_site_s_menu_has_every_page() -> None:
    listed = set(_pages(yaml.load(SITE.read_text(), yaml.BaseLoader)["nav"]))
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    verbs = {page for page in there if page.startswith("reference/blobflow-")}
    assert listed == there - verbs


def _pages(menu: object) -> list[str]:
    if isinstance(menu, str):
        return [menu]
    values = menu.values() if isinstance(menu, dict) else menu if isinstance(menu, list) else ()
    return [page for value in values for page in _pages(value)]


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    mkdocs = Path(sys.executable).with_name("mkdocs")
    if shutil.which(str(mkdocs)) is None:
        pytest.skip("needs mkdocs-material (pip install .[docs]); tools/docs brings its own")
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=TOP,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"},
        capture_output=True,
        text=True,
        timeout=HANGS_AFTER,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "site" / "index.html").exists()
