"""The README's picture of the book, from _build/html: the cover, a chapter in the dark, a phone.

python scripts/picture.py        # after `make book`; writes .github/book.png
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Literal

import chromium
from PIL import Image

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
SCROLL = "(part) => window.scrollTo(0, part.getBoundingClientRect().top + scrollY - 90)"


def main() -> int:
    if not (PAGES / "intro.html").exists():
        print("There is no book in _build/html: make book", file=sys.stderr)
        return 2
    pictures = []
    with chromium.browser() as browser:
        for name, width, scheme, target in SHOTS:
            window = {"width": width, "height": HEIGHT}
            page = browser.new_page(viewport=window, color_scheme=scheme)  # type: ignore[arg-type]
            chromium.open_page(page, (PAGES / name).as_uri())
            if target:
                page.locator(target).first.evaluate(SCROLL)
            page.wait_for_timeout(500)  # until it has scrolled
            pictures.append(Image.open(BytesIO(page.screenshot())).convert("RGB"))
    width = sum(picture.width + GAP for picture in pictures) + GAP
    sheet = Image.new("RGB", (width, HEIGHT + 2 * GAP), PAPER)
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
