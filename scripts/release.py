"""The version of a release, which stands in several files.

python scripts/release.py                   # whether they agree
python scripts/release.py --tag v0.2.0      # and with a tag
python scripts/release.py --set 0.2.0       # write it into all of them
"""

import argparse
import re
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

from alexnet.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
VERSION = r"([^\s\"]+)"
PLACES = (  # a file, and what stands around the version in it
    ("pyproject.toml", rf'(?m)^version = "{VERSION}"$'),
    ("pyproject.toml", rf'"alexnet-kernels=={VERSION}"'),
    ("kernels/pyproject.toml", rf'(?m)^version = "{VERSION}"$'),
    ("alexnet/__init__.py", rf'(?m)^__version__ = "{VERSION}"$'),
    ("CITATION.cff", rf"(?m)^version: {VERSION}$"),
    (".zenodo.json", rf'(?m)^  "version": "{VERSION}",$'),
)


def versions(root: Path = ROOT) -> list[tuple[str, str]]:
    """Each file with the version that it states.

    Raises:
        ValueError: A file does not state it, or twice.
    """
    stated = []
    for name, pattern in PLACES:
        found = re.findall(pattern, (root / name).read_text(encoding="utf-8"))
        if len(found) != 1:
            raise ValueError(f"{name} has {len(found)} matches of {pattern}: it should have one")
        stated.append((name, found[0]))
    return stated


def check(tag: str | None = None, root: Path = ROOT) -> str:
    """The version, on which all files agree.

    Args:
        tag: What it should equal, after a "v"; None: anything.
        root: The repository.

    Raises:
        ValueError: They do not agree; the message lists them.
    """
    stated = versions(root)
    listed = ", ".join(f"{version} in {name}" for name, version in stated)
    if len({version for _, version in stated}) > 1:
        raise ValueError(f"the versions differ: {listed}; write one by --set")
    version = stated[0][1]
    if tag is not None and tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, and the version {version}: tag it v{version}")
    return version


def write(version: str, root: Path = ROOT) -> None:
    """Write a version into all files.

    Raises:
        ValueError: It is no version in the normal form of Python packages.
    """
    try:
        normal = str(Version(version))
    except InvalidVersion:
        raise ValueError(f"{version} is no version: give one like 0.2.0") from None
    if normal != version:
        raise ValueError(f"write {version} as {normal}")
    versions(root)  # each place is there, before one is changed
    for name, pattern in PLACES:
        text = (root / name).read_text(encoding="utf-8")
        (match,) = re.finditer(pattern, text)
        write_whole(root / name, text[: match.start(1)] + version + text[match.end(1) :])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", help="that the version should equal, as v0.2.0")
    parser.add_argument("--set", metavar="VERSION", help="write it into all files")
    options = parser.parse_args(arguments)
    try:
        if options.set:
            write(options.set)
        print(check(options.tag))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
