"""What the book's pages need beyond Jupyter Book, as a Sphinx extension that `_config.yml` names.

It writes the data of the figures to play with; gives docstrings, which are plain text here, the
markup that autodoc expects; removes thebe, which would fetch programs from another host and whose
settings stand twice in each page, an error; puts a claim's verdict first in its row, as a badge;
and removes a role that ARIA has withdrawn.
"""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import widget_data

SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Source|Note):\s*")
ESCAPE = re.compile(r"([\\*_|])").sub
RULED = re.compile(r"~typing\.Annotated\[(.+?), ~alexnet\.fields\.Rule\(.+?<lambda>\)\]")
TABLE = re.compile(r"<table.*?</table>", re.DOTALL)
LAST_CELL = re.compile(r"(<tr[^>]*>)(.*?)(<(t[hd])(?:(?!<t[hd]).)*</\4>)\s*</tr>", re.DOTALL)
ITEM = re.compile(r"    (\w[\w., *]*): (.*)")


def write_data(app: Any) -> None:
    static = Path(app.outdir).parent / "static"
    widget_data.write_all(static / "widgets" / "data")
    app.config.html_static_path.append(str(static))


def mend(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    def is_thebe(script: Any) -> bool:
        return "thebe" in f"{script.filename} {script.attributes.get('body', '')}".lower()

    scripts = context["script_files"]
    scripts[:] = [script for script in scripts if not is_thebe(script)]
    if "body" in context:  # docutils still writes the role
        body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
        context["body"] = TABLE.sub(lambda table: verdicts_first(table[0]), body)


def verdicts_first(table: str) -> str:
    """An HTML table whose last column holds verdicts, with these first and as badges; any other as
    it is."""
    if not re.search(r"<p>verdict</p></th>\s*</tr>", table):
        return table
    moved = LAST_CELL.sub(r"\1\3\2</tr>", table)
    return re.sub(r"(<tr[^>]*><td[^>]*><p>)(([\w ]+).*?)(</p>)", _badge, moved)


def _badge(cell: re.Match[str]) -> str:
    kind = cell[3].strip().replace(" ", "-")
    return f'{cell[1]}<span class="verdict verdict-{kind}">{cell[2]}</span>{cell[4]}'


def marked_up(text: str) -> list[str]:
    """A docstring's lines as reStructuredText.

    `names` become code, sections a list each, indented paragraphs stand as they are, and nothing
    else has a meaning.
    """
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        first, *rest = paragraph.split("\n")
        if SECTION.fullmatch(first):
            lines += [f"**{first.strip().rstrip(':')}**", "", *_section(rest)]
        elif all(row.startswith("    ") for row in (first, *rest)):
            lines += ["::", "", first, *rest, ""]
        else:
            lines += [_inline(" ".join(row.strip() for row in (first, *rest))), ""]
    return lines


def _section(rows: list[str]) -> list[str]:
    """The rows below a section's title: a list of items, or a paragraph where there are none."""
    items: list[str] = []
    for row in rows:
        if item := ITEM.fullmatch(row):
            names = ", ".join(f"``{name.strip()}``" for name in item[1].split(","))
            items.append(f"- {names}: {_inline(item[2])}")
        elif items:
            items[-1] += f" {_inline(row.strip())}"
    return [*items, ""] if items else [_inline(" ".join(row.strip() for row in rows)), ""]


def _inline(text: str) -> str:
    """`names` as code, kept apart from letters right after them, and all else as it stands."""
    return "".join(
        f"``{part}``" if i % 2 else r"\ " * (i > 0 and part[:1].isalnum()) + ESCAPE(r"\\\1", part)
        for i, part in enumerate(text.split("`"))
    )


def mark_up(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = marked_up("\n".join(lines))


def plain_types(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: Any
) -> tuple[str | None, Any]:
    """A signature without the rules of `alexnet.fields`: a type alone."""
    return signature and RULED.sub(r"\1", signature), returns


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", write_data)
    app.connect("html-page-context", mend, priority=900)
    if "autodoc-process-docstring" in app.events.events:
        app.connect("autodoc-process-docstring", mark_up)
        app.connect("autodoc-process-signature", plain_types)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
