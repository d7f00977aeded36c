"""The build of a wheel: its man pages are made of the command line that goes into it.

All else is in pyproject.toml. An editable installation has no pages.
"""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

TOP = Path(__file__).resolve().parent
PAGES = Path("build") / "man"  # below the folder that is built in, as data files have to be


class WheelWithManPages(bdist_wheel):
    """A wheel that installs its pages below `share/man`, where man looks beside a `bin` that is on PATH."""

    def run(self) -> None:
        sys.path.insert(0, str(TOP))
        from tools.manpages import write_pages

        by_folder: dict[str, list[str]] = {}
        for page in write_pages(PAGES):
            by_folder.setdefault(f"share/man/{page.parent.name}", []).append(str(page))
        self.distribution.data_files = [*(self.distribution.data_files or []), *by_folder.items()]
        super().run()


setup(cmdclass={"bdist_wheel": WheelWithManPages})
