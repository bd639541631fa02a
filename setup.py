"""What pyproject.toml cannot say of the distribution.

A wheel carries the archive of results, with the trained weights in it, as alexnet/archive/. Where
ALEXNET_REPOSITORY gives the repository's address, the links of the description lead there: beside
an index's page there are no files.
"""

import os
import re
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

URL = os.environ.get("ALEXNET_REPOSITORY", "").removesuffix(".git").rstrip("/")
VERSION = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]


class WithArchive(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode and Path("results").is_dir():  # an editable one is a clone
            self.copy_tree("results", str(Path(self.build_lib, "alexnet", "archive")))


def description() -> str:
    """README.md, its links to files as links to this version's in the repository."""

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link[1] else "blob"
        return f"{link[1]}[{link[2]}]({URL}/{kind}/v{VERSION}/{link[3]})"

    text = Path("README.md").read_text(encoding="utf-8")
    return re.sub(r"(!?)\[([^]]*)\]\((?!\w+:|#)([^)]+)\)", absolute, text) if URL else text


setup(
    cmdclass={"build_py": WithArchive},
    long_description=description(),
    long_description_content_type="text/markdown",
    project_urls={"Source": URL} if URL else {},
)
