"""The built book, _build/html, in Chromium as the system has it: as one PDF, or a picture of it.

    python scripts/chromium.py pdf        # _build/html/alexnet-reproduced.pdf, pages in the order
                                          # of the contents, links between them kept inside
    python scripts/chromium.py picture    # .github/book.png: the README's picture of three pages

The tests of the pages open them by the same functions.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import yaml
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from pypdf import PdfWriter
from pypdf.generic import ArrayObject, NameObject
from tqdm import tqdm

from alexnet.notebooks import pages

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
# Every figure to play with has been drawn, or has said why not.
READY = "[...document.querySelectorAll('[data-widget]')].every((place) => place.dataset.ready)"
FLAGS = ("--no-sandbox", "--disable-gpu")
KNOWN = ("chromium", "chromium-browser", "google-chrome")
MISSING = "Chromium is missing: apt install chromium, or name one in ALEXNET_CHROMIUM"

MARGIN = dict.fromkeys(("top", "bottom", "left", "right"), "16mm")
# What a reader would click: solutions and hidden code are printed too.
OPEN = "document.querySelectorAll('details').forEach((one) => one.open = true)"

HEIGHT, GAP, PAPER = 720, 16, "#e7e9ec"
# page, width of the window, color scheme, what is scrolled to
SHOTS = (
    ("intro.html", 1100, "light", None),
    ("03-architecture.html", 860, "dark", "[data-widget=architecture]"),
    ("06-results.html", 400, "light", "#fig-neighbors"),
)
SCROLL = "(part) => window.scrollTo(0, part.getBoundingClientRect().top + scrollY - 90)"


def find() -> str | None:
    """The program, or what ALEXNET_CHROMIUM names; None where there is none."""
    named = os.environ.get("ALEXNET_CHROMIUM")
    return named or next((path for path in map(shutil.which, KNOWN) if path), None)


@contextmanager
def browser(flags: tuple[str, ...] = FLAGS) -> Iterator[Browser]:
    """A running browser while the block lasts; `find` has to have found one."""
    with sync_playwright() as running:
        opened = running.chromium.launch(executable_path=find(), args=list(flags))
        yield opened
        opened.close()


def open_page(page: Page, address: str) -> None:
    """Load a page and wait until its figures are drawn."""
    page.goto(address, wait_until="load")
    page.wait_for_function(READY)


def pdf(browser: Browser) -> str:
    """Write the whole book as one PDF, with a bookmark for each page; returns what was written."""
    book, starts = PdfWriter(), dict[str, int]()
    page = browser.new_page(viewport={"width": 900, "height": 1200}, color_scheme="light")
    names = pages(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    for path in tqdm([HTML / f"{name}.html" for name in names], unit="page", disable=None):
        starts[path.as_uri()] = len(book.pages)
        title, printed = print_page(page, path)
        book.append(BytesIO(printed), outline_item=title, import_outline=False)
    keep_inside(book, starts)
    book.add_metadata({"/Title": "AlexNet, reproduced"})
    book.write(out := HTML / "alexnet-reproduced.pdf")
    return f"{out}: {len(book.pages)} pages, {out.stat().st_size / 1e6:.1f} MB"


def print_page(page: Page, path: Path) -> tuple[str, bytes]:
    """A page's title, and the page as a PDF."""
    open_page(page, path.as_uri())
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


def picture(browser: Browser) -> str:
    """Write the README's picture: the cover, a chapter in the dark, a phone."""
    sheet = Image.new("RGB", (sum(shot[1] + GAP for shot in SHOTS) + GAP, HEIGHT + 2 * GAP), PAPER)
    left = GAP
    for name, width, scheme, target in SHOTS:
        page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)  # type: ignore[arg-type]
        open_page(page, (HTML / "book" / name).as_uri())
        if target:
            page.locator(target).first.evaluate(SCROLL)
        page.wait_for_timeout(500)  # until it has scrolled
        sheet.paste(Image.open(BytesIO(page.screenshot())).convert("RGB"), (left, GAP))
        left += width + GAP
    sheet = sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3), Image.Resampling.LANCZOS)
    sheet.quantize(200).save(out := ROOT / ".github" / "book.png", optimize=True)
    return f"{out}: {sheet.width} x {sheet.height}, {out.stat().st_size / 1000:.0f} kB"


def main() -> int:
    make = {"pdf": pdf, "picture": picture}.get(" ".join(sys.argv[1:]))
    built = (HTML / "book" / "intro.html").exists()
    if not (make and built and find()):
        lack = "There is no book in _build/html: make book" if make else "Give one of: pdf, picture"
        print(MISSING if make and built else lack, file=sys.stderr)
        return 2
    with browser() as opened:
        print(make(opened))
    return 0


if __name__ == "__main__":
    sys.exit(main())
