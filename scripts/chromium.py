"""Chromium as the system has it, for what looks at the built book: pictures, the PDF, the tests."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, sync_playwright

# Every figure to play with has been drawn, or has said why not.
READY = "[...document.querySelectorAll('[data-widget]')].every((place) => place.dataset.ready)"
FLAGS = ("--no-sandbox", "--disable-gpu")
KNOWN = ("chromium", "chromium-browser", "google-chrome")


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
