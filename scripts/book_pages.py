"""What the book's pages need beyond Jupyter Book, as a Sphinx extension (`_config.yml` names it): the data of the figures to play with;
docstrings, which here are plain text, in the markup that autodoc expects; no thebe, which would fetch programs from another host, and whose
settings stand twice in each page, an error; no role that ARIA has withdrawn.
"""

import re
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
    scripts[:] = [
        script
        for script in scripts
        if "thebe" not in f"{script.filename} {script.attributes.get('body', '')}".lower()
    ]
    if "body" in context:
        context["body"] = context["body"].replace(
            'role="doc-biblioentry"', 'role="listitem"'
        )  # docutils still writes it


def marked_up(text: str) -> list[str]:
    """The lines of a docstring as reStructuredText: `names` as code, indented paragraphs as they stand, nothing else with a meaning."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        rows = paragraph.split("\n")
        indented = [row.startswith("    ") for row in rows]
        if all(indented):
            lines += ["::", "", *rows, ""]
        else:
            whole = " ".join(row.strip() for row in rows)
            parts = whole.split("`")
            escaped = [
                re.sub(r"([\\*_|])", r"\\\1", part) if i % 2 == 0 else f"``{part}``"
                for i, part in enumerate(parts)
            ]
            lines += ["".join(escaped), ""]
    return lines


def mark_up(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = marked_up("\n".join(lines))


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", write_data)
    app.connect("html-page-context", mend, priority=900)
    if "autodoc-process-docstring" in app.events.events:
        app.connect("autodoc-process-docstring", mark_up)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
