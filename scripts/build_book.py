"""Build the book into _build/html: offline, with warnings as errors, and never with numbers that an older package computed.

Jupyter Book's cache of executed notebooks knows their cells, not the package that they import: it is thrown away here whenever the package,
the archive of results or the installed versions change.

The repository's address is one setting: `repository: url:` in _config.yml, or the variable ALEXNET_REPOSITORY. With it the pages get
buttons to the repository, and for GitHub to Colab and Binder; without it there are none.
"""

import hashlib
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

from alexnet.processes import as_they_end, cores
from alexnet.notebooks import (
    ARCHIVE,
    PACKAGE,
    QUIET_KERNEL,
    chapters,
    code_length,
    kernel_environment,
    tree_digest,
)

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
MATHJAX_USED = (
    "tex-chtml.js",
    "input/tex/extensions/",
    "output/chtml/fonts/woff-v2/",
)  # extensions: \\color and the like load when used


def main() -> int:
    BUILD.mkdir(exist_ok=True)
    forget_if_changed()
    written = yaml.safe_load((ROOT / "_config.yml").read_text())
    local = written["sphinx"][
        "local_extensions"
    ]  # whose paths are relative to the configuration's folder
    written["sphinx"]["local_extensions"] = {name: str(ROOT / path) for name, path in local.items()}
    config = BUILD / "_config.yml"
    config.write_text(yaml.safe_dump(with_buttons(written, os.environ.get("ALEXNET_REPOSITORY"))))
    build = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        str(ROOT),
        "--config",
        str(config),
    ]
    with kernel_environment(ROOT, threads=1):
        execute_ahead(written["execute"]["timeout"])
        status = subprocess.run([*build, "-n", "-W", "--keep-going"], cwd=ROOT).returncode
    if status:
        # Sphinx says each warning once: without what it remembers, the next build warns again instead of succeeding in silence.
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
        print(
            "The book was not built: see the warnings above; a notebook's traceback lies in _build/html/reports/.",
            file=sys.stderr,
        )
        return status
    prune_mathjax(BUILD / "html" / "_static" / "mathjax")
    print(f"The book: {BUILD / 'html' / 'index.html'}")
    return 0


def forget_if_changed() -> None:
    """Delete executed notebooks and parsed pages if they were made with other code, results or versions than there are now."""
    code = tree_digest(ROOT, (*PACKAGE, *ARCHIVE))
    versions = sorted(
        {f"{each.metadata['Name']} {each.version}" for each in importlib.metadata.distributions()}
    )
    current = hashlib.sha256(
        "\n".join([code, platform.python_version(), *versions]).encode()
    ).hexdigest()
    pages = tree_digest(
        ROOT, ("scripts/*.py", "book/_static/**/*")
    )  # what changes pages but no numbers
    for name, digest, caches in (
        (".code_hash", current, (".jupyter_cache", ".doctrees")),
        (".pages_hash", pages, (".doctrees",)),
    ):
        remembered = BUILD / name
        if not remembered.is_file() or remembered.read_text() != digest:
            for cache in caches:
                shutil.rmtree(BUILD / cache, ignore_errors=True)
            remembered.write_text(digest)


def execute_ahead(timeout: int) -> None:
    """Execute the notebooks that the cache lacks, as many at a time as there are cores, so that Sphinx, which takes them one by one, finds
    them there. One that fails is left to it: it tries again, and tells.

    timeout: seconds a cell.
    """
    cache = get_cache(BUILD / ".jupyter_cache")
    notebooks = [cache.add_nb_to_project(str(path)).uri for path in chapters(ROOT)]
    lacking = sorted(
        (record.uri for record in cache.list_unexecuted(filter_uris=notebooks)),
        key=lambda uri: -code_length(Path(uri)),
    )
    if not lacking:
        return
    print(f"Executing {len(lacking)} notebooks", flush=True)
    execute = partial(
        single_nb_execution, timeout=timeout, allow_errors=False, extra_arguments=QUIET_KERNEL
    )
    tasks = [(cache.get_project_notebook(uri).nb, str(Path(uri).parent)) for uri in lacking]
    for number, job in as_they_end(execute, tasks, min(cores(), len(tasks))):
        if job.exception() is None and (done := job.result()).err is None:
            bundle = CacheBundleIn(done.nb, lacking[number], data={"execution_seconds": done.time})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def with_buttons(config: dict[str, Any], url: str | None) -> dict[str, Any]:
    """The book's configuration with what follows from the repository's address; `url` goes before the one in the configuration."""
    url = (url or config.get("repository", {}).get("url") or "").removesuffix(".git").rstrip("/")
    if not url:
        return config
    repository = {"path_to_book": "", "branch": "main", **config.get("repository", {}), "url": url}
    buttons = dict.fromkeys(
        ("use_repository_button", "use_issues_button", "use_edit_page_button"), True
    )
    config = {**config, "repository": repository, "html": {**config.get("html", {}), **buttons}}
    if url.startswith("https://github.com/"):  # Colab opens notebooks of GitHub only
        config["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        }
    return config


def prune_mathjax(folder: Path) -> None:
    """Keep of the 24 MB that the extension copies what the pages load, and the license under which it may be passed on."""
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder's files before the folder
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif (
            not name.startswith(MATHJAX_USED) or path.name == "all-packages.js"
        ):  # one file of all extensions, which nothing loads
            path.unlink()
    (folder / "LICENSE.txt").write_text(
        "MathJax 3 (https://www.mathjax.org), copyright The MathJax Consortium, unmodified.\n"
        "Licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"
    )


if __name__ == "__main__":
    sys.exit(main())
