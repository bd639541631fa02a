"""What the book's pages need beyond Jupyter Book, as a Sphinx extension (`_config.yml` names it): the data of the figures to play with; no
thebe, which would fetch programs from another host, and whose settings stand twice in each page, an error; no role that ARIA has withdrawn.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import widget_data


def write_data(app: Any) -> None:
    static = Path(app.outdir).parent / "static"
    widget_data.write_all(static / "widgets" / "data")
    app.config.html_static_path.append(str(static))


def mend(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    scripts = context["script_files"]
    scripts[:] = [script for script in scripts if "thebe" not in f"{script.filename} {script.attributes.get('body', '')}".lower()]
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')  # docutils still writes it


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", write_data)
    app.connect("html-page-context", mend, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
