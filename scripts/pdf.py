"""The whole book as one PDF, printed by Chromium from _build/html.

The pages come in the order of the table of contents, with a bookmark each, and links from one to
another stay inside.

    python scripts/pdf.py        # after `make book`; writes _build/html/alexnet-reproduced.pdf
"""

import sys
from io import BytesIO
from pathlib import Path

import chromium
import yaml
from playwright.sync_api import Page
from pypdf import PdfWriter
from pypdf.generic import ArrayObject, NameObject
from tqdm import tqdm

from alexnet.notebooks import pages

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
OUT = HTML / "alexnet-reproduced.pdf"
MARGIN = dict.fromkeys(("top", "bottom", "left", "right"), "16mm")
# What a reader would click: solutions and hidden code are printed too.
OPEN = "document.querySelectorAll('details').forEach((one) => one.open = true)"


def main() -> int:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    paths = [HTML / f"{name}.html" for name in pages(toc)]
    problem = None
    if missing := [page for page in paths if not page.exists()]:
        problem = f"There is no {missing[0]}: make book"
    elif chromium.find() is None:
        problem = "The PDF needs Chromium: apt install chromium, or name one in ALEXNET_CHROMIUM"
    if problem:
        print(problem, file=sys.stderr)
        return 2
    book, starts = PdfWriter(), dict[str, int]()
    with chromium.browser() as browser:
        page = browser.new_page(viewport={"width": 900, "height": 1200}, color_scheme="light")
        for path in tqdm(paths, unit="page", disable=None):
            starts[path.as_uri()] = len(book.pages)
            title, printed = print_page(page, path)
            book.append(BytesIO(printed), outline_item=title, import_outline=False)
    keep_inside(book, starts)
    book.add_metadata({"/Title": "AlexNet, reproduced"})
    book.write(OUT)
    print(f"{OUT}: {len(book.pages)} pages, {OUT.stat().st_size / 1e6:.1f} MB")
    return 0


def print_page(page: Page, path: Path) -> tuple[str, bytes]:
    """A page's title, and the page as a PDF."""
    chromium.open_page(page, path.as_uri())
    page.evaluate(OPEN)
    page.evaluate("window.MathJax ? MathJax.startup.promise.then(() => true) : true")
    printed = page.pdf(format="A4", margin=MARGIN, print_background=True, scale=0.8)  # type: ignore[arg-type]
    return page.title().split(" — ")[0], printed


def keep_inside(book: PdfWriter, starts: dict[str, int]) -> None:
    """Let links to another page of the book lead to where it begins in the PDF."""
    for page in book.pages:
        for reference in page.get("/Annots", ()):
            link = reference.get_object()
            target = str(link.get("/A", {}).get("/URI", "")).split("#")[0]
            if target in starts:
                del link["/A"]
                start = book.pages[starts[target]].indirect_reference
                link[NameObject("/Dest")] = ArrayObject([start, NameObject("/Fit")])


if __name__ == "__main__":
    sys.exit(main())
