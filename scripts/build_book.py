"""Build the book into _build/html: offline, and with warnings as errors.

Jupyter Book's cache of executed notebooks knows their cells, not the package that they import: it
is thrown away here whenever the package, the archive of results or the installed versions change,
so that the book never shows numbers that an older package computed.

The repository's address is one setting: `repository: url:` in _config.yml, or the variable
ALEXNET_REPOSITORY. With it the pages get buttons to the repository, and for GitHub to Colab and
Binder; without it there are none.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution

from alexnet import notebooks
from alexnet.kernel_environment import kernel_environment
from alexnet.keys import key
from alexnet.processes import as_they_end, cores

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
JUPYTER_BOOK = (sys.executable, "-c", "from jupyter_book.cli.main import main; main()")
# The first loads \color and the like when a page uses them.
MATHJAX_USED = ("tex-chtml.js", "input/tex/extensions/", "output/chtml/fonts/woff-v2/")
ALL = "all-packages.js"  # holds all extensions, and nothing loads it
MATHJAX_LICENSE = """\
MathJax 3 (https://www.mathjax.org), copyright The MathJax Consortium, unmodified.
Licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0
"""
FAILED = (
    "The book was not built: see the warnings above; "
    "a notebook's traceback lies in _build/html/reports/."
)


def main() -> int:
    BUILD.mkdir(exist_ok=True)
    forget_if_changed()
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    # paths of extensions are relative to the configuration's folder
    extensions = config["sphinx"]["local_extensions"]
    extensions |= {name: str(ROOT / path) for name, path in extensions.items()}
    config = with_buttons(config, os.environ.get("ALEXNET_REPOSITORY"))
    file = BUILD / "_config.yml"
    file.write_text(yaml.safe_dump(config))
    build = [*JUPYTER_BOOK, "build", str(ROOT), "--config", str(file), "-n", "-W", "--keep-going"]
    with kernel_environment(ROOT, threads=1):
        execute_ahead(config["execute"]["timeout"])
        status = subprocess.run(build, cwd=ROOT).returncode
    if status:
        # Sphinx says each warning once: without what it remembers, the next build warns again
        # instead of succeeding in silence.
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
        print(FAILED, file=sys.stderr)
        return status
    prune_mathjax(BUILD / "html" / "_static" / "mathjax")
    print(f"The book: {BUILD / 'html' / 'index.html'}")
    return 0


def forget_if_changed() -> None:
    """Delete executed notebooks and parsed pages that were made with other code, results or
    versions than there are now."""
    installed = importlib.metadata.distributions()
    versions = sorted({f"{each.metadata['Name']} {each.version}" for each in installed})
    code = notebooks.tree_digest(ROOT, (*notebooks.PACKAGE, *notebooks.ARCHIVE))
    # what changes pages but no numbers
    pages = notebooks.tree_digest(ROOT, ("scripts/*.py", "book/*.md", "book/_static/**/*"))
    numbers = [code, platform.python_version(), versions]
    for name, current, *caches in (
        (".code_hash", numbers, ".jupyter_cache", ".doctrees", "html/_modules"),
        (".pages_hash", pages, ".doctrees", "html/_modules"),
    ):
        remembered = BUILD / name
        if not remembered.is_file() or remembered.read_text() != key(current):
            for cache in caches:
                shutil.rmtree(BUILD / cache, ignore_errors=True)
            remembered.write_text(key(current))


def execute_ahead(timeout: int) -> None:
    """Execute the notebooks that the cache lacks, as many at a time as there are cores.

    Sphinx, which takes them one by one, then finds them there. One that fails is left to it: it
    tries again, and reports.

    Args:
        timeout: Seconds a cell.
    """
    cache = get_cache(BUILD / ".jupyter_cache")
    uris = [cache.add_nb_to_project(str(path)).uri for path in notebooks.chapters(ROOT)]
    lacking = [record.uri for record in cache.list_unexecuted(filter_uris=uris)]
    lacking.sort(key=lambda uri: -notebooks.code_length(Path(uri)))
    if not lacking:
        return
    print(f"Executing {len(lacking)} notebooks", flush=True)
    options = {"allow_errors": False, "extra_arguments": notebooks.QUIET_KERNEL}
    execute = partial(single_nb_execution, timeout=timeout, **options)
    tasks = [(cache.get_project_notebook(uri).nb, str(Path(uri).parent)) for uri in lacking]
    for number, job in as_they_end(execute, tasks, min(cores(), len(tasks))):
        if job.exception() is None and (done := job.result()).err is None:
            if cells := notebooks.without_figures(done.nb):
                sys.exit(f"{lacking[number]}: cell {cells[0]} draws no figure")
            bundle = CacheBundleIn(done.nb, lacking[number], data={"execution_seconds": done.time})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def with_buttons(config: dict[str, Any], url: str | None) -> dict[str, Any]:
    """The book's configuration with what follows from the repository's address.

    Args:
        config: As in _config.yml.
        url: The address; None: the one in the configuration.
    """
    url = (url or config.get("repository", {}).get("url") or "").removesuffix(".git").rstrip("/")
    if not url:
        return config
    repository = {"path_to_book": "", "branch": "main", **config.get("repository", {}), "url": url}
    buttons = {f"use_{name}_button": True for name in ("repository", "issues", "edit_page")}
    config = {**config, "repository": repository, "html": {**config.get("html", {}), **buttons}}
    if url.startswith("https://github.com/"):  # Colab opens notebooks of GitHub only
        config["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        }
    return config


def prune_mathjax(folder: Path) -> None:
    """Keep of the 24 MB that the extension copies what the pages load, and the license under which
    it may be passed on."""
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder's files before the folder
        name = path.relative_to(folder).as_posix()
        if path.is_file() and (not name.startswith(MATHJAX_USED) or path.name == ALL):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    (folder / "LICENSE.txt").write_text(MATHJAX_LICENSE)


if __name__ == "__main__":
    sys.exit(main())
