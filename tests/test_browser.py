"""The figures and the book as a reader meets them, in Chromium.

Nothing is complained of, nothing fetched from elsewhere; everything can be worked and read without
a mouse and without eyes. The quick tests open the figures by themselves, from file://. Those marked
slow open each page of the built book, `_build/html`, over a server of their own; `make browser`
builds it and runs them all.
"""

import functools
import http.server
import io
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import chromium  # noqa: E402

HTML = ROOT / "_build" / "html"
WIDGETS = ROOT / "book" / "_static" / "widgets"
NAMES = ("architecture", "puzzle", "lrn", "pooling", "augment", "kernels", "momentum", "classify")
NAMES += ("saturation", "receptive", "statements", "plateau", "seeds")
# bytes of all that a page loads the first time; 2.5 MB are fonts, styles, and MathJax
WEIGHT_LIMIT = 5_000_000
FLAGS = (
    *chromium.FLAGS,
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if chromium.find() is None:
        pytest.skip("needs Chromium: apt install chromium, or name one in ALEXNET_CHROMIUM")
    with chromium.browser(FLAGS) as opened:
        yield opened


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an address and waits for what it loads.

    At the end nothing may have been complained of, and nothing asked of another host.
    """
    contexts, complaints = [], []

    def open_page(
        address: str,
        viewport: dict[str, int] = DESKTOP,
        theme: str = "light",
        strict: bool = True,
        **settings: Any,
    ) -> Any:
        context = browser.new_context(viewport=viewport, color_scheme=theme, **settings)
        contexts.append(context)
        page = context.new_page()
        page.asked = []

        def complain(what: object, condition: bool = True) -> None:
            if condition:
                complaints.append(f"{address}: {what}")

        def on_request(request: Any) -> None:
            page.asked.append(request.url)
            own = urlsplit(request.url)[:2] == urlsplit(address)[:2]
            inline = request.url.startswith(("data:", "blob:"))
            complain(f"asks for {request.url}", not own and not inline)

        if strict:
            page.on("pageerror", complain)
            page.on("console", lambda m: complain(m.text, m.type in ("error", "warning")))
            page.on("requestfailed", lambda request: complain(f"no {request.url}"))
            page.on("response", lambda r: complain(f"{r.status} {r.url}", r.status >= 400))
        page.on("request", on_request)
        chromium.open_page(page, address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


WCAG = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


def audit(page: Any, **options: Any) -> list[str]:
    """What axe-core holds against a page, one line an element.

    By WCAG 2.2 A and AA and best practices, unless `options` say less.
    """
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs the package axe-playwright-python"
    ).Axe()
    found = axe.run(page, options={"preload": False, **options}).response["violations"]
    return [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"]]


# --- the figures by themselves ---------------------------------------------------------------


@pytest.fixture(scope="session")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the figures' scripts and data, and a page for each figure and one of all."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import widget_data

    folder = tmp_path_factory.mktemp("figures") / "widgets"
    shutil.copytree(WIDGETS, folder)
    widget_data.write_all(folder / "data")
    for name, shown in {"all": NAMES, **{name: (name,) for name in NAMES}}.items():
        places = "".join(f"<div data-widget={one}>a figure, {one}</div>" for one in shown)
        (folder / f"{name}.html").write_text(PAGE.replace("PLACES", places))
    return folder


PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Figures</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="widgets.css">
<script defer src="common.js"></script><style>body{font-family:sans-serif}</style></head>
<body><main><h1>Figures</h1>PLACES</main></body></html>
"""


def test_every_figure_of_the_folder_is_tested() -> None:
    scripts = {path.stem for path in WIDGETS.glob("*.js")}
    assert scripts - {"common", "net"} == set(NAMES)


@pytest.mark.parametrize(
    ("viewport", "theme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"]
)
def test_figures_are_drawn_and_pass_the_audit(
    viewport: dict[str, int], theme: str, figures: Path, visit: Callable[..., Any]
) -> None:
    page = visit((figures / "all.html").as_uri(), viewport, theme)
    assert page.locator("[data-ready=yes]").count() == len(NAMES)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert audit(page) == []


def state(page: Any) -> str:
    """All that a figure shows, canvases included."""
    return page.evaluate(
        """(() => {
            const place = document.querySelector(".widget");
            const all = (tag, what) => [...place.querySelectorAll(tag)].map(what);
            const inputs = all("input", (one) => one.value + one.checked);
            return place.innerHTML + inputs + all("canvas", (one) => one.toDataURL());
        })()"""
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_answers_the_keyboard(name: str, figures: Path, visit: Callable[..., Any]) -> None:
    page = visit(
        (figures / f"{name}.html").as_uri(), reduced_motion="reduce"
    )  # nothing goes on by itself
    before, reached = state(page), 0
    said = page.locator(".widget-result").inner_text()
    answers = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """(() => {
                const node = document.activeElement;
                const label = node.labels && node.labels[0]?.textContent;
                const name = label || node.getAttribute("aria-label") || node.textContent;
                return node === document.body ? null : [node.tagName, node.type || "", name];
            })()"""
        )
        if focused is None:
            break
        reached += 1
        assert focused[2].strip(), f"no name: {focused}"
        kind = focused[1] if focused[0] == "INPUT" else focused[0]
        if kind != "file":
            page.keyboard.press(
                {
                    "range": "ArrowRight",
                    "radio": "ArrowRight",
                    "checkbox": " ",
                    "BUTTON": "Enter",
                }.get(kind, "ArrowRight")
            )
            answers.add(page.locator(".widget-result").inner_text())
    assert reached >= 2 and state(page) != before
    assert answers - {said}, "the result says nothing new"
    page.wait_for_function(
        "document.querySelector('.widget-spoken').textContent !== ''"
    )  # for who listens, once the hand rests


@pytest.mark.parametrize(
    ("name", "first", "keys", "answer"),
    [
        (
            "architecture",
            "svg g[tabindex='0']",
            ["ArrowRight", "End"],
            ["conv2: 186,624 neurons", "fc8: 1,000 neurons"],
        ),
        (
            "pooling",
            "svg g[tabindex='0']",
            ["ArrowRight", "ArrowDown", "Home"],
            ["Row 1, column 2", "Row 2, column 2", "Row 1, column 1"],
        ),
        (
            "receptive",
            ".receptive-map[tabindex='0']",
            ["ArrowUp", "ArrowDown", "ArrowRight"],
            ["row 3, column 4", "row 4, column 4", "row 4, column 5"],
        ),
        ("kernels", "canvas[tabindex='0']", ["ArrowRight", "ArrowLeft"], ["Map 1:", "Map 0:"]),
    ],
)
def test_arrow_keys_walk(
    name: str,
    first: str,
    keys: list[str],
    answer: list[str],
    figures: Path,
    visit: Callable[..., Any],
) -> None:
    page = visit((figures / f"{name}.html").as_uri())
    assert page.locator(first).count() == 1  # one of them at a time is a stop of the Tab key
    page.locator(first).focus()
    for key, said in zip(keys, answer, strict=True):
        page.keyboard.press(key)
        playwright.expect(page.locator(".widget-result")).to_contain_text(said)


POINT = {
    "architecture": ("svg g[aria-label^=fc6]", "fc6: 4,096 neurons"),
    "puzzle": ("label:has-text('torchvision')", "55 windows"),
    "lrn": ("svg g:nth-of-type(4)", "Map 3 keeps"),
    "pooling": ("svg g[aria-label^='row 3, column 4']", "Row 3, column 4"),
    "augment": ("label:has-text('released source')", "divided by 1.1"),
    "kernels": ("canvas[aria-label^='map 5']", "Map 5:"),
    "momentum": ("button", "Step "),
    "plateau": ("button:has-text('pixels from 0 to 1')", "all images look alike"),
    "seeds": ("button:has-text('on pictographs')", "after Holm over 12 claims"),
    "classify": (
        "button[aria-label='Test picture 10: umbrella']",
        "test picture 10, which shows umbrella",
    ),
    "saturation": ("button:has-text('a standard deviation of 1')", "the mean slope is 61 %"),
    "receptive": ("label:has-text('conv5')", "It sees 163 × 163 pixels"),
    "statements": ("label:has-text('initialization')", "3 statements on initialization"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_answers_the_pointer(name: str, figures: Path, visit: Callable[..., Any]) -> None:
    page = visit((figures / f"{name}.html").as_uri())
    where, answer = POINT[name]
    page.locator(where).first.click()
    playwright.expect(page.locator(".widget-result")).to_contain_text(answer)


def test_the_224_puzzle_and_the_presets_say_what_is_right(
    figures: Path, visit: Callable[..., Any]
) -> None:
    page = visit((figures / "puzzle.html").as_uri())
    said = page.locator(".widget-result")
    playwright.expect(said).to_contain_text(
        "54 windows; the last pixel is never read. Sides of the maps: 54 → 26 → 12 → 5"
    )
    page.get_by_label("round up").check()
    playwright.expect(said).to_contain_text("55 windows; the last lacks 3 pixels and reads zeros.")
    playwright.expect(said).to_contain_text("Sides of the maps: 55 → 27 → 13 → 6; fc6 reads 9,216")
    page = visit((figures / "architecture.html").as_uri())
    page.get_by_label("what crosses").check()
    playwright.expect(page.locator(".widget-result")).to_contain_text(
        "21,632 for conv3, 4,608 for fc6, 2,048 for fc7, 1,000 for fc8"
    )
    page.get_by_label("normalization", exact=True).check()
    playwright.expect(page.locator(".widget-result")).to_contain_text(
        "after conv1: n = 5, k = 2, α = 0.0001, β = 0.75; after conv2"
    )


def test_a_picture_of_ones_own_is_classified_and_stays_here(
    figures: Path, visit: Callable[..., Any], tmp_path: Path
) -> None:
    import numpy as np

    from alexnet.data import pictographs

    code = next(code for code, name in pictographs.CLASSES if name == "scissors")
    pictographs.draw(code, "test", np.random.default_rng(5), 300).save(tmp_path / "own.png")
    (tmp_path / "not a picture.png").write_text("words")
    page = visit((figures / "classify.html").as_uri())
    page.locator("input[type=file]").set_input_files(tmp_path / "own.png")
    playwright.expect(page.locator(".widget-result")).to_contain_text("For your picture: ")
    from PIL import Image

    given = page.get_by_label("What the net is given")
    whole = "getImageData(0, 0, canvas.width, canvas.height)"
    drawn = f"(canvas) => [...canvas.getContext('2d').{whole}.data]"
    assert len(set(given.evaluate(drawn))) > 2
    Image.new("RGBA", (300, 200), (200, 10, 10, 0)).save(tmp_path / "nothing.png")
    page.locator("input[type=file]").set_input_files(tmp_path / "nothing.png")
    page.wait_for_function(
        f"new Set(({drawn})(document.querySelector('.widget canvas'))).size === 2"
    )  # black: nothing of the last one
    page.locator("input[type=file]").set_input_files(tmp_path / "not a picture.png")
    playwright.expect(page.locator(".widget-result")).to_contain_text(
        "no picture that this browser can read"
    )
    assert (
        set(given.evaluate(drawn)) == {0}
        and page.get_by_label("The five most probable classes").text_content() == ""
    )


def test_the_crop_can_be_dragged(figures: Path, visit: Callable[..., Any]) -> None:
    page = visit((figures / "augment.html").as_uri())
    box = page.get_by_label("The photograph").bounding_box()
    unit, middle = box["width"] / 256, (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 10 * unit, middle[1] - 100 * unit)
    page.mouse.up()
    page.mouse.move(*middle)  # let go: it stays
    sides = [page.get_by_label(f"crop, {side}").input_value() for side in ("left", "top")]
    assert abs(int(sides[0]) - 26) <= 1 and sides[1] == "0"


def test_lettering_keeps_its_size_on_a_phone(figures: Path, visit: Callable[..., Any]) -> None:
    for viewport in (DESKTOP, PHONE):
        page = visit((figures / "all.html").as_uri(), viewport)
        page.wait_for_timeout(300)  # until the drawings know how wide they are
        sizes = page.evaluate(
            """[...document.querySelectorAll(".widget svg text")].map((one) => {
                const box = one.ownerSVGElement, { width } = box.getBoundingClientRect();
                const pixels = width / box.viewBox.baseVal.width;
                return parseFloat(getComputedStyle(one).fontSize) * pixels;
            })"""
        )
        assert len(sizes) > 100 and min(sizes) > 9.5 and max(sizes) < 15


def test_reduced_motion_goes_step_by_step_by_hand(figures: Path, visit: Callable[..., Any]) -> None:
    page = visit((figures / "momentum.html").as_uri(), reduced_motion="reduce")
    page.get_by_role("button", name="Step by step").click()
    playwright.expect(page.locator(".widget-result")).to_contain_text("Step 0:")
    page.get_by_role("button", name="Next step").click()
    page.wait_for_timeout(300)  # nothing goes on by itself
    playwright.expect(page.locator(".widget-result")).to_contain_text("Step 1:")


def test_without_scripts_or_data_a_sentence_stands_there(
    figures: Path, visit: Callable[..., Any], tmp_path: Path
) -> None:
    shutil.copytree(figures, tmp_path / "copy", ignore=shutil.ignore_patterns("data"))
    page = visit((tmp_path / "copy" / "kernels.html").as_uri(), strict=False)
    playwright.expect(page.locator("[data-widget]")).to_contain_text("a figure, kernels")
    playwright.expect(page.locator(".widget-missing")).to_contain_text("data/kernels.js is missing")


# --- the book --------------------------------------------------------------------------------

PAGES = [
    *sorted(path.relative_to(HTML).as_posix() for path in (HTML / "book").glob("*.html")),
    "search.html",
    "genindex.html",
]
book = pytest.mark.skipif(
    not (HTML / "index.html").exists(), reason="needs the built book: make book"
)


@pytest.fixture(scope="session")
def served() -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(HTML))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        pass


@book
@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_in_silence_and_passes_the_audit(
    name: str, theme: str, served: str, visit: Callable[..., Any]
) -> None:
    page = visit(served + name, theme=theme)
    assert page.locator("[data-ready=no]").count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert (
        page.locator("#pst-header input:visible").count() == 0
    )  # the second search bar that the theme has by itself
    silent = "(one) => !one.alt && !one.closest('button')"
    unnamed = page.evaluate(f"[...document.images].filter({silent}).map((one) => one.src)")
    assert unnamed == []
    assert audit(page, runOnly=WCAG) == []  # of best practices, the theme misses two


@book
@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_a_phone_and_has_its_weight(
    name: str, served: str, visit: Callable[..., Any]
) -> None:
    page = visit(served + name, PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    loaded = {
        unquote(urlsplit(asked).path).lstrip("/")
        for asked in page.asked
        if asked.startswith(served)
    }
    weight = sum((HTML / path).stat().st_size for path in loaded)
    assert weight < WEIGHT_LIMIT, f"{weight:,} bytes"


@book
@pytest.mark.slow
def test_the_book_works_from_files(visit: Callable[..., Any]) -> None:
    pages = [page for page in PAGES if page.startswith("book/")]
    assert len(pages) > 5
    drawn = sum(visit((HTML / name).as_uri()).locator("[data-ready=yes]").count() for name in pages)
    assert drawn >= len(NAMES)


@book
@pytest.mark.slow
def test_the_search_finds(served: str, visit: Callable[..., Any]) -> None:
    page = visit(served + "search.html?q=overlapping")
    playwright.expect(page.locator("#search-results li a").first).to_be_visible()


@book
@pytest.mark.slow
def test_formulas_are_set(served: str, visit: Callable[..., Any]) -> None:
    page = visit(served + "book/03-architecture.html")
    playwright.expect(page.locator("mjx-container").first).to_be_visible()
    assert any("woff" in asked for asked in page.asked)


@book
@pytest.mark.slow
def test_chapters_end_with_their_claims_in_a_table(served: str, visit: Callable[..., Any]) -> None:
    chapters = [page for page in PAGES if re.match(r"book/0[1-7]-", page)]
    assert len(chapters) == 7  # the eighth tests none
    for name in chapters:
        heads = visit(served + name).locator("table thead").all_text_contents()
        assert sum("claim" in head and "verdict" in head for head in heads) == 1, name


@book
@pytest.mark.slow
def test_the_book_is_one_pdf_whose_links_stay_inside(browser: Any) -> None:
    """One page of it, and all that it is made of."""
    from pypdf import PdfReader, PdfWriter

    toc = ["book/intro", "book/claims"]
    parts = [{"chapters": [{"file": toc[1], "sections": []}]}]
    assert list(chromium.pages({"root": toc[0], "parts": parts})) == toc
    made, starts = PdfWriter(), {}
    page = browser.new_page()
    for name in toc:
        path = HTML / f"{name}.html"
        starts[path.as_uri()] = len(made.pages)
        title, printed = chromium.print_page(page, path)
        made.append(io.BytesIO(printed), outline_item=title, import_outline=False)
    page.close()
    chromium.keep_inside(made, starts)
    made.write(written := io.BytesIO())
    read = PdfReader(written)
    assert [read.get_destination_page_number(one) for one in read.outline] == list(starts.values())
    links = [link.get_object() for one in read.pages for link in one.get("/Annots", ())]
    addresses = [str(link["/A"]["/URI"]) for link in links if "/A" in link and "/URI" in link["/A"]]
    assert not any(address.split("#")[0] in starts for address in addresses)
    claims = read.pages[starts[(HTML / "book/claims.html").as_uri()]]
    assert any(link.get("/Dest", [None])[0] == claims.indirect_reference for link in links)
    text = "".join(one.extract_text() for one in read.pages)
    assert "claims" in text and "Reproduce this page" in text


class _Page(HTMLParser):
    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := given.get(name))}
        self.links += [value for name in ("href", "src") if (value := given.get(name)) is not None]


@book
@pytest.mark.slow
def test_links_and_anchors_resolve() -> None:
    pages = {path: _Page(path) for path in HTML.rglob("*.html") if "_static" not in path.parts}
    broken, count = [], 0
    for path, page in pages.items():
        for link in page.links:
            to = urlsplit(urljoin(path.as_uri(), link))
            if to.scheme != "file" or link == "#":
                continue
            count += 1
            target = Path(unquote(to.path))
            if not target.is_file() or (
                to.fragment and target in pages and unquote(to.fragment) not in pages[target].ids
            ):
                broken.append(f"{path.relative_to(HTML)}: {link}")
    assert count > 100 and broken == []


@book
def test_no_table_is_shown_as_its_text() -> None:
    pages = {path.name: path.read_text(encoding="utf-8") for path in (HTML / "book").glob("*.html")}
    shown = {
        name: re.sub(r"<pre.*?</pre>", "", text, flags=re.DOTALL) for name, text in pages.items()
    }
    assert sum(text.count("<table") for text in shown.values()) > 40
    assert [name for name, text in shown.items() if re.search(r"\|\s*:?(—|–|---)", text)] == []


@book
def test_links_to_other_hosts_were_written_by_somebody() -> None:
    """The name of a file, layer.py say, is not taken for a domain."""
    kinds = (".md", ".ipynb", ".bib", ".py")
    sources = [
        path
        for part in ("book", "alexnet", "kernels")
        for path in (ROOT / part).rglob("*")
        if path.suffix in kinds
    ]
    written = "".join(path.read_text() for path in [*sources, ROOT / "_config.yml"])
    linked = {
        urlsplit(link).netloc
        for path in HTML.rglob("*.html")
        if "_static" not in path.parts
        for link in _Page(path).links
    }
    assert {host for host in linked - {""} if f"//{host}" not in written} == set()


def test_the_link_checker_sees_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(
        '<a href="#there">x</a><p id="there"></p><img src="none.png">'
    )
    page = _Page(tmp_path / "page.html")
    assert page.ids == {"there"} and page.links == ["#there", "none.png"]
