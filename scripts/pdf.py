"""The whole book as one PDF, printed by Chromium from _build/html: the pages in the order of the table of contents, a bookmark each, and
links from one to another that stay inside.

    python scripts/pdf.py        # after `make book`; writes _build/html/alexnet-reproduced.pdf
"""

import sys
from io import BytesIO
from pathlib import Path

import chromium
import yaml
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfWriter
from pypdf.generic import ArrayObject, NameObject
from tqdm import tqdm

from alexnet.notebooks import pages

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
OUT = HTML / "alexnet-reproduced.pdf"
EDGE = "16mm"
# What a reader would click: solutions and hidden code are printed too.
OPEN = "document.querySelectorAll('details').forEach((one) => one.open = true)"


def main() -> int:
    paths = [
        HTML / f"{name}.html" for name in pages(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    ]
    if lacking := [page for page in paths if not page.exists()]:
        print(f"There is no {lacking[0]}: make book", file=sys.stderr)
        return 2
    if chromium.find() is None:
        print(
            "The PDF needs Chromium: apt install chromium, or name one in ALEXNET_CHROMIUM",
            file=sys.stderr,
        )
        return 2
    book, starts = PdfWriter(), dict[str, int]()
    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=chromium.find(), args=list(chromium.FLAGS)
        )
        page = browser.new_page(viewport={"width": 900, "height": 1200}, color_scheme="light")
        for each in tqdm(paths, unit="page", disable=None):
            starts[each.as_uri()] = len(book.pages)
            title, printed = print_page(page, each)
            book.append(BytesIO(printed), outline_item=title, import_outline=False)
        browser.close()
    keep_inside(book, starts)
    book.add_metadata({"/Title": "AlexNet, reproduced"})
    book.write(OUT)
    print(f"{OUT}: {len(book.pages)} pages, {OUT.stat().st_size / 1e6:.1f} MB")
    return 0


def print_page(page: Page, path: Path) -> tuple[str, bytes]:
    page.goto(path.as_uri(), wait_until="load")
    page.wait_for_function(chromium.READY)
    page.evaluate(OPEN)
    page.evaluate("window.MathJax ? MathJax.startup.promise.then(() => true) : true")
    margin = {"top": EDGE, "bottom": EDGE, "left": EDGE, "right": EDGE}
    printed = page.pdf(format="A4", margin=margin, print_background=True, scale=0.8)  # type: ignore[arg-type]
    return page.title().split(" — ")[0], printed


def keep_inside(book: PdfWriter, starts: dict[str, int]) -> None:
    """Links to another page of the book lead to where it begins in the PDF."""
    for page in book.pages:
        for reference in page.get("/Annots", ()):
            link = reference.get_object()
            target = str(link.get("/A", {}).get("/URI", "")).split("#")[0]
            if target in starts:
                del link["/A"]
                link[NameObject("/Dest")] = ArrayObject(
                    [book.pages[starts[target]].indirect_reference, NameObject("/Fit")]
                )


if __name__ == "__main__":
    sys.exit(main())
