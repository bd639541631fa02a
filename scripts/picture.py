"""The README's picture of the book: the cover, a chapter in the dark, and a page on a phone, from _build/html, in Chromium.

python scripts/picture.py        # after `make book`; writes .github/book.png
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Literal

import chromium
from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "_build" / "html" / "book"
OUT = ROOT / ".github" / "book.png"
HEIGHT, GAP, PAPER = 720, 16, "#e7e9ec"
# page, width of the window, color scheme, what is scrolled to
SHOTS: tuple[tuple[str, int, Literal["light", "dark"], str | None], ...] = (
    ("intro.html", 1100, "light", None),
    ("03-architecture.html", 860, "dark", "[data-widget=architecture]"),
    ("06-results.html", 400, "light", "#fig-neighbors"),
)


def main() -> int:
    if not (PAGES / "intro.html").exists():
        print("There is no book in _build/html: make book", file=sys.stderr)
        return 2
    pictures = []
    with sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=chromium.find(), args=list(chromium.FLAGS)
        )
        for name, width, scheme, place in SHOTS:
            page = browser.new_page(
                viewport={"width": width, "height": HEIGHT}, color_scheme=scheme
            )
            page.goto((PAGES / name).as_uri(), wait_until="load")
            page.wait_for_function(chromium.READY)
            if place:
                page.locator(place).first.evaluate(
                    "(there) => window.scrollTo(0, there.getBoundingClientRect().top + scrollY - 90)"
                )
            page.wait_for_timeout(500)  # until it has scrolled
            pictures.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
        browser.close()
    sheet = Image.new(
        "RGB", (sum(p.width for p in pictures) + GAP * (len(pictures) + 1), HEIGHT + 2 * GAP), PAPER
    )
    left = GAP
    for picture in pictures:
        sheet.paste(picture, (left, GAP))
        left += picture.width + GAP
    sheet = sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3), Image.Resampling.LANCZOS)
    OUT.parent.mkdir(exist_ok=True)
    sheet.quantize(200).save(OUT, optimize=True)
    print(f"{OUT}: {sheet.width} x {sheet.height}, {OUT.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
